"""Pictures of what attention has learned: gradients in conflict, attention beside mutual information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys.evaluation.attention_quality import Floats, Integers
from recsys.evaluation.gradient_conflict import GradientConflict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
AGREE, CONFLICT = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito, which colour-blind people tell apart."""


def conflict_picture(title: str, conflict: GradientConflict) -> Figure:
    """A histogram of the cosines between a row's two gradients; the two shares in words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.4), layout="constrained", dpi=130)
    panel = figure.subplots()
    edges = np.linspace(-1, 1, BINS + 1)
    shares = np.histogram(conflict.cosine, edges)[0] / max(len(conflict.cosine), 1)
    colours = np.where(edges[:-1] < -1e-9, CONFLICT, AGREE)
    panel.bar(edges[:-1], shares, np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=0.4)
    panel.set_title(title, fontsize=11)
    panel.set_xlim(-1, 1)
    panel.set_ylim(0, 1.2 * max(shares.max(), 1e-9))  # room for the words
    panel.set_xlabel("cosine of a row's gradients through search and representation", fontsize=9)
    panel.set_ylabel("share of rows", fontsize=9)
    words = (
        (0.02, "left", CONFLICT, f"in conflict: {conflict.conflicting:.0%}"),
        (0.98, "right", AGREE, f"agree: {1 - conflict.conflicting:.0%}"),
    )
    for place, side, colour, text in words:
        panel.text(place, 0.95, text, ha=side, va="top", color=colour, fontsize=10, transform=panel.transAxes)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    return figure


def pairs_picture(title: str, panels: dict[str, Floats], chosen: Integers) -> Figure:
    """Heatmaps side by side by the target's category (row) and the event's (column), each row divided by its largest.

    Args:
        title: above all.
        panels: by name, [C, C] such as `Information.pairs` and `attention_by_pair`; NaN stays white.
        chosen: [c] the categories to show, in this order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(panels) + 0.4, 3.7), layout="constrained", dpi=130)
    figure.suptitle(title, fontsize=11)
    for panel, (name, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        shown = values[np.ix_(chosen, chosen)]
        largest = np.nanmax(shown, axis=1, keepdims=True, initial=np.finfo(np.float64).tiny)
        panel.imshow(shown / largest, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("category of the event", fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.axes[0].set_ylabel("category of the target", fontsize=9)
    return figure
