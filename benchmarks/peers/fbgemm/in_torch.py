"""FBGEMM's table-batched embedding with row-wise Adagrad fused into the backward pass, on CPU: what TorchRec runs on.

    python -m peers.fbgemm.in_torch

Started by `step_time.py`, in its folder and in the environment of `requirements.txt`. It gets what helps it: ids and
offsets in its own layout before the clock starts, and torch's fused Adam for the dense layers.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle, islice, pairwise

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import ComputeDevice, EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from peers.contender import BATCH, CORES, DIM, FIELDS, HIDDEN, Batches, Steps, serve


def table_batched(rows: int) -> Callable[[Batches], Steps]:
    """A table for each field, all in one operator."""
    table = (rows // FIELDS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)
    embedding = SplitTableBatchedEmbeddingBagsCodegen(
        [table] * FIELDS, optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, learning_rate=0.05, eps=1e-8
    )
    embedding.init_embedding_weights_uniform(-0.05, 0.05)
    layers: list[torch.nn.Module] = []
    for before, after in pairwise((FIELDS * DIM, *HIDDEN)):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    mlp = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], 1))
    optimizer = torch.optim.Adam(mlp.parameters(), fused=True)
    loss = torch.nn.BCEWithLogitsLoss()
    offsets = torch.arange(FIELDS * BATCH + 1)

    def steps(batches: Batches) -> Steps:
        ids = torch.from_numpy(batches.ids).long().transpose(1, 2).flatten(1).contiguous()
        data = cycle(zip(ids, torch.from_numpy(batches.labels), strict=True))

        def run(count: int) -> None:
            for indices, labels in islice(data, count):
                optimizer.zero_grad()
                loss(mlp(embedding(indices, offsets)).squeeze(1), labels).backward()
                optimizer.step()

        return run

    return steps


def main() -> None:
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    serve(table_batched, {name: version(name) for name in ("torch", "fbgemm-gpu-cpu", "torchrec")})


if __name__ == "__main__":
    main()
