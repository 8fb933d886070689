"""FuxiCTR's models, trained by its own `train_step`: Adam over all rows, gradients clipped to a norm of 10.

    python -m peers.fuxictr.in_torch

Started by `ranker_throughput.py`, in its folder and in the environment of `requirements.txt`. It gets what helps it:
ids as int64 before the clock starts, no regularisers, no progress bar. The package holds the layers, and of the models
only DIN: the others put the layers together as its model zoo does. Two of them do less than ours: AutoInt's residual
is a product only where the width changes, and DIN's Dice knows no padding.
"""

from __future__ import annotations

import logging
import tempfile
from importlib.metadata import version
from itertools import cycle, islice
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    CrossNetV2,
    FeatureEmbedding,
    InnerProductInteraction,
    MLP_Block,
    ScaledDotProductAttention,
)
from fuxictr.pytorch.models import BaseModel
from model_zoo.LongCTR.DIN.DIN import DIN
from peers.criteo import (
    BATCH,
    CORES,
    CROSSES,
    DIM,
    FIELDS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    HISTORY,
    ITEM,
    LAYERS,
    NUMBERS,
    UNIT,
    Batches,
    Model,
    Run,
    serve,
)

WIDTH = HEADS * HEAD_DIM
Tensors = dict[str, torch.Tensor]


class OverFields(BaseModel):
    """Embeddings side by side, then any network to one log-odds, then the library's sigmoid."""

    def __init__(self, feature_map: FeatureMap, network: torch.nn.Module, **settings: Any) -> None:
        super().__init__(feature_map, **settings)
        self.embedding_layer = FeatureEmbedding(feature_map, DIM)
        self.network = network
        self.compile(settings["optimizer"], settings["loss"], settings["learning_rate"])
        self.reset_parameters()

    def forward(self, inputs: Tensors) -> Tensors:
        """The probability of label 1, by the name that the library's loss asks for."""
        vectors = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.network(vectors))}


class DeepAndCross(torch.nn.Module):
    """DCN-V2, in parallel with an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.crosses = CrossNetV2(width, CROSSES)
        self.deep = MLP_Block(width, list(HIDDEN))
        self.head = torch.nn.Linear(width + HIDDEN[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, width] -> [B, 1]."""
        return self.head(torch.cat([self.crosses(x), self.deep(x)], -1))


class Attention(torch.nn.Module):
    """An interacting layer of AutoInt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(width, WIDTH, bias=False) for _ in range(3))
        self.residual = torch.nn.Identity() if width == WIDTH else torch.nn.Linear(width, WIDTH, bias=False)
        self.attention = ScaledDotProductAttention()

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """[B, F, width] -> [B, F, 64]."""

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(*x.shape[:2], HEADS, HEAD_DIM).transpose(1, 2)

        mixed, _ = self.attention(heads(self.query(fields)), heads(self.key(fields)), heads(self.value(fields)))
        return torch.relu(mixed.transpose(1, 2).flatten(2) + self.residual(fields))


def network(model: Model, fields: int, width: int) -> torch.nn.Module:
    """From [B, width], all fields' vectors side by side, to [B, 1]."""
    stack = torch.nn.Unflatten(1, (fields, DIM))
    match model:
        case "fm":
            return torch.nn.Sequential(stack, InnerProductInteraction(fields, "product_sum"))
        case "mlp":
            return MLP_Block(width, list(HIDDEN), output_dim=1)
        case "dcn_v2":
            return DeepAndCross(width)
        case "autoint":
            layers = [Attention(before) for before in (DIM, *[WIDTH] * (LAYERS - 1))]
            return torch.nn.Sequential(stack, *layers, torch.nn.Flatten(), torch.nn.Linear(fields * WIDTH, 1))
        case _:
            raise ValueError(model)


def make_run(model: Model, batches: Batches) -> Run:
    """A fresh model's training steps."""
    torch.manual_seed(0)
    features: dict[str, dict[str, Any]] = {
        f"C{number}": {"type": "categorical", "source": "", "vocab_size": rows, "padding_idx": 0}
        for number, rows in enumerate(batches.rows)
    }
    if model != "dcn_v2":
        width = DIM if model in ("fm", "autoint") else 1  # where numbers are fields, or only stand beside them
        features |= {f"I{n}": {"type": "numeric", "source": "", "embedding_dim": width} for n in range(NUMBERS)}
    if model == "din":
        features[f"C{ITEM}"]["source"] = "item"
    folder = tempfile.mkdtemp(prefix="fuxictr-")
    feature_map = FeatureMap("criteo", folder)
    feature_map.features, feature_map.labels, feature_map.num_fields = features, ["label"], len(features)
    feature_map.default_emb_dim = DIM
    settings = {"optimizer": "adam", "loss": "binary_crossentropy", "learning_rate": 1e-3, "metrics": ["AUC"]}
    settings |= {"verbose": 0, "model_root": folder}
    if model == "din":
        unit = {"attention_hidden_units": list(UNIT), "attention_hidden_activations": "dice"}
        made = DIN(feature_map, dnn_hidden_units=list(HIDDEN), embedding_dim=DIM, **unit, **settings)
    else:
        whole = network(model, len(features), feature_map.sum_emb_out_dim())
        made = OverFields(feature_map, whole, **settings)
    made._max_gradient_norm, made._batch_index = 10.0, 0  # as `fit` sets them
    made.train()
    every = _tensors(batches)
    data = cycle(
        [_of_din(batch) for batch in every]
        if model == "din"
        else [{name: batch[name] for name in (*features, "label")} for batch in every]
    )

    def run(steps: int) -> float:
        return sum(made.train_step(batch).item() for batch in islice(data, steps)) / steps

    return run


def _tensors(batches: Batches) -> list[Tensors]:
    ids, numbers = torch.from_numpy(batches.ids).long(), torch.from_numpy(batches.numbers)
    return [
        {
            **{f"C{number}": ids[at, :, number].contiguous() for number in range(FIELDS)},
            **{f"I{number}": numbers[at, :, number].contiguous() for number in range(NUMBERS)},
            "history": torch.from_numpy(batches.history[at]).long(),
            "label": torch.from_numpy(batches.labels[at]),
        }
        for at in range(len(ids))
    ]


def _of_din(batch: Tensors) -> tuple[Tensors, Tensors, torch.Tensor]:
    """As its data loader gives it: the histories and behind them the targets, and which events there are."""
    item, history = f"C{ITEM}", batch["history"]
    items = torch.cat([history, batch[item][:, None]], 1)
    assert items.shape == (BATCH, HISTORY + 1)
    rest = {name: column for name, column in batch.items() if name not in {item, "history"}}
    return rest, {item: items.flatten()}, history > 0


def main() -> None:
    logging.disable()
    torch.set_num_threads(CORES)
    serve(make_run, {name: version(name) for name in ("fuxictr", "torch")})


if __name__ == "__main__":
    main()
