"""The model card: what the model is for, what it was made of, how it was measured, what it cannot do, how to redo it.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), as far as a run's records can tell; what only its
owner knows is said to be so.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from recsys.data.config import (
    ByUserSplit,
    ColdItemsSplit,
    ColdUsersSplit,
    DataConfig,
    FilesSource,
    LeaveLastOut,
    PublicSource,
    ServedSource,
    TemporalSplit,
)
from recsys.data.public import DATASETS
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import TwoTowerConfig
from recsys.report.document import Block, Code, Points, Section
from recsys.report.found import Found
from recsys.report.learning import describe_source


def card_section(found: Found) -> Section:
    """Of a run that has a config; of others, how to redo them."""
    blocks: list[Block] = []
    config = found.config
    if config is not None:
        blocks += [
            Points(title="Intended use", points=tuple(_use(config))),
            Points(title="Data and licence", points=tuple(_data(config.data))),
            Points(title="Evaluation", points=tuple(_evaluation(found, config))),
            Points(title="Limits", points=tuple(_limits(config))),
        ]
        blocks.append(Code(title="To reproduce", code="\n".join(_commands(found, config))))
    else:
        blocks.append(Points(title="To reproduce", points=(_redo(found),)))
    return Section(id="card", title="Model card", blocks=tuple(blocks))


def _use(config: ExperimentConfig) -> Iterator[str]:
    if isinstance(config.model, TwoTowerConfig):
        yield "Retrieval: for a user (or raw features) the best items of the whole catalogue."
        yield "A score compares items within one answer; it is no probability, and means nothing between two users."
    else:
        yield "Ranking: for a pair of a request and an item, the probability that its label is 1."
        yield "It scores candidates that something else has found; by itself it searches no catalogue."
    yield "For people and items like those of the log. Any other use, above all decisions about people, is not tested."


def _data(data: DataConfig) -> Iterator[str]:
    match data.source:
        case PublicSource(name=name) if name in DATASETS:
            dataset = DATASETS[name]
            yield f"{name}: {dataset.description}"
            yield f"Licence: {dataset.licence}. Publisher's page: {dataset.page}"
        case FilesSource() | ServedSource():
            yield f"Own files: {describe_source(data)}."
            yield "Their licence, and whether the people in them consented, only their owner knows."
        case _:
            yield "Simulated: no real person stands in these data."
    yield f"Positive is {_rule(data)}."
    yield "This page and the bundle hold ids of users and what they had: treat both as the data themselves."


def _rule(data: DataConfig) -> str:
    rule = data.positives
    if rule is None:
        return "every event"
    bounds = []
    if rule.at_least is not None:
        bounds.append(f"at least {rule.at_least:g}")
    if rule.at_most is not None:
        bounds.append(f"at most {rule.at_most:g}")
    if rule.one_of is not None:
        bounds.append(f"one of {', '.join(map(str, rule.one_of))}")
    return f"an event whose {rule.column} is {' and '.join(bounds)}"


def _evaluation(found: Found, config: ExperimentConfig) -> Iterator[str]:
    if isinstance(config.model, TwoTowerConfig):
        yield "The full catalogue is ranked for each held-out user, without the items that the user had before."
    else:
        yield "Probabilities of all examples of the test part."
    yield _split(config.data)
    chosen = config.evaluation.monitor if isinstance(config.model, TwoTowerConfig) else "auc"
    if config.training.early_stopping is not None:
        yield f"When to stop was chosen by validation {chosen}; nothing was chosen on the test part by this run itself."
    if found.record is not None:
        rivals = [name for name in found.record.metrics if name != "model"]
        yield f"Beside it: {', '.join(rivals)}." if rivals else "No baseline stands beside it."
    yield "One seed: another one moves the numbers too, which the intervals (over users) do not tell."


def _split(data: DataConfig) -> str:
    match data.split:
        case TemporalSplit():
            return "The test part is what came last, cut at one moment for all, as production would see it."
        case LeaveLastOut():
            return "The test part is each user's last event: training knows what others did later than that."
        case ByUserSplit() | ColdUsersSplit():
            return "The test part is of users whom training did not see."
        case ColdItemsSplit():
            return "The test part is of items that training did not see."
        case _:
            return "The test part is drawn at random: training knows of later events, and production will do worse."


def _limits(config: ExperimentConfig) -> Iterator[str]:
    schema = config.table_schema
    hashed = any(table.method in ("hashed", "multiplexed") for table in config.embeddings.tables.values())
    ids = {column for column in (schema.user, schema.item) if column is not None and column in schema.features}
    if ids:
        known = "share rows with others" if hashed else "are all one to it"
        yield f"It knows {' and '.join(sorted(ids))} by id; values that training did not meet {known}."
    if not schema.inputs("context"):
        yield "It knows nothing of the moment of a request (no context features)."
    if not schema.has_histories or not any(each.kind == "sequence" for each in schema.features.values()):
        yield "It reads no history: what a user did since the training changes nothing."
    yield "It learns from what was shown before it: items that nobody was shown, or few, are hard for it."
    yield "Tastes and catalogues move on; `recsys backtest` measures by how much, and a retraining is the cure."


def _commands(found: Found, config: ExperimentConfig) -> Iterator[str]:
    """Exact ones: a copy of the config under a new name, so that this run stays as it is."""
    assert found.origin is not None
    again = f"{config.name}-again"
    base = found.origin.base_dir
    copied = shlex.quote(f"{base}/{again}.yaml")
    runs = shlex.quote(str(found.folder.resolve().parent))
    if found.record is not None:
        here = found.record.environment
        names = (
            f"{name}=={here.versions[name]}" for name in ("recsys", "tensorflow", "scann") if name in here.versions
        )
        yield f"# with Python {here.python}, {', '.join(names)}"
    yield f"cp {shlex.quote(str((found.folder / 'config.yaml').resolve()))} {copied}"
    yield f"recsys run {copied} --set name={again} --runs {runs}"
    if found.record is not None:
        theirs = shlex.quote(str(found.folder.resolve().parent / again))
        yield f"recsys compare {shlex.quote(str(found.folder.resolve()))} {theirs}"


def _redo(found: Found) -> str:
    if found.backtest is not None:
        first = found.backtest.windows[0].name.rpartition("-window-")[0]
        count = len(found.backtest.windows)
        warm = " --warm-start" if found.backtest.warm_start else ""
        return f"recsys backtest, with the config of {first}, --windows {count}{warm}"
    candidates = found.record.counts.get("candidates") if found.record is not None else None
    beside = f" --candidates {candidates}" if candidates else ""
    return f"recsys evaluate, with the run of the retriever, --ranker with that of the ranker{beside}"
