"""Drift: users and items are born and retire every week; models learn week by week and are tested on the next week.

    python benchmarks/drift.py [--seeds 0 1 2] [--budgets 1.0 0.25]    trains what has no record yet
    python benchmarks/drift.py --show                                  prints the section of the docs

All contenders are the engine's Ranker and see the same examples in the same order, once: the simulator's events, a
rating of 4 or 5 against a lower one. Their tables have the same bytes (float32 rows; optimizer slots and the maps from
text to id, which only the vocabularies need, are not counted):

    frozen        the ids of the first weeks have a row each; later ones share the OOV rows
    rebuilt       every few weeks the ids of late get the rows: known ids keep theirs, new ones start afresh in those
                  of ids that are gone; what comes between shares the OOV rows
    multiplexed   no vocabulary: every feature hashes into all rows
    hashed        no vocabulary: every feature hashes into as many rows as the vocabulary gives it (the control)

A seed is of the world and of the models. Its record is benchmarks/results/drift/seedN.json; a contender that stands
there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from drift_world import Integers, Vocabulary, Week, World
from numpy.typing import NDArray
from table import markdown, mean_of

from recsys.config.base import Config
from recsys.data.dataset import CategoricalInfo, FeatureInfo, FingerprintInfo
from recsys.data.encoding import fingerprint
from recsys.data.ground_truth import TAGS_PER_ITEM
from recsys.data.simulator_config import SimulatorConfig
from recsys.embeddings.config import EmbeddingsConfig
from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.metrics.pointwise import auc
from recsys.models.config import RankerConfig
from recsys.schema.config import Role

RESULTS = Path(__file__).parent / "results" / "drift"
QUERY: tuple[str, ...] = ("user_id", "age", "country")
ITEM: tuple[str, ...] = ("item_id", "category", "tags")
SLICES = ("all", "new", "young", "old")
"""By the younger of an event's user and item: born in the test week, in the `window` weeks before it, or earlier."""


class Study(Config):
    """Everything that the figures depend on, but the seed."""

    world: SimulatorConfig = SimulatorConfig(
        users=3_500,
        items=5_000,
        events=1_600_000,
        repeats=True,
        cold_items=0.0,
        zipf=0.8,
        attribute_share=0.3,
        item_turnover=0.1,
        user_turnover=0.05,
        days=16 * 7,
    )
    first: int = 4
    """Weeks before the first test; the vocabularies begin with their ids."""
    rebuild_every: int = 3
    """Weeks."""
    window: int = 4
    """Weeks whose ids a rebuilt vocabulary holds, and ids are young."""
    oov_share: float = 0.1
    """OOV rows per row of a vocabulary."""
    width: int = 16
    """Of a feature's vector, whether of one lookup or of two half as wide."""
    batch: int = 512
    learning_rate: float = 5e-3
    ranker: RankerConfig = RankerConfig.model_validate(
        {"kind": "ranker", "interaction": {"kind": "cross", "layers": 2}}
    )


@dataclass(frozen=True)
class Contender:
    """A way to spend the rows."""

    method: Literal["frozen", "rebuilt", "multiplexed", "hashed"]
    lookups: int = 1
    budget: float = 1.0
    """Rows of users and items, relative to their number in the first weeks."""

    @property
    def name(self) -> str:
        """In records."""
        return f"{self.method}-{self.lookups}-{self.budget:g}"


LINES = (
    Contender("frozen"),
    Contender("rebuilt"),
    Contender("multiplexed"),
    Contender("multiplexed", lookups=2),
    Contender("hashed"),
    Contender("hashed", lookups=2),
)
BUDGETS = (1.0, 0.25)


def vocabularies(study: Study, world: World, budget: float) -> dict[str, Vocabulary]:
    """Of the first weeks, for every feature; users and items must do with the budget."""
    found = {}
    for name, size in world.sizes.items():
        counts = world.counts(name, range(study.first))
        churns = name in ("user_id", "item_id")
        capacity = round(budget * np.count_nonzero(counts)) if churns else size
        found[name] = Vocabulary(size, capacity, oov=round(study.oov_share * capacity) if churns else 1)
        found[name].rebuild(counts)
    return found


def embeddings(study: Study, contender: Contender, rows: Mapping[str, int]) -> EmbeddingsConfig:
    """The tables: of one lookup `rows` in all, of two twice as many that are half as wide."""
    dim = study.width // contender.lookups
    if contender.method == "hashed":
        tables = {
            name: {"method": "hashed", "dim": dim, "rows": count * contender.lookups} for name, count in rows.items()
        }
    elif contender.method == "multiplexed":
        tables = {"unified": {"method": "multiplexed", "dim": dim, "rows": sum(rows.values()) * contender.lookups}}
    else:
        tables = {name: {"method": "full", "dim": dim} for name in rows}
    features = {
        name: {"table": name if name in tables else "unified", "chunks": contender.lookups, "pooling": "mean"}
        for name in rows
    }
    optimizer = {"kind": "lazy_adam", "learning_rate": study.learning_rate}
    return EmbeddingsConfig.model_validate({"tables": tables, "features": features, "optimizer": optimizer})


def infos(contender: Contender, words: Mapping[str, Vocabulary]) -> dict[str, FeatureInfo]:
    """What `prepare` would say of the features, with a vocabulary or without."""
    found: dict[str, FeatureInfo] = {}
    for name, vocabulary in words.items():
        role: Role = "user" if name in QUERY else "item"
        length = TAGS_PER_ITEM if name == "tags" else None
        found[name] = (
            CategoricalInfo(role=role, rows=vocabulary.rows, oov_rows=vocabulary.oov, max_length=length)
            if contender.method in ("frozen", "rebuilt")
            else FingerprintInfo(role=role, max_length=length)
        )
    return found


class Learner:
    """A model that goes through the weeks."""

    def __init__(self, study: Study, contender: Contender, world: World, seed: int) -> None:
        from recsys._compat import keras, tf
        from recsys.embeddings.optimizers import TableOptimizers
        from recsys.models.ranker import Ranker

        self.study, self.contender, self.world = study, contender, world
        self.words = vocabularies(study, world, contender.budget)
        config = embeddings(study, contender, {name: vocabulary.rows for name, vocabulary in self.words.items()})
        self.ids = {name: self._ids(name) for name in self.words}
        self.model = Ranker(study.ranker, config, infos(contender, self.words), seed)
        dense = keras.optimizers.Adam(study.learning_rate)
        self.model.compile(TableOptimizers.of(config), dense, study.batch)
        self.model.build_from(next(self._batches(world.weeks[0], study.batch)))
        self._step = tf.function(self.model.train_step, reduce_retracing=True)
        self._initial = {name: self._rows(name).numpy() for name in config.tables}

    def _ids(self, name: str) -> Integers:
        """[values] the id of each value."""
        if self.contender.method in ("frozen", "rebuilt"):
            return self.words[name].ids().astype(np.int32)
        return fingerprint(np.arange(self.world.sizes[name]).astype(str))

    def _rows(self, table: str) -> Any:
        return self.model.embeddings.tables[table].trained()[0].variable

    def _batches(self, week: Week, size: int) -> Iterator[dict[str, Any]]:
        """The model's batches; the last one may be short."""
        from recsys._compat import tf

        encoded = {name: self.ids[name][value] for name, value in week.values.items()}
        for start in range(0, len(week.label), size):
            part = slice(start, start + size)
            label = tf.constant(week.label[part])
            yield {
                "query": {name: tf.constant(encoded[name][part]) for name in QUERY},
                "item": {name: tf.constant(encoded[name][part]) for name in ITEM},
                "label": label,
                "weight": tf.ones_like(label),
            }

    def learn(self, number: int) -> None:
        """One pass over a week, in the order of time; a vocabulary may be rebuilt first."""
        since = number - self.study.first
        if self.contender.method == "rebuilt" and since > 0 and since % self.study.rebuild_every == 0:
            self._rebuild(range(number - self.study.window, number))
        for batch in self._batches(self.world.weeks[number], self.study.batch):
            self._step(batch)

    def _rebuild(self, weeks: range) -> None:
        """Rows that change hands start again where they started, their optimizer slots too."""
        for name in ("user_id", "item_id"):
            rows = self.words[name].rebuild(self.world.counts(name, weeks))
            self.ids[name] = self._ids(name)
            table = self._rows(name)
            _put(table, rows, self._initial[name][rows])
            for slot in self.model.table_optimizers.variables:
                if f"table_{name}/" in slot.name:
                    _put(slot, rows, 0.0)

    def test(self, number: int) -> dict[str, float]:
        """AUC on a week by slice."""
        week = self.world.weeks[number]
        logits = [self.model.score(batch).numpy() for batch in self._batches(week, 8_192)]
        return sliced(self.study, week, number, np.concatenate(logits))


def _put(variable: Any, rows: Integers, values: Any) -> None:
    changed = variable.numpy()
    changed[rows] = values
    variable.assign(changed)


def sliced(study: Study, week: Week, number: int, scores: NDArray[np.float32]) -> dict[str, float]:
    """AUC by slice."""
    age = number - week.born
    young = (age > 0) & (age <= study.window) & (week.born > 0)  # who is there in the first week was not born in it
    masks = {
        "all": np.ones_like(age, bool),
        "new": age == 0,
        "young": young,
        "old": (age > 0) & ~young,
    }
    return {name: round(auc(week.label[mask], scores[mask]), 5) for name, mask in masks.items()}


def run(study: Study, contender: Contender, world: World, seed: int) -> dict[str, Any]:
    """What a contender's weeks gave: bytes, seconds, and AUC by test week and slice."""
    start = time.perf_counter()
    learner = Learner(study, contender, world, seed)
    weeks = {}
    for number in range(study.world.weeks):
        if number >= study.first:
            weeks[str(number)] = learner.test(number)
        if number < study.world.weeks - 1:
            learner.learn(number)
    return {
        "table_bytes": learner.model.sizes()["table_bytes"],
        "seconds": round(time.perf_counter() - start, 1),
        "auc": weeks,
    }


def of_the_truth(study: Study, world: World) -> dict[str, Any]:
    """The same for who knows all tastes and items: labels are noisy, so that is the most that any model can reach."""
    weeks = range(study.first, study.world.weeks)
    found = {str(number): sliced(study, world.weeks[number], number, world.weeks[number].affinity) for number in weeks}
    return {"table_bytes": 0, "seconds": 0.0, "auc": found}


def record(study: Study, seed: int, contenders: Sequence[Contender], path: Path) -> None:
    """Trains the contenders that the record lacks, writing each as soon as it is done."""
    if path.exists():
        found = json.loads(path.read_text())
        if found["study"] != study.model_dump(mode="json"):
            raise SystemExit(f"{path}: of another study; remove it, or write elsewhere (--out)")
    else:
        found = {"study": study.model_dump(mode="json"), "seed": seed, "contenders": {}}
    missing = [contender for contender in contenders if contender.name not in found["contenders"]]
    if not missing:
        return
    world = World.of(study.world.model_copy(update={"seed": seed}))
    found["truth"] = of_the_truth(study, world)
    for contender in missing:
        found["contenders"][contender.name] = run(study, contender, world, seed)
        found["environment"] = Environment.here().model_dump()
        write_text(path, json.dumps(found, indent=1) + "\n")
        auc_of_weeks = [week["all"] for week in found["contenders"][contender.name]["auc"].values()]
        print(f"seed {seed} {contender.name}: mean AUC {statistics.fmean(auc_of_weeks):.4f}", flush=True)


def section(results: Path = RESULTS) -> str:
    """What was done and what came out, as Markdown, from the seeds whose contenders are all there."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("seed*.json"))]
    if not records:
        return ""
    study = Study.model_validate(records[0]["study"])
    parts = [_what_was_done(study)]
    for budget in BUDGETS:
        lines = [replace(line, budget=budget) for line in LINES]
        whole = [each for each in records if all(line.name in each["contenders"] for line in lines)]
        if whole:
            found = {line: [each["contenders"][line.name] for each in whole] for line in lines}
            seeds = ", ".join(str(each["seed"]) for each in whole)
            parts.append(f"With {budget:.0%} of the rows that the first weeks' users and items need, seeds {seeds}:\n")
            parts.append(_by_slice(found, [each["truth"] for each in whole]))
            parts.append(_by_week(found))
    return "\n".join(parts)


def _what_was_done(study: Study) -> str:
    world = study.world
    return f"""\
The simulator's events of {world.weeks} weeks, about {world.events // world.weeks:,} a week:
{world.active_users:,} users and {world.active_items:,} items at a time, of which {world.user_turnover:.0%} and
{world.item_turnover:.0%} retire every week and are replaced. The label is a rating of 4 or 5. DCN-V2 over user, age,
country, item, category and tags goes once over each week in order and is then tested on the next. Mean and
standard deviation over seeds, of world and model alike.

`frozen` has the vocabulary of the first {study.first} weeks. `rebuilt` has it made anew every
{study.rebuild_every} weeks from the last {study.window}: known ids keep their rows, new ones start afresh. Both share
{study.oov_share:.0%} more rows among the ids outside. `multiplexed` and `hashed` (per feature) have no vocabulary.
Bytes are those of the tables, without optimizer slots and without the vocabularies' maps from text to id. New: the user
or the item was born in the test week; young: in the {study.window} weeks before.
"""


def _by_slice(found: Mapping[Contender, Sequence[Mapping[str, Any]]], truths: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"`{line.method}`", str(line.lookups), f"{runs[0]['table_bytes']:,}", *_means(runs)]
        for line, runs in found.items()
    ]
    rows.append(["the truth", "", "", *_means(truths)])
    return markdown(["AUC over all test weeks", "lookups", "table bytes", *SLICES], rows)


def _means(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [mean_of([statistics.fmean(week[name] for week in run["auc"].values()) for run in runs]) for name in SLICES]


def _by_week(found: Mapping[Contender, Sequence[Mapping[str, Any]]]) -> str:
    weeks = list(next(iter(found.values()))[0]["auc"])
    rows = [
        [
            f"`{line.method}`, {line.lookups}",
            *(f"{statistics.fmean(run['auc'][week]['all'] for run in runs):.4f}" for week in weeks),
        ]
        for line, runs in found.items()
    ]
    return markdown(["AUC in week", *weeks], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--show", action="store_true", help="only print the section made from the records")
    options = parser.parse_args()
    if not options.show:
        options.out.mkdir(parents=True, exist_ok=True)
        for budget in options.budgets:
            contenders = [replace(line, budget=budget) for line in LINES]
            for seed in options.seeds:
                record(Study(), seed, contenders, options.out / f"seed{seed}.json")
    print(section(options.out), end="")


if __name__ == "__main__":
    main()
