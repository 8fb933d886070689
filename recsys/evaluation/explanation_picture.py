"""Pictures of what a ranker looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from recsys.evaluation.explanation import Prediction

COLOURS = "Blues"
"""One hue from light to dark, which colour-blind people and grey printers tell apart."""
BAR = "#0072B2"
"""Blue of Okabe and Ito."""
WRITTEN = 8
"""Up to so many fields each cell says its number."""
SHOWN = 20
"""Events of a prediction's history at most: the heaviest."""
LABEL = 32
"""Letters of a label at most."""
DOLLAR = r"\$"
"""A dollar would start a formula."""
NOTE = "Weights say where a layer looked, not why the score is what it is."


def attention_picture(title: str, labels: Sequence[str], attention: NDArray[np.float64]) -> Figure:
    """A map [F, F] for each layer (downwards) and head (across): rows heed columns.

    Args:
        title: above all.
        labels: of the F fields.
        attention: [layers, heads, F, F].
    """
    layers, heads, fields = attention.shape[:3]
    side = fields * (0.46 if fields <= WRITTEN else 0.17)
    margin = 0.075 * max(map(len, _short(labels))) + 0.3
    figure = _figure(title, margin + heads * (side + 0.25) + 1.2, margin + layers * (side + 0.3) + 1.1)
    panels = figure.subplots(layers, heads, squeeze=False, sharex=True, sharey=True)
    for layer in range(layers):
        for head in range(heads):
            panel = panels[layer, head]
            image = _map(panel, attention[layer, head], attention.max())
            panel.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=9)
            if fields <= WRITTEN:
                _write(panel, attention[layer, head], attention.max())
        panels[layer, 0].set_yticks(np.arange(fields), _short(labels))
        panels[layer, 0].set_ylabel("field that looks", fontsize=9)
    for panel in panels[-1]:
        _name_columns(panel, labels)
        panel.set_xlabel("field that is looked at", fontsize=9)
    _scale(figure, image, panels, "share of attention (a row sums to 1)")
    return figure


def gates_picture(title: str, labels: Sequence[str], gates: NDArray[np.float64]) -> Figure:
    """A map [neurons, F] for each head of ARM-Net; neurons that heed the same field most stand together.

    Args:
        title: above all.
        labels: of the F fields.
        gates: [heads, neurons, F].
    """
    heads, neurons, fields = gates.shape
    margin = 0.075 * max(map(len, _short(labels))) + 0.3
    height = float(np.clip(0.09 * neurons, 1.6, 6.0))
    figure = _figure(title, heads * (max(0.26 * fields, 1.2) + 0.35) + 1.3, margin + height + 1.2)
    panels = figure.subplots(1, heads, squeeze=False, sharey=True)[0]
    for head, panel in enumerate(panels):
        order = np.lexsort((-gates[head].max(1), gates[head].argmax(1)))
        image = _map(panel, gates[head][order], gates.max())
        panel.set_aspect("auto")
        panel.set_title(f"head {head + 1}", fontsize=9)
        panel.set_yticks([])
        _name_columns(panel, labels)
    panels[0].set_ylabel(f"{neurons} neurons, by the field that they heed most", fontsize=9)
    _scale(figure, image, panels, "gate (a neuron's sum to 1)")
    return figure


def places_picture(title: str, history: NDArray[np.float64]) -> Figure:
    """The mean weight of an event by its place in the history.

    Args:
        title: above.
        history: [T], the newest first.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(title, 6.4, 3.4)
    panel = figure.subplots()
    panel.bar(np.arange(1, len(history) + 1), history, color=BAR, width=0.8)
    panel.set_xlabel("place in the history, counted from the newest event", fontsize=9)
    panel.set_ylabel("mean weight", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlim(0.4, len(history) + 0.6)
    _plain(panel)
    return figure


def events_picture(title: str, prediction: Prediction) -> Figure:
    """The weights of a prediction's events, the heaviest first.

    Args:
        title: above.
        prediction: with a history.
    """
    weights = prediction.looks.history
    assert weights is not None
    heaviest = np.argsort(-np.abs(weights), kind="stable")[:SHOWN]
    names = [prediction.events[n].title or str(prediction.events[n].item) for n in heaviest]
    labels = [f"{name}  ({n + 1})" for name, n in zip(_short(names), heaviest, strict=True)]
    figure = _figure(title, 6.4, 1.2 + 0.26 * max(len(labels), 2))
    panel = figure.subplots()
    if not labels:
        panel.text(0.5, 0.5, "no history", ha="center", va="center", transform=panel.transAxes)
    panel.barh(np.arange(len(labels)), weights[heaviest], color=BAR, height=0.7)
    panel.set_yticks(np.arange(len(labels)), labels)
    panel.invert_yaxis()
    panel.set_xlabel("weight of an event (in brackets: its place, 1 is the newest)", fontsize=9)
    _plain(panel)
    return figure


def _figure(title: str, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width, 5.0), height), layout="constrained", dpi=130)
    figure.suptitle(title.replace("$", DOLLAR), fontsize=11)
    note = figure.legend([], [], title=NOTE, loc="outside lower center", frameon=False, title_fontsize=7)
    note.get_title().set_color("#666666")
    return figure


def _map(panel: Axes, weights: NDArray[np.float64], most: float) -> AxesImage:
    image = panel.imshow(weights, cmap=COLOURS, vmin=0.0, vmax=most, interpolation="nearest")
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, labelsize=8)
    return image


def _write(panel: Axes, weights: NDArray[np.float64], most: float) -> None:
    """Each cell's number, light on dark."""
    for (row, column), weight in np.ndenumerate(weights):
        colour = "white" if weight > 0.6 * most else "#222222"
        panel.text(column, row, f"{weight:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7, color=colour)


def _name_columns(panel: Axes, labels: Sequence[str]) -> None:
    panel.set_xticks(np.arange(len(labels)), _short(labels), rotation=90)


def _scale(figure: Figure, image: AxesImage, panels: NDArray[np.object_], label: str) -> None:
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 2.4 / figure.get_figheight() + 0.2), aspect=16, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=9)


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def _short(labels: Sequence[str]) -> list[str]:
    return [(label if len(label) <= LABEL else f"{label[: LABEL - 1]}…").replace("$", DOLLAR) for label in labels]
