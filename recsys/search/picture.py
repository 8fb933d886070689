"""A picture of what a search found: bytes against quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.search.config import CONTROLS
from recsys.search.frontier import FULL, SearchRecord, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442")
"""Okabe and Ito's, which colour-blind people tell apart; markers differ too."""
MARKERS = "osD^vP*Xd"


def frontier_picture(record: SearchRecord) -> Figure:
    """Test quality against bytes (log axis), a line a method; searches solid, controls dashed, intervals over seeds as
    bars; the full model and the promise as lines, the chosen plan ringed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8.4, 5.2), layout="constrained", dpi=130)
    panel = figure.subplots()
    by_method: dict[str, list[Trial]] = {}
    for trial in record.trials:
        by_method.setdefault(trial.method, []).append(trial)
    for number, (method, trials) in enumerate(by_method.items()):
        if method != FULL:
            _draw(panel, method, sorted(trials, key=lambda each: each.bytes), record.monitor, number)
    for trial in by_method[FULL]:
        panel.axhline(trial.mean(record.monitor, "test"), color="0.4", linewidth=1, label=f"full, {_size(trial.bytes)}")
    if record.promise.budget is not None:
        panel.axvline(record.promise.budget, color="0.4", linewidth=1, linestyle=":", label="budget")
    for trial in record.trials:
        if trial.name == record.chosen:
            at = trial.bytes, trial.mean(record.monitor, "test")
            panel.plot(*at, "o", markersize=15, markerfacecolor="none", color="0.2", label="chosen")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(lambda value, _: _size(value))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("bytes of the searched tables in a bundle, indices included")
    panel.set_ylabel(f"{record.monitor} on the test part")
    panel.set_title(record.name, fontsize=12)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw(panel: Axes, method: str, trials: list[Trial], metric: str, number: int) -> None:
    margins = [margin for margin in (trial.margin(metric) for trial in trials) if margin is not None]
    panel.errorbar(
        [trial.bytes for trial in trials],
        [trial.mean(metric, "test") for trial in trials],
        yerr=margins or None,
        label=method,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        linewidth=1.4,
        linestyle="--" if method in CONTROLS else "-",
        capsize=2,
    )


def _size(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"
