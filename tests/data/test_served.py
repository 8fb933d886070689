"""From what was served to events, to a prepared folder, to an off-policy estimate: by hand all the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle.manifest import CategoricalField, MultiValuedField, NumericField, RawField, SequenceField
from recsys.config.load import load
from recsys.data.config import DataConfig, ServedSource
from recsys.data.prepare import prepare
from recsys.data.prepared import Prepared
from recsys.data.sources import resolve
from recsys.errors import DataError
from recsys.evaluation.off_policy import Log, estimate_of
from recsys.experiment_config import ExperimentConfig
from recsys.schema.config import SchemaConfig
from serving.log.config import LogConfig
from serving.log.response_log import Feedback, Response, ResponseLog
from tests.documented import blocks

REQUEST: dict[str, RawField] = {
    "device": CategoricalField(role="context"),
    "hour": NumericField(role="context"),
    "tags": MultiValuedField(role="user", max_length=3),
    "history": SequenceField(of="item", max_length=3, age=True),
}
START = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = Response(
    request_id="", time=START, user=None, features={}, bundle="shop", version=1, candidates=[], retrieval_scores=[],
    ranker_scores=None, shown=[], scores=[], propensities=[], degraded=[], milliseconds={},
)  # fmt: skip


def answer(number: int, user: str | None, shown: str, propensities: Sequence[float], **changes: Any) -> Response:
    """The answer at `number` minutes, with these items (letters) shown."""
    whole = {"request_id": f"r{number}", "time": START + timedelta(minutes=number), "user": user, "shown": [*shown]}
    return replace(ANSWER, **(whole | {"scores": range(len(shown)), "propensities": propensities} | changes))


def write(
    folder: Path,
    answers: Sequence[Response],
    feedback: Sequence[tuple[int, str, str]] = (),
    request: dict[str, RawField] = REQUEST,
) -> None:
    log = ResponseLog.open(LogConfig(folder=str(folder), rows=2), request)
    assert all(log.response(each) for each in answers)
    for number, item, label in feedback:
        assert log.feedback(Feedback(f"r{number}", item, label, START + timedelta(minutes=number, seconds=9)))
    log.close()


def events(folder: Path, **options: Any) -> pa.Table:
    (file,) = resolve(ServedSource(kind="served", folder=str(folder), **options), Path("/")).events
    return pq.read_table(file)


def test_shown_items_meet_their_feedback(tmp_path: Path) -> None:
    features = {"device": "phone", "hour": 7, "tags": ["x"], "history": ["a", "b"], "history.age": [9, 1]}
    answers = [
        answer(1, "u", "ab", [1.0, 0.25], features=features, scores=[0.5, np.nan]),
        answer(2, "v", "a", [0.5], degraded=["ranker"], version=2),
        answer(3, None, "c", [1.0]),
        answer(4, "u", "", []),
    ]
    told = [
        (1, "b", "click"),
        (1, "b", "click"),
        (1, "b", "buy"),
        (2, "a", "view"),
        (2, "b", "click"),
        (9, "a", "click"),
    ]
    write(tmp_path, answers, told)
    found = events(tmp_path, further_labels=["buy"]).to_pylist()
    minute = [(START + timedelta(minutes=n)).replace(tzinfo=None) for n in range(3)]
    served = {"device": "phone", "hour": 7.0, "tags": ["x"], "history": ["a", "b"], "history_age": [9.0, 1.0]}
    one = {
        "user": "u",
        "time": minute[1],
        "request_id": "r1",
        "bundle": "shop",
        "version": 1,
        "degraded": False,
    } | served
    assert found == [
        one | {"item": "a", "label": 0, "buy": 0, "propensity": 1.0, "place": 1, "score": 0.5},
        one | {"item": "b", "label": 1, "buy": 1, "propensity": 0.25, "place": 2, "score": None},
        {
            "user": "v", "item": "a", "label": 0, "buy": 0, "time": minute[2], "propensity": 0.5, "place": 1,
            "score": 0.0, "request_id": "r2", "bundle": "shop", "version": 2, "degraded": True,
            **dict.fromkeys(served),
        },
    ]  # fmt: skip
    anonymous = events(tmp_path, anonymous=True)
    assert anonymous["user"].to_pylist() == ["u", "u", "v", None]
    assert events(tmp_path, label="view")["label"].to_pylist() == [0, 0, 1]


def test_the_newest_answers_wait_for_feedback(tmp_path: Path) -> None:
    write(tmp_path, [answer(n, "u", "a", [1.0]) for n in range(5)])
    assert events(tmp_path, settle=120.0)["request_id"].to_pylist() == ["r0", "r1", "r2"]
    with pytest.raises(DataError, match=r"data\.source\.folder: no answer that counts has shown anything"):
        events(tmp_path, settle=1e6)


def test_events_are_made_once_until_the_log_grows(tmp_path: Path) -> None:
    write(tmp_path, [answer(1, "u", "a", [1.0])])
    source = ServedSource(kind="served", folder=tmp_path.name)
    (first,) = resolve(source, tmp_path.parent).events
    assert resolve(source, tmp_path.parent).events == (first,)
    write(tmp_path, [answer(2, "u", "b", [1.0])])
    (second,) = resolve(source, tmp_path.parent).events
    assert second != first
    assert pq.read_table(second)["item"].to_pylist() == ["a", "b"]
    assert {path.name for path in second.parent.iterdir()} == {"events.parquet"}


def test_logs_of_bundles_with_other_features_are_one(tmp_path: Path) -> None:
    write(tmp_path, [answer(1, "u", "a", [1.0], features={"device": "phone"})])
    write(tmp_path, [answer(2, "u", "b", [1.0], features={"hour": 7})], request={"hour": NumericField(role="context")})
    found = events(tmp_path)
    assert found["device"].to_pylist() == ["phone", None]
    assert found["hour"].to_pylist() == [None, 7.0]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.source\.folder: no answers in .*responses; .*correct the path"):
        events(tmp_path)
    write(tmp_path, [answer(1, "u", "a", [1.0])], request={"place": CategoricalField(role="context")})
    with pytest.raises(DataError, match="feature 'place' has the name of another column"):
        events(tmp_path)
    (tmp_path / "responses" / "x.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="cannot be read"):
        events(tmp_path)


def test_from_the_log_to_an_off_policy_estimate(tmp_path: Path) -> None:
    """Ten answers, one a minute, each of two places, of which the second explores: a stands first, at the second place
    b with probability .8, c and d with .1 each. The last two answers test.

    r8 shows a, c: c is clicked. r9 shows a, b: a is clicked. So of the four test events (label, propensity) are
    a (0, 1), c (1, .1), a (1, 1), b (0, .8). A policy that shows c with probability .5, a with .25 and b with .25:
    weights .25, 5, .25, .3125; ips = (5 + .25) / 4 = 1.3125; snips = 5.25 / 5.8125.
    """
    second = "bbcbdbbbcb"
    chance = {"b": 0.8, "c": 0.1, "d": 0.1}
    answers = [
        answer(n, f"u{n % 2}", f"a{item}", [1.0, chance[item]], features={"device": "tv" if n % 2 else "phone"})
        for n, item in enumerate(second)
    ]
    write(
        tmp_path / "log",
        answers,
        [(0, "a", "click"), (2, "c", "click"), (7, "b", "click"), (8, "c", "click"), (9, "a", "click")],
    )
    data = DataConfig.model_validate(
        {
            "source": {"kind": "served", "folder": "log"},
            "positives": {"column": "label", "at_least": 1},
            "negatives": {"column": "label", "at_most": 0},
            "split": {"kind": "temporal", "valid": 0.2, "test": 0.2},
        }
    )
    schema = SchemaConfig.model_validate(
        {
            "user": "user", "item": "item", "timestamp": "time", "propensity": "propensity",
            "features": {
                "movie": {"kind": "categorical", "role": "item", "column": "item"},
                "device": {"kind": "categorical", "role": "context"},
                "place": {"kind": "categorical", "role": "context", "input": False},
                "history": {"kind": "sequence", "of": "movie"},
            },
        }
    )  # fmt: skip
    prepared = Prepared(prepare("served", data, schema, resolve(data.source, tmp_path)))
    items = pq.read_table(prepared.path / "items.parquet")["item"].to_pylist()
    columns = ["user_index", "item_index", "label", "propensity", "time", "device"]
    examples = prepared.examples("test", columns)
    found = {(row["time"], items[row["item_index"]]): (row["label"], row["propensity"]) for row in examples.to_pylist()}
    at = [int((START + timedelta(minutes=n)).timestamp()) for n in (8, 9)]
    assert found == {(at[0], "a"): (0, 1), (at[0], "c"): (1, 0.1), (at[1], "a"): (1, 1), (at[1], "b"): (0, 0.8)}
    policy = {"a": 0.25, "b": 0.25, "c": 0.5}
    target = np.array([policy[items[index]] for index in examples["item_index"].to_pylist()])
    record = estimate_of(target, Log.of(examples))
    assert record.ips == pytest.approx(1.3125)
    assert record.snips == pytest.approx(5.25 / 5.8125)
    assert record.mean_weight == pytest.approx(5.8125 / 4)
    assert (record.events, record.users) == (4, 2)
    # What the logging policy did earn, by its own propensities: two clicks of four.
    own = estimate_of(Log.of(examples).propensities, Log.of(examples))
    assert (own.ips, own.mean_weight) == (pytest.approx(0.5), pytest.approx(1.0))


def test_the_yaml_of_the_page_is_sound(tmp_path: Path) -> None:
    """In the README's experiment."""
    root = Path(__file__).parents[2]
    page, readme = (root / name for name in ("docs/how-to/learn-from-serving.md", "README.md"))
    served, log = blocks(page.read_text(encoding="utf-8"), "yaml")
    (shop,) = blocks(readme.read_text(encoding="utf-8"), "yaml")
    (tmp_path / "readme.yaml").write_text(shop, encoding="utf-8")
    (tmp_path / "page.yaml").write_text("include: [readme.yaml]\n" + served, encoding="utf-8")
    config = load(tmp_path / "page.yaml", ExperimentConfig).config
    assert isinstance(config.data.source, ServedSource)
    assert config.table_schema.propensity == "propensity"
    (tmp_path / "log.yaml").write_text(log, encoding="utf-8")
    assert load(tmp_path / "log.yaml", LogConfig).config.folder == "log"
