"""What Prometheus can ask of a server: of all its processes together.

Each process of a server writes what it counts into files of one folder (prometheus_client's multiprocess mode, which
the environment variable `PROMETHEUS_MULTIPROC_DIR` turns on before the library is imported), and each web worker adds
them up. What a process that died has counted stays counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.about import State
from serving.log.parquet_log import Outcome
from serving.messages import Recommendations
from serving.processes.child import METRICS_FOLDER

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds."""


class Metrics:
    """What one process counts."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("recsys_requests", "Requests.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "recsys_request_seconds", "What requests took.", ["route"], buckets=_BUCKETS, registry=own
        )
        self.stages = Histogram(
            "recsys_stage_seconds", "What stages of recommendations took.", ["stage"], buckets=_BUCKETS, registry=own
        )
        self.degraded = Counter(
            "recsys_degraded", "Answers that are not what they would be, by reason.", ["reason"], registry=own
        )

        self._logged = Counter(
            "recsys_log_rows", "Rows of the log, by what became of them.", ["log", "outcome"], registry=own
        )

    def logged(self, log: str, outcome: Outcome, rows: int) -> None:
        """Rows of a log were written or dropped."""
        self._logged.labels(log, outcome).inc(rows)

    def answered(self, answer: Recommendations) -> None:
        """A recommendation was made."""
        for stage, milliseconds in answer.milliseconds.items():
            self.stages.labels(stage).observe(milliseconds / 1_000)
        for reason in answer.degraded:
            self.degraded.labels(reason).inc()

    def exposition(self, state: State) -> bytes:
        """In Prometheus' text format: of all processes of a server, or of this one where it is by itself."""
        told = CollectorRegistry()
        told.register(_Told(state))
        counted = self._registry
        if METRICS_FOLDER in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        return generate_latest(counted) + generate_latest(told)


class _Told(Collector):
    """What the supervisor says."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        if state.bundle is not None:
            yield GaugeMetricFamily("recsys_bundle_version", "Which bundle answers.", state.bundle.version)
        yield CounterMetricFamily("recsys_swaps", "Bundles that took over from another.", state.swaps)
        yield CounterMetricFamily("recsys_swaps_refused", "Bundles that were refused.", state.refusals)
        restarts = CounterMetricFamily("recsys_restarts", "Processes that died, by kind.", labels=["process"])
        for process, count in state.restarts.items():
            restarts.add_metric([process], count)
        yield restarts
