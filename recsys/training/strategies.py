"""tf.distribute strategies, and this process's part in a cluster.

What was tried on this stack, and what to avoid (2-D gathers on sharded tables, XLA in sparse optimizers), is in
`docs/architecture.md`.
"""

from __future__ import annotations

import json
import os
from typing import Any

from recsys._compat import tf
from recsys.errors import ConfigError
from recsys.training.config import TrainingConfig

MIN_SHARD_BYTES = 1 << 20
"""Tables smaller than this stay whole on one parameter server."""


def make_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """The strategy that the config names. `multi_worker` has to be made before anything else runs TensorFlow.

    Raises:
        ConfigError: a cluster strategy without a sound TF_CONFIG, or a batch that its replicas cannot share equally.
    """
    match config.strategy:
        case "mirrored":
            kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
            strategy = tf.distribute.MirroredStrategy([d.name for d in tf.config.list_logical_devices(kind)])
        case "multi_worker":
            _cluster(config)
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        case "parameter_server":
            servers = _cluster(config, "ps")["ps"]
            strategy = tf.distribute.ParameterServerStrategy(
                tf.distribute.cluster_resolver.TFConfigClusterResolver(),
                variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(
                    MIN_SHARD_BYTES, max_shards=len(servers)
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


def is_chief(config: TrainingConfig) -> bool:
    """Whether this process writes the run directory: yes, unless it is another member of a cluster that trains.

    Raises:
        ConfigError: TF_CONFIG is unsound.
    """
    jobs = _tf_config().get("cluster") if config.in_cluster else None
    return not jobs or _task() == ("chief" if "chief" in jobs else "worker", 0)


def serve_if_remote(config: TrainingConfig) -> None:
    """In a worker or parameter server of a parameter-server cluster: serve the chief until the process is ended.

    Raises:
        ConfigError: TF_CONFIG is unsound.
    """
    if config.strategy == "parameter_server" and _task()[0] in {"worker", "ps"}:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        tf.distribute.Server(
            resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
        ).join()


def _cluster(config: TrainingConfig, *needed: str) -> dict[str, list[str]]:
    """The addresses of each job of the cluster; `needed` jobs must be among them."""
    jobs: dict[str, list[str]] = _tf_config().get("cluster", {})
    if not jobs or not all(jobs.get(job) for job in needed):
        lacking = "without the environment variable TF_CONFIG" if not jobs else f"but TF_CONFIG names no {needed[0]}"
        raise ConfigError(
            "training.strategy",
            f"{config.strategy} {lacking}",
            "the cluster and this process's task as JSON",
            'set TF_CONFIG=\'{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}\'',
        )
    return jobs


def _task() -> tuple[str, int]:
    """This process's job and its number there."""
    task = _tf_config().get("task", {})
    return str(task.get("type", "chief")), int(task.get("index", 0))


def _tf_config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            "TF_CONFIG", f"is no JSON ({error})", "the cluster and this process's task as JSON"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError("TF_CONFIG", f"is {text[:40]}", "a JSON object with `cluster` and `task`")
    return found
