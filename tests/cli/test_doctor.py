"""`recsys doctor`: what it finds, also where the installation crashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import _versions
from recsys.cli import doctor, main
from recsys.cli.doctor import Finding

SAID = [
    '{"step": "tensorflow", "found": "2.20.0"}',
    '{"step": "keras", "found": "2.20.1 (tf_keras)"}',
    '{"step": "tfrs", "found": "v0.7.7"}',
    '{"step": "accelerator", "found": ""}',
    '{"step": "scann", "found": "loads"}',
]


def test_this_installation_is_sound(tmp_path: Path) -> None:
    environment = {**os.environ, "RECSYS_DATA": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from recsys.cli import main; sys.exit(main(['doctor', '--json']))"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    found = json.loads(run.stdout)
    assert run.returncode == 0, found
    assert found["sound"] is True
    status = {finding["about"]: finding["status"] for finding in found["findings"]}
    assert {"Python", "versions", "processor", "memory", "Spark", "data folder", "cache folder"} <= set(status)
    assert [status[about] for about in ("TensorFlow", "Keras 2", "TFRS", "accelerator", "ScaNN")] == ["ok"] * 5


@pytest.mark.parametrize(
    ("ending", "found"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "loading it crashes (signal 11)"),
        ("import time; time.sleep(600)", "does not load within 2 s"),
        ("import no_such_module", "does not load: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "does not load: exit code 3"),
    ],
)
def test_a_library_that_does_not_load_is_a_finding(monkeypatch: pytest.MonkeyPatch, ending: str, found: str) -> None:
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 2.0)
    said = f"print('{SAID[0]}', flush=True); {ending}"
    findings = {finding.about: finding for finding in doctor.examine([sys.executable, "-c", said])}
    assert findings["TensorFlow"] == Finding("TensorFlow", "ok", "2.20.0")
    assert findings["Keras 2"] == Finding("Keras 2", "fail", found, "pip install 'tf-keras==2.20.*'")
    assert "ScaNN" not in findings
    assert findings["cache folder"].status == "ok"


def test_what_the_libraries_say() -> None:
    assert [finding.status for finding in doctor.libraries(SAID, "", 0)] == ["ok"] * 5
    keras_3 = [SAID[0], '{"step": "keras", "found": "3.11.0 (keras)"}', *SAID[2:]]
    assert [finding.status for finding in doctor.libraries(keras_3, "", 0)] == ["ok", "fail", "ok", "ok", "ok"]
    (*_, last) = doctor.libraries(SAID[:4], "noise\nrecsys.errors.InstallError: scann: cannot be loaded\n", 1)
    assert last.about == "ScaNN"
    assert last.status == "fail"
    assert last.found == "does not load: recsys.errors.InstallError: scann: cannot be loaded"
    assert "retrieval.index.kind: exact" in last.cure


def test_an_unused_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = {finding.about: finding for finding in doctor.libraries(SAID, "", 0)}["accelerator"]
    assert found.status == "warn"
    assert found.cure == "pip install 'tensorflow[and-cuda]==2.20.*'"


def test_versions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_versions, "REQUIRED", {"scann": "0.1.", "no-such-thing": "7.7.7"})
    one, two = doctor.versions()
    assert (one.status, one.cure) == ("fail", "pip install 'scann==0.1.*'")
    assert one.found.startswith("scann: found 1.")
    assert (two.found, two.cure) == (
        "no-such-thing: found nothing; expected 7.7.7",
        "pip install 'no-such-thing==7.7.7'",
    )


@pytest.mark.parametrize(
    ("flags", "status"),
    [("fpu avx avx2 fma", "ok"), ("fpu avx avx2", "warn"), ("fpu avx", "warn"), ("fpu sse", "fail")],
)
def test_processor(tmp_path: Path, flags: str, status: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx2 fma\n")
    found = doctor.processor(tmp_path / "cpuinfo")
    assert found.status == status
    assert bool(found.cure) is (status != "ok")


@pytest.mark.parametrize(
    ("available", "limit", "found"),
    [
        (8 << 20, "max", ("ok", "8.0 GiB available")),
        (8 << 20, str(2 << 30), ("warn", "2.0 GiB available")),
        (3 << 20, str(9 << 30), ("warn", "3.0 GiB available")),
    ],
)
def test_memory(tmp_path: Path, available: int, limit: str, found: tuple[str, str]) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available} kB\n")
    (tmp_path / "max").write_text(limit + "\n")
    finding = doctor.memory(tmp_path / "meminfo", tmp_path / "max")
    assert (finding.status, finding.found) == found


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "none"))
    (gone,) = doctor.data_folder()
    assert gone.status == "fail"
    assert "export RECSYS_DATA=FOLDER" in gone.cure
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    folder, sets = doctor.data_folder()
    assert (folder.status, folder.found) == ("ok", str(tmp_path))
    assert (sets.status, sets.found) == ("ok", "none at hand")


def test_data_sets_at_hand_are_named(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("RECSYS_DATA", str(data_dir))
    _, sets = doctor.data_folder()
    assert "movielens-100k" in sets.found


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "deep" / "cache"))
    assert doctor.cache_folder().status == "ok"
    assert not (tmp_path / "deep").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "file" / "cache"))
    found = doctor.cache_folder()
    assert (found.status, found.cure) == ("fail", "export RECSYS_CACHE=FOLDER")


def test_spark_needs_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert doctor.spark().status == "ok"
    monkeypatch.setattr(doctor, "find_spec", lambda _: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert doctor.spark().found == "PySpark is installed, but no Java"
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    for version, status in (('openjdk version "1.8.0_392"', "warn"), ('openjdk version "21.0.1"', "ok")):
        java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
        java.chmod(0o755)
        assert doctor.spark().status == status


def test_a_failure_is_exit_code_1_and_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = [Finding("Python", "ok", "3.11"), Finding("ScaNN", "fail", "crashes", "pip install scann==1.4.2")]
    monkeypatch.setattr(doctor, "examine", lambda _: failing)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "pip install scann==1.4.2" in next(line for line in out.splitlines() if "fail" in line)
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False
