"""A picture of a tuning: how it went, and what mattered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recsys.tuning.record import TrialRecord, TuningRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tuning_picture(record: TuningRecord) -> Figure:
    """Each trial's quality and the best so far; beside them, what the parameters matter, where that is known."""
    from matplotlib.figure import Figure

    wide = bool(record.importance)
    figure = Figure(figsize=(10.0 if wide else 6.4, 4.2), layout="constrained", dpi=130)
    panels = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    for state, marker, colour in (("complete", "o", "#0072B2"), ("pruned", "x", "#999999")):
        some = [each for each in record.trials if each.state == state and each.quality is not None]
        panels[0].plot([t.number for t in some], [t.quality for t in some], marker, color=colour, label=state)
    numbers, best = zip(*_best_so_far(record.trials), strict=True)
    panels[0].step(numbers, best, where="post", color="#D55E00", label="best so far")
    panels[0].axhline(best[0], color="0.6", linewidth=1, linestyle=":", label="as it stood")
    panels[0].set_xlabel("trial")
    panels[0].set_ylabel(f"{record.monitor} on the validation part")
    panels[0].legend(frameon=False, fontsize=8)
    if wide:
        names = list(record.importance)[::-1]
        panels[1].barh(names, [record.importance[name] for name in names], color="#009E73")
        panels[1].set_xlabel("share of what mattered")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(record.name, fontsize=12)
    return figure


def _best_so_far(trials: Sequence[TrialRecord]) -> Iterator[tuple[int, float]]:
    best = -np.inf
    for each in trials:
        if each.state == "complete" and each.quality is not None:
            best = max(best, each.quality)
            yield each.number, best
