"""What `prepare` suspects of the raw log is a leak beside the others, refused or told as the config says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.prepared import Prepared
from recsys.errors import DataError
from recsys.evaluation.leakage import refuse_leaks
from tests.evaluation import spoiling
from tests.evaluation.spoiling import World


@pytest.fixture
def leaky(tmp_path, monkeypatch) -> World:
    """The year is the number of raw events, those that the rules drop included."""
    tables = spoiling.log(0)
    raw = np.array([int(item[1:]) for item in tables["events"]["item"].to_pylist()])
    items = tables["items"].set_column(3, "year", pa.array(np.bincount(raw, minlength=spoiling.ITEMS)))
    monkeypatch.setattr(spoiling, "log", lambda seed: tables | {"items": items})
    return World(spoiling.prepared(tmp_path / "leaky", "temporal"))


def test_a_statistic_of_the_raw_log_is_a_leak(leaky):
    (suspicion,) = Prepared(leaky.path).info.suspicions
    assert leaky.only() == (
        "temporal: item feature 'year': it is the number of events of each item in the whole raw log, dropped and "
        f"held-out events included: so for 100.0% of the {suspicion.compared} items where those held out change that "
        "number; expected what was known before the held-out events; compute it from the training part, or leave it "
        "out (input: false keeps it for slices)"
    )
    assert refuse_leaks(Prepared(leaky.path), "warn") == (leaky.only(),)
    with pytest.raises(DataError, match="feature 'year'"):
        refuse_leaks(Prepared(leaky.path), "refuse")


def test_what_the_model_does_not_read_is_no_leak(leaky):
    leaky.info(lambda info: info["features"]["year"].update(input=False))
    assert leaky.found() == []


def test_a_feature_is_named_once(leaky):
    """The whole log without the dropped events is found in the prepared folder, too."""
    counts = sum(
        np.bincount(leaky.rows(part)["item_index"], minlength=spoiling.ITEMS) for part in ("train", "valid", "test")
    )
    leaky.feature("item", "year", counts)
    assert "in the whole raw log" in leaky.only()
    leaky.info(lambda info: info.update(suspicions=[]))
    assert "it is, or nearly is, the number of events of each item in the whole log" in leaky.only()
