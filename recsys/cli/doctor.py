"""`recsys doctor`: is this installation sound, and what cures it?"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from recsys.cli._output import JsonOption, Output

PROBE_SECONDS = 60.0
"""TensorFlow and ScaNN load in about 8 s; a process that needs this long hangs."""
_GIB = 2**30
_MEMORY_GIB = 4
"""DuckDB's default limit of 3 GiB, and 1 GiB beside it."""
_JAVA = 17
_SERVE_EXACTLY = "set `retrieval.index.kind: exact`"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    status: Literal["ok", "warn", "fail"]
    found: str
    cure: str = ""


def doctor(as_json: JsonOption = False) -> None:
    """Check this installation; each finding comes with its cure."""
    out = Output(as_json)
    out.note("loading TensorFlow and ScaNN ...")
    findings = examine([sys.executable, "-m", "recsys.cli._probe"])
    failed = any(finding.status == "fail" for finding in findings)
    out.table("recsys doctor", ["", "about", "found, and what cures it"], [_row(finding) for finding in findings])
    out.result({"sound": not failed, "findings": [asdict(finding) for finding in findings]})
    if failed:
        raise typer.Exit(1)


def _row(finding: Finding) -> tuple[str, str, str]:
    return finding.status, finding.about, "; ".join(filter(None, (finding.found, finding.cure)))


def examine(probe: list[str]) -> list[Finding]:
    """Every finding. `probe` is the command that loads the native libraries; the rest is looked at meanwhile."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(probe, stdout=said, stderr=complaints, stdin=subprocess.DEVNULL) as process:
            before = [python(), *versions(), processor(), memory()]
            after = [*data_folder(), cache_folder(), spark()]
            try:
                code: int | None = process.wait(PROBE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = None
        said.seek(0)
        complaints.seek(0)
        loaded = list(libraries(said.read().splitlines(), complaints.read(), code))
    return [*before, *loaded, *after]


def python() -> Finding:
    """The interpreter, and the platform that ScaNN has wheels for."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not (3, 11) <= sys.version_info < (3, 14):
        return Finding("Python", "fail", found, "make test PYTHON=python3.11")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Finding("Python", "warn", f"{found}: no ScaNN here", _SERVE_EXACTLY)
    return Finding("Python", "ok", found)


def versions() -> Iterator[Finding]:
    """The distributions' versions against each other."""
    from recsys._versions import REQUIRED, version_problems

    problems = version_problems()
    for line in problems:
        found, _, cure = line.rpartition("; ")
        yield Finding("versions", "fail", found, cure)
    if not problems:
        yield Finding(
            "versions", "ok", ", ".join(f"{name} {version.rstrip('.')}" for name, version in REQUIRED.items())
        )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """The vector instructions that TensorFlow's and ScaNN's wheels are built for."""
    if not cpuinfo.is_file():
        return Finding("processor", "warn", f"no {cpuinfo} to read its instructions from")
    match = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    if "avx" not in flags:
        return Finding("processor", "fail", "no AVX: TensorFlow will crash", "use a machine with AVX2")
    if not {"avx2", "fma"} <= flags:
        return Finding("processor", "warn", "no AVX2 and FMA: ScaNN will crash", _SERVE_EXACTLY)
    return Finding("processor", "ok", "AVX2, FMA" + (", AVX-512" if "avx512f" in flags else ""))


def memory(meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Finding:
    """Memory that is free now, or the container's limit if that is less."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text() if meminfo.is_file() else "", re.MULTILINE)
    if match is None:
        return Finding("memory", "warn", f"no {meminfo} to read it from")
    free = int(match[1]) * 1024
    container = limit.read_text().strip() if limit.is_file() else "max"
    if container.isdecimal():
        free = min(free, int(container))
    found = f"{free / _GIB:.1f} GiB available"
    if free < _MEMORY_GIB * _GIB:
        return Finding("memory", "warn", found, "--set data.engine.memory_limit_gib=1, and smaller batches")
    return Finding("memory", "ok", found)


_STEPS = {
    "tensorflow": ("TensorFlow", "pip install 'tensorflow==2.20.*'"),
    "keras": ("Keras 2", "pip install 'tf-keras==2.20.*'"),
    "tfrs": ("TFRS", "pip install tensorflow-recommenders==0.7.7"),
    "accelerator": ("accelerator", "pip install 'tensorflow[and-cuda]==2.20.*'"),
    "scann": ("ScaNN", f"pip install 'tensorflow==2.20.*' scann==1.4.2, or {_SERVE_EXACTLY}"),
}
"""What the probe loads, in its order."""


def libraries(lines: list[str], complaints: str, code: int | None) -> Iterator[Finding]:
    """What the probe said, and where it ended: `code` is its exit code, None if it had to be killed."""
    said = {step["step"]: step["found"] for step in map(json.loads, lines)}
    for step, (about, cure) in _STEPS.items():
        if step not in said:
            yield Finding(about, "fail", _end(complaints, code), cure)
            return
        if step == "accelerator":
            yield _accelerator(said[step], cure)
        elif step == "keras" and "(tf_keras)" not in said[step]:
            yield Finding(about, "fail", f"tf.keras is {said[step]}", "unset TF_USE_LEGACY_KERAS; " + cure)
        else:
            yield Finding(about, "ok", said[step])


def _end(complaints: str, code: int | None) -> str:
    if code is None:
        return f"does not load within {PROBE_SECONDS:.0f} s"
    if code < 0:
        return f"loading it crashes (signal {-code})"
    last = complaints.strip().splitlines()[-1:] or [f"exit code {code}"]
    return f"does not load: {last[0][:200]}"


def _accelerator(found: str, cure: str) -> Finding:
    if found:
        return Finding("accelerator", "ok", found)
    if shutil.which("nvidia-smi"):
        return Finding("accelerator", "warn", "an NVIDIA driver, but TensorFlow sees no GPU", cure)
    return Finding("accelerator", "ok", "none: the CPU works")


def data_folder() -> Iterator[Finding]:
    """RECSYS_DATA, and the public data sets that are at hand."""
    from recsys.data.public import DATASETS, locate
    from recsys.errors import DataError

    root = os.environ.get("RECSYS_DATA")
    cure = "export RECSYS_DATA=FOLDER, the folder that holds your copies, or unset it"
    if root and not (Path(root).is_dir() and os.access(root, os.R_OK | os.X_OK)):
        yield Finding("data folder", "fail", f"RECSYS_DATA={root} is no folder that can be read", cure)
        return
    yield Finding("data folder", "ok", root or "RECSYS_DATA is not set: public data sets are downloaded into the cache")
    try:
        names = [name for name in DATASETS if locate(name)]
    except (DataError, OSError) as error:
        yield Finding("data sets", "fail", str(error), cure)
    else:
        yield Finding("data sets", "ok", ", ".join(names) or "none at hand", "" if names else "recsys data list")


def cache_folder() -> Finding:
    """Whether the cache can be written."""
    from recsys.data.cache import cache_dir

    folder = cache_dir()
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding("cache folder", "fail", f"{folder}: {error.strerror}", "export RECSYS_CACHE=FOLDER")
    return Finding("cache folder", "ok", f"{folder}, {shutil.disk_usage(existing).free / _GIB:.0f} GiB free")


def spark() -> Finding:
    """PySpark, and the Java that it needs."""
    if find_spec("pyspark") is None:
        return Finding(
            "Spark", "ok", "not installed; DuckDB prepares the data", "for Spark: make environment EXTRAS=spark"
        )
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    cure = "apt-get install default-jre-headless, or set JAVA_HOME"
    if java is None:
        return Finding("Spark", "warn", "PySpark is installed, but no Java", cure)
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=10, check=False).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Spark", "warn", f"{java} does not run ({error})", cure)
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        return Finding("Spark", "warn", f"{java} is Java {version[1] if version else '?'}, older than {_JAVA}", cure)
    return Finding("Spark", "ok", f"PySpark with Java {version[1]}")
