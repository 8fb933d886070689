"""tf.distribute strategies, and this process's part in a cluster.

What was tried on this stack, and what to avoid (2-D gathers on sharded tables, XLA in sparse optimizers), is in
`docs/architecture.md`.
"""

from __future__ import annotations

import json
import os

from recsys._compat import tf
from recsys.errors import ConfigError
from recsys.training.config import TrainingConfig

MIN_SHARD_BYTES = 1 << 20
"""Tables smaller than this stay whole on one parameter server."""


def make_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """The strategy that the config names.

    Raises:
        ConfigError: a cluster strategy without TF_CONFIG, or a batch that its replicas cannot share equally.
    """
    match config.strategy:
        case "mirrored":
            kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
            strategy = tf.distribute.MirroredStrategy([d.name for d in tf.config.list_logical_devices(kind)])
        case "multi_worker":
            _cluster(config)
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        case "parameter_server":
            servers = len(_cluster(config).get("ps", []))
            strategy = tf.distribute.ParameterServerStrategy(
                tf.distribute.cluster_resolver.TFConfigClusterResolver(),
                variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(
                    MIN_SHARD_BYTES, max_shards=servers
                ),
            )
        case _:
            strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise ConfigError(
            "training.batch_size",
            f"{config.batch_size}, which {replicas} replicas cannot share equally",
            f"a multiple of {replicas}",
        )
    return strategy


def is_chief() -> bool:
    """Whether this process writes checkpoints and results: always, unless TF_CONFIG says that another one does."""
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    return task.get("type", "chief") == "chief" or (task.get("type") == "worker" and task.get("index") == 0)


def serve_if_remote(config: TrainingConfig) -> None:
    """In a worker or parameter server of a parameter-server cluster: serve the chief until the process is ended."""
    if config.strategy != "parameter_server":
        return
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("type")
    if task in {"worker", "ps"}:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        tf.distribute.Server(
            resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
        ).join()


def _cluster(config: TrainingConfig) -> dict[str, list[str]]:
    cluster: dict[str, list[str]] = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    if not cluster:
        raise ConfigError(
            "training.strategy",
            f"{config.strategy} without the environment variable TF_CONFIG",
            "the cluster and this process's task as JSON",
            'set TF_CONFIG=\'{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}\'',
        )
    return cluster
