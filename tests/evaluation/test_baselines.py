"""Baselines: a log worked out on paper, slow second opinions, and nothing of what is held out in what is counted.

user  events (time: item)                                                       counted in training
ann   1: 0, 2: 1 | valid 6: 2 | test 8: 3
bob   1: 0, 3: 1, 4: 2 | valid 6: 0 (again) | test 9: 4
cem   5: 1 | test 9: 0
dee   - | test 10: 2                                                            (no history)
eve   context 1: 0, 2: 3 | test 9: 1                                            (a held-out user)
fay   1: 4, 4: 2

Training has item 0 of {ann, bob}, 1 of {ann, bob, cem}, 2 of {bob, fay}, 3 of nobody, 4 of {fay}; so by popularity
1, 0, 2, 4, 3. Categories: 0 {a}, 1 {a, b}, 2 {b}, 3 {b}, 4 none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.data.dataset import CategoricalInfo, Counts, DatasetInfo
from recsys.data.prepared import Prepared
from recsys.evaluation.baselines import item_knn, rankings, retrieval_baselines, score_baselines
from recsys.evaluation.baselines.category_match import CategoryMatch
from recsys.evaluation.baselines.item_knn import UNIT, ItemKNN
from recsys.evaluation.baselines.rankings import ByHistory, Catalogue, FixedOrder
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.recommenders import Recommender
from recsys.ragged import Ragged
from recsys.schema.config import SchemaConfig
from tests.worlds import write_world

ANN, BOB, CEM, DEE, EVE, FAY = range(6)
TRAIN, VALID, TEST, CONTEXT = range(4)
EVENTS = [  # user, item, time, stage
    *[(ANN, 0, 1, TRAIN), (ANN, 1, 2, TRAIN), (ANN, 2, 6, VALID), (ANN, 3, 8, TEST)],
    *[(BOB, 0, 1, TRAIN), (BOB, 1, 3, TRAIN), (BOB, 2, 4, TRAIN), (BOB, 0, 6, VALID), (BOB, 4, 9, TEST)],
    *[(CEM, 1, 5, TRAIN), (CEM, 0, 9, TEST)],
    (DEE, 2, 10, TEST),
    *[(EVE, 0, 1, CONTEXT), (EVE, 3, 2, CONTEXT), (EVE, 1, 9, TEST)],
    *[(FAY, 4, 1, TRAIN), (FAY, 2, 4, TRAIN)],
]
START = [0, 4, 9, 11, 12, 15]
EXAMPLES = [  # user, item, label, time, history_stop
    (BOB, 4, 1.0, 9, 8),
    (DEE, 2, 1.0, 10, 11),
    (ANN, 3, 1.0, 8, 3),
    (CEM, 0, 1.0, 9, 10),
    (EVE, 1, 1.0, 9, 14),
    (CEM, 1, 0.0, 9, 10),
    (BOB, 1, 0.0, 9, 8),
    (BOB, 0, 0.0, 9, 8),
    (ANN, 1, 0.0, 2, 1),
]
GENRES = [[2], [3, 2], [3], [3], []]
S01, S02, S12, S24 = 2 / (sqrt(6) + 10), 1 / (sqrt(4) + 10), 1 / (sqrt(6) + 10), 1 / (sqrt(2) + 10)
CONFIG = EvaluationConfig(category="genres", recent=0.25)


def write_log(path: Path, *, has_time: bool = True) -> Prepared:
    user, item, time, stage = zip(*EVENTS, strict=True)
    trained = np.array(item)[np.array(stage) == TRAIN]
    tables = {
        "items.parquet": {
            "item": [f"i{n}" for n in range(5)],
            "train_count": np.bincount(trained, minlength=5),
            "genres": pa.array(GENRES, pa.list_(pa.int32())),
        },
        "users.parquet": {"user": ["ann", "bob", "cem", "dee", "eve", "fay"], "event_start": pa.array(START)},
        "events/part-00000.parquet": {
            "user_index": pa.array(user, pa.int32()),
            "item_index": pa.array(item, pa.int32()),
            "stage": pa.array(stage, pa.int8()),
            "time": pa.array(time, pa.int64()),
        },
        "test/part-00000.parquet": {
            "user_index": pa.array([row[0] for row in EXAMPLES], pa.int32()),
            "item_index": pa.array([row[1] for row in EXAMPLES], pa.int32()),
            "label": pa.array([row[2] for row in EXAMPLES], pa.float32()),
            "weight": pa.array(np.ones(len(EXAMPLES), np.float32)),
            "time": pa.array([row[3] for row in EXAMPLES], pa.int64()),
            "history_stop": pa.array([row[4] for row in EXAMPLES], pa.int64()),
        },
    }
    for name, columns in tables.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({n: c for n, c in columns.items() if has_time or n != "time"}), path / name)
    (path / "train").mkdir()
    info = DatasetInfo(
        name="log",
        digest="log",
        table_schema=SchemaConfig.model_validate(
            {"user": "u", "item": "i", "features": {"genres": {"kind": "multi_valued", "role": "item"}}}
        ),
        features={"genres": CategoricalInfo(role="item", rows=4, oov_rows=1, max_length=2)},
        counts=Counts(users=6, items=5, events=len(EVENTS), train=8, valid=2, test=9, dropped=0),
        split="temporal",
        has_time=has_time,
        rows_per_group=64,
    )
    (path / "dataset.json").write_text(info.model_dump_json())
    return Prepared(path)


@pytest.fixture
def log(tmp_path: Path) -> Prepared:
    return write_log(tmp_path / "log")


def rank_all(recommender: Recommender, seen: Ragged, k: int) -> list[list[int]]:
    return recommender.recommend(np.arange(len(seen)), k, seen).tolist()


RANKINGS = {  # of ann, bob, cem, dee, eve, without what they had
    "popularity": [[4, 3, -1], [4, 3, -1], [0, 2, 4], [1, 0, 2], [1, 2, 4]],
    # The newest quarter of 8 events are 2, but two share the time 4: item 2 twice, item 1 once. 0 and 4 by popularity.
    "recent_popularity": [[4, 3, -1], [4, 3, -1], [2, 0, 4], [2, 1, 0], [2, 1, 4]],
    # Ann and bob: 4 is a neighbour of 2. Cem: S01 > S12, then 4. Eve: S01 > S02, then 4.
    "item_knn": [[4, 3, -1], [4, 3, -1], [0, 2, 4], [1, 0, 2], [1, 2, 4]],
    # Ann had b twice, bob too. Cem had a and b: 0, 2 and 3 are equal, 4 has none. Eve: 1 has both.
    "category_in_history": [[3, 4, -1], [3, 4, -1], [0, 2, 3], [1, 0, 2], [1, 2, 4]],
}


def test_rankings_on_paper(log: Prepared) -> None:
    held_out = log.held_out("test")
    values, offsets = held_out.seen.values.copy(), held_out.seen.offsets.copy()
    found = retrieval_baselines(log, held_out, CONFIG)
    assert list(found) == list(RANKINGS)
    for name, recommender in found.items():
        assert (recommender.users, recommender.items) == (5, 5)
        assert rank_all(recommender, held_out.seen, 3) == RANKINGS[name], name
    assert held_out.seen.values.tolist() == values.tolist(), "scipy sorted the history in place"
    assert held_out.seen.offsets.tolist() == offsets.tolist()


def test_scores_on_paper(log: Prepared) -> None:
    expected: dict[str, list[float]] = {
        "popularity": [1, 2, 0, 2, 3, 3, 3, 2, 3],
        "recent_popularity": [0, 2, 0, 0, 1, 1, 1, 0, 1],
        # An item is no neighbour of itself, and bob's second 0 counts once.
        "item_knn": [S24, 0, 0, S01, S01, 0, S01 + S12, S01 + S02, S01],
        "target_in_history": [0, 0, 0, 0, 0, 1, 1, 2, 0],
        "category_in_history": [0, 0, 2 / 3, 1, 1 / 2 + 1 / 2, 2, 3 / 4 + 2 / 4, 3 / 4, 1],
    }
    found = score_baselines(log, "test", CONFIG)
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2.0 / UNIT, err_msg=name)
        assert found[name].dtype == np.float64


def test_only_the_newest_events_of_a_history_count(log: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rankings, "HISTORY", 2)
    # Baskets: ann {0, 1}, bob {1, 2}, cem {1}, fay {4, 2}. Histories: ann 1, 2; bob 2, 0; eve 0, 3.
    s01, s12, s24 = 1 / (sqrt(3) + 10), 1 / (sqrt(6) + 10), 1 / (sqrt(2) + 10)
    found = score_baselines(log, "test", CONFIG)
    np.testing.assert_allclose(found["item_knn"], [s24, 0, 0, s01, s01, 0, s12 + s01, 0, s01], atol=2.0 / UNIT)
    assert found["target_in_history"].tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0]
    held_out = log.held_out("test")
    knn = retrieval_baselines(log, held_out, CONFIG)["item_knn"]
    nothing = Ragged.from_lists([[]] * 5)
    # Bob's 2 and 0 give 1 (twice), 4; his older 1 would give 0 and 2 too, which then come by popularity.
    assert rank_all(knn, nothing, 5)[BOB] == [1, 4, 0, 2, 3]


def test_what_the_data_or_the_config_lack_is_left_out(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", has_time=False)
    config = EvaluationConfig()
    names = ["popularity", "recent_popularity", "item_knn"]
    assert list(retrieval_baselines(log, log.held_out("test"), config)) == [names[0], names[2]]
    assert list(score_baselines(log, "test", config)) == ["popularity"]
    log = write_log(tmp_path / "timed")
    assert list(score_baselines(log, "test", config)) == [*names, "target_in_history"]


def test_blocks_change_nothing(log: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = log.held_out("test")
    whole = score_baselines(log, "test", CONFIG)
    for size in (1, 7, 11):
        monkeypatch.setattr(rankings, "CELLS", size)
        monkeypatch.setattr(rankings, "EXAMPLES", size)
        monkeypatch.setattr(item_knn, "ENTRIES", size)
        for name, recommender in retrieval_baselines(log, held_out, CONFIG).items():
            assert rank_all(recommender, held_out.seen, 3) == RANKINGS[name], name
        np.testing.assert_equal(score_baselines(log, "test", CONFIG), whole)


def test_rows_may_come_in_any_order(log: Prepared) -> None:
    held_out, rows = log.held_out("test"), np.array([EVE, ANN, EVE])
    for name, recommender in retrieval_baselines(log, held_out, CONFIG).items():
        found = recommender.recommend(rows, 3, held_out.seen.take(rows))
        assert found.tolist() == [RANKINGS[name][row] for row in rows], name
        assert recommender.recommend(rows[:0], 3, held_out.seen.take(rows[:0])).shape == (0, 3)


def test_nothing_held_out_is_counted(tmp_path: Path) -> None:
    """Other items and times in the held-out events, and the scores of the training examples stay the same."""
    config = EvaluationConfig(category="genres")
    before = score_baselines(Prepared(write_world(tmp_path / "a")), "train", config)
    events = pq.read_table(write_world(tmp_path / "b") / "events")
    late = events["stage"].to_numpy() > 0
    for name, value in (("item_index", 3), ("time", 10**9)):
        values = np.where(late, value, events[name].to_numpy()).astype(events[name].to_numpy().dtype)
        events = events.set_column(events.column_names.index(name), name, pa.array(values))
    pq.write_table(events, tmp_path / "b" / "events" / "part-00000.parquet")
    after = score_baselines(Prepared(tmp_path / "b"), "train", config)
    assert len(before) == 5
    np.testing.assert_equal(after, before)
    # Other items in the training events are seen by all but the popularity, which stands in items.parquet.
    other = np.where(late, 3, 29 - events["item_index"].to_numpy()).astype(np.int32)
    events = events.set_column(events.column_names.index("item_index"), "item_index", pa.array(other))
    pq.write_table(events, tmp_path / "b" / "events" / "part-00000.parquet")
    changed = score_baselines(Prepared(tmp_path / "b"), "train", config)
    assert [name for name in before if np.array_equal(changed[name], before[name])] == ["popularity"]


def test_scores_against_a_second_opinion(tmp_path: Path) -> None:
    """Example by example, from the events before its time."""
    prepared = Prepared(write_world(tmp_path / "world", users=20, items=12, per_user=9))
    found = score_baselines(prepared, "test", EvaluationConfig(category="genres"))
    events = pq.read_table(prepared.path / "events").to_pylist()
    genres = prepared.items["genres"].to_pylist()
    trained = [event for event in events if event["stage"] == TRAIN]
    had = [{e["user_index"] for e in trained if e["item_index"] == item} for item in range(12)]
    for row, example in enumerate(pq.read_table(prepared.path / "test").to_pylist()):
        user, target = example["user_index"], example["item_index"]
        history = [e["item_index"] for e in events if e["user_index"] == user and e["time"] < example["time"]]
        similarity = [
            len(had[i] & had[target]) / (sqrt(len(had[i]) * len(had[target])) + 10) for i in {*history} - {target}
        ]
        assert found["item_knn"][row] == pytest.approx(sum(similarity), abs=20 / UNIT)
        assert found["target_in_history"][row] == history.count(target)
        matches = sum(len({*genres[i]} & {*genres[target]}) for i in history)
        assert found["category_in_history"][row] == pytest.approx(matches / max(len(history), 1))


def dense_neighbours(baskets: list[set[int]], items: int, k: int, shrinkage: float, ties: int = 1) -> NDArray[np.int64]:
    """[N, N] similarity of each item's k nearest, in 1 / UNIT, item by item; the last of equal ones for `ties` -1."""
    had = np.array([[item in basket for basket in baskets] for item in range(items)])
    dense = np.zeros((items, items), np.int64)
    for i in range(items):
        similar = {
            j: round(UNIT * int((had[i] & had[j]).sum()) / (sqrt(had[i].sum() * had[j].sum()) + shrinkage))
            for j in range(items)
            if i != j and (had[i] & had[j]).any()
        }
        for j in sorted(similar, key=lambda j: (-similar[j], ties * j))[:k]:
            dense[i, j] = similar[j]
    return dense


def random_lists(rng: np.random.Generator, rows: int, items: int, most: int) -> list[list[int]]:
    return [rng.integers(0, items, rng.integers(0, most)).tolist() for _ in range(rows)]


@pytest.mark.parametrize(("k", "shrinkage"), [(1, 0.0), (4, 3.0), (100, 10.0)])
def test_neighbours_against_a_second_opinion(k: int, shrinkage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = random_lists(np.random.default_rng(k), 30, 25, 9)
    baskets = [{*row} for row in lists]
    expected = dense_neighbours(baskets, 30, k, shrinkage)  # five items that nobody had
    assert k == 100 or (dense_neighbours(baskets, 30, k, shrinkage, ties=-1) != expected).any(), "no ties"
    for entries in (item_knn.ENTRIES, 40):
        monkeypatch.setattr(item_knn, "ENTRIES", entries)
        knn = ItemKNN.fit(Ragged.from_lists(lists), 30, neighbours=k, shrinkage=shrinkage)
        np.testing.assert_array_equal(knn.neighbours.toarray(), expected)


@pytest.mark.parametrize("k", [1, 6, 40])
def test_rankings_against_a_second_opinion(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted user by user; the catalogue's numbers are not the item indices."""
    rng = np.random.default_rng(k)
    catalogue = Catalogue(rng.permutation(30))
    lists, histories, gone = (random_lists(rng, rows, 25, 9) for rows in (60, 20, 20))
    genres = rng.integers(0, 4, (30, 2))
    knn = ItemKNN.fit(Ragged.from_lists(lists), 30, neighbours=5)
    near = dense_neighbours([{*row} for row in lists], 30, 5, item_knn.SHRINKAGE)
    tags = [{*row} - {0} for row in genres.tolist()]
    score: dict[str, Callable[[list[int], int], int]] = {
        "knn": lambda history, item: sum(int(near[i, item]) for i in {*history}),
        "genres": lambda history, item: sum(len(tags[i] & tags[item]) for i in history),
    }
    monkeypatch.setattr(rankings, "CELLS", 100)
    for name, scorer in (("knn", knn), ("genres", CategoryMatch.of(genres))):
        recommender = ByHistory(scorer, Ragged.from_lists(histories), catalogue)
        exclude = Ragged.from_lists([catalogue.order[row].tolist() for row in gone])
        for user, found in enumerate(rank_all(recommender, exclude, k)):
            left = [n for n in range(30) if n not in gone[user]]
            numbers = sorted(left, key=lambda n: (-score[name](histories[user], n), n))[:k]
            expected = [*catalogue.order[numbers].tolist(), *[-1] * k][:k]
            assert found == expected, (name, user)


def test_the_longest_history_of_the_nearest_items_does_not_overflow() -> None:
    """Three had all items, the last of which one had: 200 similarities of 1, which fill 31 bits, or of 1 / sqrt(3)."""
    length = item_knn.HISTORY
    baskets = Ragged.from_lists([range(length + 3), range(length + 2), range(length + 2)])
    knn = ItemKNN.fit(baskets, length + 4, neighbours=length + 3, shrinkage=0.0)
    history = Ragged.from_lists([range(length)])
    assert knn.pairs(history, np.array([length])).tolist() == [length]
    assert knn.scores(history, 1).toarray()[0, length] == length * UNIT
    ranked = ByHistory(knn, history, Catalogue(np.arange(length + 4)[::-1])).recommend(
        np.array([0]), 4, Ragged.from_lists([np.arange(length + 4)[::-1][:length]])
    )
    assert ranked.tolist() == [[3, 2, 1, 0]]


def test_blocks_of_a_huge_catalogue_fit_64_bits() -> None:
    blocks = item_knn._blocks(np.array([0, 0, 0, 0, 0, 10**12, 0, 0, 0]), 1 << 37)
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(9))
    assert max(stop - start for start, stop in blocks) * (1 << 37) * UNIT <= 1 << 62


def test_a_category_reaches_beyond_what_is_gone_of_it() -> None:
    """Numbers 2 to 7 are of the history's category; four of them are gone, and two that are more popular are not."""
    match = CategoryMatch.of(np.array([1, 1, 2, 2, 2, 2, 2, 2]))
    gone = Ragged.from_lists([[2, 3, 4, 5]])
    assert rank_all(ByHistory(match, Ragged.from_lists([[2]]), Catalogue(np.arange(8))), gone, 2) == [[6, 7]]


@given(
    gone=st.lists(st.lists(st.integers(0, 7)), max_size=4),
    order=st.permutations(range(8)),
    k=st.integers(1, 12),
)
def test_a_fixed_order_goes_around_what_is_gone(gone: list[list[int]], order: list[int], k: int) -> None:
    found = rank_all(FixedOrder(np.array(order), len(gone)), Ragged.from_lists(gone), k)
    assert found == [[*(i for i in order if i not in row), *[-1] * k][:k] for row in gone]


def test_categories_may_be_fingerprints_repeated_in_any_order_or_missing() -> None:
    """Items 0 and 1 have the same categories, and nobody's history has that of 3."""
    big = 2**62 + 5
    match = CategoryMatch.of(np.array([[7, big, 0], [big, 7, 7], [7, 0, 0], [9, 0, 0], [0, 0, 0]]))
    assert match.kind[0] == match.kind[1]
    histories = Ragged.from_lists([[0, 2, 4, 2], []])
    assert match.scores(histories, 5).toarray().tolist() == [[4, 4, 3, 0, 0], [0] * 5]
    assert match.pairs(histories, np.array([1, 1])).tolist() == [1.0, 0.0]
    nothing = CategoryMatch.of(np.zeros(3, np.int32))
    assert nothing.scores(Ragged.from_lists([[1]]), 2).toarray().tolist() == [[0, 0, 0]]
