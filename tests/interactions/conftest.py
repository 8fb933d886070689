"""What the tests of interactions share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys._compat import keras


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in float64."""
    keras.mixed_precision.set_global_policy("float64")
    yield
    keras.mixed_precision.set_global_policy("float32")
