"""From what a run directory holds to what its report says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import recsys
from recsys.models.config import TwoTowerConfig
from recsys.report import card, doubts, learning, measured, memory, people, served
from recsys.report.document import Missing, Report, Section
from recsys.report.found import Found, find


def compose(folder: Path) -> Report:
    """The report of a run, of two runs evaluated together, or of a backtest.

    Raises:
        ConfigError: the folder is no run directory, or nothing has been trained in it yet.
        DataError, BundleError: a file in it cannot be read.
    """
    found = find(folder)
    created = next((each.created for each in (found.record, found.backtest) if each is not None), None)
    return Report(
        name=found.name,
        kind=found.run_kind.replace("_", " "),
        date="not evaluated yet" if created is None else f"{created:%Y-%m-%d %H:%M} UTC",
        headline=_headline(found),
        warnings=doubts.doubts(found),
        sections=tuple(section for section in _sections(found) if section is not None),
        missing=tuple(_missing(found)),
        version=recsys.__version__,
    )


def _headline(found: Found) -> str:
    if found.record is not None:
        return measured.headline(found.record)
    if found.backtest is not None:
        return measured.window_headline(found.backtest)
    return f"Trained, and not evaluated yet: recsys evaluate {found.folder}"


def _sections(found: Found) -> Iterator[Section | None]:
    record = found.record
    yield learning.trained_section(found)
    if record is not None:
        yield measured.metric_section(record)
        yield measured.stage_section(record)
    if found.backtest is not None:
        yield measured.window_section(found.backtest)
    if record is not None:
        yield learning.learning_section(record, _monitor(found))
        yield measured.slice_section(record)
        yield measured.calibration_section(record)
        yield measured.off_policy_section(record)
    if found.showcase is not None:
        yield people.example_section(found.showcase)
    if found.explanation is not None:
        yield people.explanation_section(found.explanation)
    if found.tuning is not None:
        yield learning.tuning_section(found.tuning)
    if found.search is not None:
        yield memory.frontier_section(found.search)
    if found.health is not None:
        yield memory.table_section(found.health)
    if found.manifest is not None and found.bundle is not None:
        yield served.bundle_section(found.manifest, found.bundle, found.curve)
    yield card.card_section(found)


def _monitor(found: Found) -> str | None:
    if found.config is None:
        return None
    return found.config.evaluation.monitor if isinstance(found.config.model, TwoTowerConfig) else "auc"


def _missing(found: Found) -> Iterator[Missing]:
    """Parts that a run may have and this one has not, each with what gives it."""
    if found.config is None:
        return
    run, model = found.folder, found.config.model
    if found.record is None:
        yield Missing(what="metrics, slices, examples", cure=f"recsys evaluate {run}")
    elif found.showcase is None and found.config.table_schema.has_histories:
        yield Missing(what="real examples", cure=f"recsys evaluate {run}")
    if found.health is None:
        yield Missing(what="health of the embedding tables", cure=f"recsys inspect {run}")
    if found.manifest is None:
        yield Missing(what="what is served", cure=f"recsys export {run}")
    weighs = not isinstance(model, TwoTowerConfig) and (
        model.sequence is not None
        or (model.interaction is not None and model.interaction.kind in ("autoint", "arm_net"))
    )
    if weighs and found.explanation is None:
        yield Missing(what="where the ranker looks", cure=f"recsys explain {run}")
    if found.search is None and any(table.method == "full" for table in found.config.embeddings.tables.values()):
        yield Missing(what="memory against quality", cure=f"recsys search {run} --max-loss 0.01")
