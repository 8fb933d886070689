"""A picture of the lengths of vectors against the frequencies of their ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recsys.evaluation.inspection import Norms

FEW = 2_000
"""Up to so many ids each has a point of its own; more of them become a density."""
BINS, PER_BIN = 24, 20
"""Ranges of frequencies at most, and ids in each, were they spread evenly. Of fewer than two, nothing is drawn."""
FEWEST = 5
"""Ids in a range whose quantiles are drawn."""
POINT, LINE = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito, which colour-blind people tell apart."""


def norm_picture(title: str, norms: Sequence[Norms]) -> Figure:
    """A panel for each feature: lengths of its ids' vectors against how often training met them (log axis), with the
    median, the 10% and the 90% quantile of each range of frequencies.
    """
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(norms)))
    rows = max(1, math.ceil(len(norms) / columns))
    figure = Figure(figsize=(4.6 * columns, 3.5 * rows + 0.6), layout="constrained", dpi=130)
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, found in zip(panels, norms, strict=False):
        _draw(panel, found)
    for panel in panels[len(norms) :]:
        panel.set_axis_off()
    if norms:
        figure.supxlabel("training rows that hold the id", fontsize=10)
        figure.supylabel("Euclidean length of its vector", fontsize=10)
    lined = [panel for panel in panels if panel.get_legend_handles_labels()[0]]
    if lined:
        lined[0].legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def quantiles(counts: NDArray[np.int64], norms: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[b] mean frequencies of ranges, equally wide in their logarithm, and [b, 3] the 10%, 50% and 90% quantiles of the
    lengths there. Ranges with few ids are left out.
    """
    logs = np.log10(counts)
    bins = min(BINS, len(counts) // PER_BIN)
    if bins < 2:
        return np.empty(0), np.empty((0, 3))
    edges = np.linspace(logs.min(), logs.max() + 1e-9, bins + 1)
    place = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, bins - 1)
    order = np.argsort(place, kind="stable")
    groups = np.split(norms[order], np.searchsorted(place[order], np.arange(1, bins)))
    kept = [number for number, group in enumerate(groups) if len(group) >= FEWEST]
    # The mean of the logarithms there, not the middle of the range: rare ids stand at 1, 2, 3.
    middles = [10 ** float(logs[place == number].mean()) for number in kept]
    return np.array(middles), np.array([np.quantile(groups[number], (0.1, 0.5, 0.9)) for number in kept]).reshape(-1, 3)


def _draw(panel: Axes, found: Norms) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    seen = found.counts > 0
    counts, norms = found.counts[seen], found.norms[seen]
    panel.set_title(f"{found.feature} ({len(counts):,} ids, table {found.table})", fontsize=10)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    if not len(counts):
        panel.text(0.5, 0.5, "no id was met in training", ha="center", va="center", transform=panel.transAxes)
        return
    lowest, highest = int(counts.min()), int(counts.max())
    if len(counts) <= FEW or lowest == highest:
        panel.scatter(counts, norms, s=10, color=POINT, alpha=0.5, linewidths=0, rasterized=True)
    else:
        panel.hexbin(counts, norms, xscale="log", gridsize=(50, 28), bins="log", mincnt=1, cmap="Blues", linewidths=0.1)
    middles, lengths = quantiles(counts, norms)
    if len(middles):
        panel.plot(middles, lengths[:, 1], color=LINE, linewidth=2.2, label="median")
        panel.plot(middles, lengths[:, ::2], color=LINE, linewidth=1.1, linestyle="--", label=("10% and 90%", None))
    panel.set_ylim(bottom=0)
    panel.set_xscale("log")
    # Whole decades, so that every axis has round numbers on it.
    panel.set_xlim(0.8 * 10 ** math.floor(math.log10(lowest)), 10 ** (math.floor(math.log10(highest)) + 1))
    panel.xaxis.set_major_locator(LogLocator(numticks=12))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
