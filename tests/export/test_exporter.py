"""What a bundle holds and what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.data.prepared import Prepared
from recsys.errors import ExportError
from recsys.evaluation.tuned_index import held_out_queries, tuned_index
from recsys.export import exporter
from recsys.export.config import RetrievalConfig
from recsys.ragged import Ragged
from recsys.retrieval import ExactConfig, ExactIndex, ScannConfig, ScannIndex
from serving import Pipeline, Request
from tests.export.conftest import ITEMS, PER_USER, USERS, Exported, export
from tests.worlds import write_world


def raw_history(exported: Exported, user: str) -> list[tuple[int, str]]:
    """(time, item) of a user's raw events, oldest first."""
    mine = exported.events.filter(pc.equal(exported.events["user"], user))
    return sorted(zip(mine["time"].to_pylist(), mine["item"].to_pylist(), strict=True))


def test_histories_are_in_time_order_though_training_events_come_first(exported: Exported) -> None:
    prepared = exported.prepared
    assert (np.diff(prepared.events.time[: prepared.event_start[1]]) < 0).any()  # or the test could not fail
    served = pq.read_table(exported.bundle / "users.parquet").to_pylist()
    items = prepared.items["item"].to_pylist()
    assert len(served) == USERS
    for row in served:
        history = raw_history(exported, row["user"])
        assert [(time, items[n]) for time, n in zip(row["history_time"], row["history"], strict=True)] == history
        assert {items[n] for n in row["seen"]} == {item for _, item in history}
        assert len(row["seen"]) == PER_USER


def test_long_histories_are_cut_to_the_newest(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "SHOWN", 5)
    items = exported.prepared.items["item"].to_pylist()
    for row in exporter.served_users(exported.prepared).to_pylist():
        history = raw_history(exported, row["user"])
        assert [items[n] for n in row["history"]] == [item for _, item in history[-5:]]
        assert row["history_time"] == [time for time, _ in history[-5:]]
        assert len(row["seen"]) == PER_USER


def test_a_window_longer_than_what_is_shown_is_served_whole(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "SHOWN", 1)
    assert {len(row) for row in exporter.served_users(exported.prepared)["history"].to_pylist()} == {4}


def test_the_manifest_tells_what_is_there(exported: Exported) -> None:
    manifest = Bundle.load(exported.bundle).manifest
    assert (manifest.catalogue_size, manifest.embedding_dim) == (ITEMS, 8)
    numbers = ["hour", "hours", "time_of_day"]
    assert list(manifest.request) == ["member", "interests", "age", "taste", "device", *numbers, "recent", "studios"]
    assert list(manifest.item) == ["film", "genres", "price", "studio"]
    assert manifest.index.kind == "scann"
    assert manifest.index.recall == 1.0  # so few items are scored whole
    assert manifest.metrics == {"auc": 0.5}
    assert manifest.data_digest == exported.prepared.info.digest
    assert manifest.timestamp_unit == "s"
    assert manifest.data_time == max(exported.events["time"].to_pylist())


def test_recommendations_are_those_of_exact_search_without_seen_items(exported: Exported) -> None:
    prepared, model = exported.prepared, exported.model
    items, users = prepared.items["item"].to_pylist(), prepared.users["user"].to_pylist()
    film, studio = prepared.item_features["film"], prepared.item_features["studio"]
    position = {item: n for n, item in enumerate(items)}
    query = {name: column.copy() for name, column in prepared.user_features.items()}
    query |= {
        "device": np.zeros(USERS, np.int32),
        **dict.fromkeys(("hour", "hours", "time_of_day"), np.full(USERS, np.nan, np.float32)),
        "recent": np.zeros((USERS, 4), np.int32),
        "recent.age": np.zeros((USERS, 4), np.float32),
        "studios": np.zeros((USERS, 3), np.int64),
    }
    histories = [raw_history(exported, user) for user in users]
    for n, history in enumerate(histories):
        query["recent"][n] = [film[position[item]] for _, item in history[-4:]]
        query["recent.age"][n] = [history[-1][0] - time for time, _ in history[-4:]]
        query["studios"][n] = [studio[position[item]] for _, item in history[-3:]]
    seen = Ragged.from_lists([sorted({position[item] for _, item in history}) for history in histories])
    best = ExactIndex(model.item_vectors(prepared.item_features)).search(model.query_vectors(query), 10, seen)
    pipeline = Pipeline(Bundle.load(exported.bundle))
    for n, user in enumerate(users):
        found = pipeline.recommend(Request.of(user=user, k=10)).items
        assert [item.item for item in found] == [items[i] for i in best.ids[n]]
        np.testing.assert_allclose([item.score for item in found], best.scores[n], rtol=1e-4, atol=1e-5)
    assert pipeline.history(users[0], 2)[0].item == histories[0][-1][1]


UNREACHABLE = ScannConfig(leaves=10, leaves_to_search=1, reorder=60, promise={"recall@10": 1.0})


def test_a_broken_promise_leaves_no_bundle(exported: Exported, tmp_path: Path) -> None:
    """One leaf of 10 does not hold the best 10 of 60 items for every query."""
    message = r"promise: at best recall@10 is 0\.\d+ .* 1 of 10 leaves searched.*expected recall@10 1\.0; leave out"
    with pytest.raises(ExportError, match=message):
        export(exported, RetrievalConfig(index=UNREACHABLE, retriever_k=7), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_kept_promise_is_in_the_manifest_with_the_curve_beside_it(exported: Exported, tmp_path: Path) -> None:
    kept = UNREACHABLE.model_copy(update={"leaves_to_search": 10})
    folder = export(exported, RetrievalConfig(index=kept, retriever_k=100), tmp_path / "bundle")
    bundle = Bundle.load(folder)
    facts = bundle.manifest.index
    assert facts is not None
    assert (facts.kind, facts.k, facts.recall, facts.recall_low) == ("scann", 10, 1.0, 1.0)
    assert facts.promise == {"recall@10": 1.0}
    assert isinstance(bundle.index, ScannIndex)
    curve = bundle.index.curve
    assert curve is not None
    assert facts.milliseconds == curve.point.milliseconds.estimate > 0
    assert curve.queries == len(exported.prepared.held_out("valid").user_index)


def test_the_queries_that_measured_the_index_are_in_the_bundle(exported: Exported) -> None:
    held_out = exported.prepared.held_out("valid")
    table = pq.read_table(exported.bundle / "queries.parquet")
    assert table["user"].to_pylist() == exported.prepared.users["user"].take(held_out.user_index).to_pylist()
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_allclose(vectors, exported.model.query_vectors(held_out.query), rtol=1e-5)


def test_an_index_that_no_query_measures_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = write_world(tmp_path / "world")
    path = folder / "valid" / "part-00000.parquet"
    table = pq.read_table(path)
    label = table.schema.get_field_index("label")
    pq.write_table(table.set_column(label, "label", pa.array([0.0] * len(table), pa.float32())), path)
    queries = held_out_queries(exported.model, Prepared(folder), {})
    with pytest.raises(ExportError, match=r"world: valid: no positives.*kind to exact"):
        tuned_index(np.eye(8, dtype=np.float32), ScannConfig(), queries, "world")
    assert isinstance(tuned_index(np.eye(8, dtype=np.float32), ExactConfig(), queries, "world"), ExactIndex)


def test_an_error_while_writing_leaves_the_older_bundle_alone(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no space left on device")

    bundles = exported.bundle.parent
    monkeypatch.setattr(exporter, "served_users", fails)
    with pytest.raises(OSError, match="no space"):
        export(exported, RetrievalConfig(), bundles)
    assert [path.name for path in bundles.iterdir()] == ["1"]
    Bundle.load(bundles)


def test_a_tower_holds_what_it_reads_and_no_more(exported: Exported) -> None:
    """Weights that only the other tower reads (its tables, its layers) would double a bundle."""
    query, item = (
        {tuple(weight.shape) for weight in tower.trainable_variables if "mlp" in weight.name}
        for tower in (exported.model.query_tower, exported.model.item_tower)
    )
    bundle = Bundle.load(exported.bundle)
    for graph, own, other in (("query_tower", query, item - query), ("item_tower", item, query - item)):
        listed = tf.train.list_variables(str(bundle.graph_folder(graph) / "variables" / "variables"))
        shapes = {tuple(shape) for _, shape in listed}
        assert own <= shapes
        assert other
        assert not other & shapes
