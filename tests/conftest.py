"""What every test gets: a quiet TensorFlow, a cache of its own, and one way to skip."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.trained import trained_copy, trained_run  # noqa: F401

# TensorFlow's modules and traced graphs are many objects that live long: looked through at Python's own pace (each 700
# new objects), they cost several per cent of the suite.
gc.set_threshold(50_000)
# Where bytecode is not kept, as in many containers, each process of a test would compile TensorFlow anew, in 5 seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Spark's tables are tiny here: its JVM spends its time on compiling what runs once.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Servers of the tests stand on this machine, whatever proxy leads out of it.
os.environ.update(NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# The terminal's size and colours must not decide what a test sees.
os.environ.update(COLUMNS="200", NO_COLOR="1", TERM="dumb")
# Machines differ in speed: no test may fail for being slow. CI tries the same examples in every run, so that a change
# fails by its own fault; elsewhere new ones are looked for.
settings.register_profile(
    "recsys",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("RECSYS_REQUIRE_SYSTEM") == "1",
    max_examples=50,
)
settings.load_profile("recsys")

Require = Callable[[object, str], None]


def _require(condition: object, reason: str) -> None:
    if condition:
        return
    if os.environ.get("RECSYS_REQUIRE_SYSTEM") == "1":
        pytest.fail(f"{reason} (RECSYS_REQUIRE_SYSTEM=1 allows no skipping)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(condition, reason)`: skips the test without it; fails it where RECSYS_REQUIRE_SYSTEM=1, as in CI."""
    return _require


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, RECSYS_DATA. Tests that need it are skipped where it is not set."""
    folder = os.environ.get("RECSYS_DATA", "")
    if not folder:
        pytest.skip("RECSYS_DATA is not set")
    assert Path(folder).is_dir(), f"RECSYS_DATA={folder} is no folder"
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """The cache (also of the processes that tests start) is a folder that goes away with the session."""
    before = os.environ.get("RECSYS_CACHE")
    with tempfile.TemporaryDirectory(prefix="recsys-cache-") as folder:
        os.environ["RECSYS_CACHE"] = folder
        yield
    if before is None:
        del os.environ["RECSYS_CACHE"]
    else:
        os.environ["RECSYS_CACHE"] = before
