"""`recsys recommend --where`."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.cli.recommend import _conditions
from recsys.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["genre=drama"], {"genre": {"equals": "drama"}}),
        (["genre=a=b<c"], {"genre": {"equals": "a=b<c"}}),
        (["price<=20", "price>5"], {"price": {"at_most": 20.0, "above": 5.0}}),
        (["price>=2", "price<3.5"], {"price": {"at_least": 2.0, "below": 3.5}}),
        (["genre!=drama"], {"genre": {"not_in": ["drama"]}}),
        (
            ['{"genre": ["a", "b"], "price": 3}', "price>1"],
            {"genre": {"in": ["a", "b"]}, "price": {"equals": 3, "above": 1}},
        ),
    ],
)
def test_conditions(given: list[str], expected: dict[str, Any] | None) -> None:
    assert _conditions(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["genre"], "--where genre: is no condition; expected COLUMN=VALUE"),
        (["=drama"], "is no condition"),
        (["price<=cheap"], "'cheap' is no number"),
        (["{"], "--where: is no JSON"),
        (["genre=a", "genre=b"], "--where genre=b: says twice what genre must be"),
    ],
)
def test_mistakes(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _conditions(given)
