"""A server under load: latency, where the time goes, and what fails when things die.

    python benchmarks/server.py --bundle runs/served/bundle/1      (benchmarks/server_bundle.py makes one of 1M items)
    ... --chaos                          swaps, a corrupt bundle, kills, and a Redis that goes away, under the same load
    ... [--rate 50] [--seconds 60] [--workers 2] [--swaps 10] [--force] [--write]

The client is a process of its own on the same machine. A request names a user, whose history is in Redis, and asks for
20 items of 500 candidates. Time outside TensorFlow and ScaNN is what a client waits beyond the stages that run them
(`retrieve`: query tower and search; `rank`), in the mean: the web worker, the way to the model process and back,
features, rules, JSON. --write keeps the record, benchmarks/results/serving.json, of which results_page.py makes a
section of docs/results.md. If others took more of the machine than 5 % meanwhile, it says so; status 2, unless --force.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from contest import HERE, QUIET, others
from table import markdown

from recsys.bundle.active import activate
from recsys.files import write_text

RECORD = HERE / "results" / "serving.json"
K, USERS = 20, 500
MODEL_STAGES = ("retrieve", "rank")
"""Those that run TensorFlow and ScaNN."""
PATIENCE = 600.0


RECSYS = [sys.executable, "-c", "import sys; from recsys.cli import main; sys.exit(main())"]
AWAY = 5.0
"""Seconds that Redis is gone."""


class Redis:
    """A Redis server on a Unix socket, which keeps what it has on disk, with the users of a bundle."""

    def __init__(self, bundle: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))  # a socket's path must be short
        self.url = f"unix://{self._folder}/redis.sock"
        self.start()
        subprocess.run([*RECSYS, "features", "load", str(bundle), "--store", self.url], check=True)

    def start(self) -> None:
        """Or start again."""
        command = ["redis-server", "--port", "0", "--unixsocket", self.url.removeprefix("unix://"), "--save", ""]
        command += ["--dir", str(self._folder), "--appendonly", "yes"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not Path(self.url.removeprefix("unix://")).exists():
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._process.wait()
        Path(self.url.removeprefix("unix://")).unlink()

    def end(self) -> None:
        """For good."""
        self.kill()
        shutil.rmtree(self._folder)


class Server:
    """`recsys serve` over a folder of bundles."""

    def __init__(self, bundles: Path, workers: int, redis: str) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        config = bundles / ".serving.yaml"
        write_text(config, f"features: {{kind: redis, url: '{redis}'}}\n")
        command = [*RECSYS, "serve", str(bundles), "--config", str(config)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--workers", str(workers)], stderr=self._log, stdout=self._log
        )
        told = self.until(lambda: self.said().partition("answers at http://")[2].split("\n")[0], "an address")
        self.host, _, port = told.split(",")[0].split()[0].rpartition(":")
        self.port = int(port)

    def said(self) -> str:
        """Its log."""
        return Path(self._log.name).read_text()

    def get(self, path: str, body: dict[str, Any] | None = None) -> str:
        """The body of an answer, whatever its status."""
        sent = None if body is None else json.dumps(body).encode()
        url, headers = f"http://{self.host}:{self.port}{path}", {"content-type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, sent, headers), timeout=30) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def state(self) -> dict[str, Any]:
        """What `/readyz` says."""
        found: dict[str, Any] = json.loads(self.get("/readyz"))
        return found

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """The first true thing that `look` sees."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(self.said()[-3_000:])
            if found := look():
                return found
            time.sleep(0.05)
        raise RuntimeError(f"not within {PATIENCE:.0f} s: {what}")

    def child(self, module: str) -> psutil.Process:
        """One of its processes."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if any(word.endswith(f".{module}") for word in child.cmdline()))

    def end(self) -> None:
        """By SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@contextmanager
def loading(server: Server, plan: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Requests from another process meanwhile; the list is filled when the block ends."""
    whole = {"host": server.host, "port": server.port, **plan}
    command = [sys.executable, str(HERE / "server_load.py")]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    client.stdin.write(json.dumps(whole))
    client.stdin.close()
    client.stdin = None
    found = list[dict[str, Any]]()
    yield found
    output, _ = client.communicate()
    found.extend(json.loads(output))


def bodies(bundle: Path) -> list[dict[str, Any]]:
    """Requests of known users."""
    users = pq.read_table(bundle / "users.parquet", columns=["user"])["user"]
    drawn = np.random.default_rng(0).integers(len(users), size=USERS)
    return [{"user": user, "k": K} for user in users.take(drawn).to_pylist()]


def summary(sent: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of one load."""
    answered = [each for each in sent if each["status"] == 200]
    took = np.array([1_000 * each["seconds"] for each in answered] or [np.nan])
    stages = {
        name: float(np.mean([each["milliseconds"].get(name, 0.0) for each in answered]))
        for name in dict.fromkeys(name for each in answered for name in each["milliseconds"])
    }
    inside = sum(stages.get(name, 0.0) for name in MODEL_STAGES)
    return {
        "requests": len(sent),
        "failed": len(sent) - len(answered),
        "degraded": sum(bool(each["degraded"]) for each in answered),
        "per_second": len(answered) / seconds,
        "ms_p50": float(np.percentile(took, 50)),
        "ms_p99": float(np.percentile(took, 99)),
        "ms_mean": float(took.mean()),
        "stages_ms": stages,
        "share_outside": 1 - inside / float(took.mean()),
    }


def copied(bundle: Path, folder: Path, count: int) -> Path:
    """The same bundle under several numbers, without a copy of its files; the last one is altered."""
    for number in range(1, count + 1):
        shutil.copytree(bundle, folder / str(number), copy_function=os.link)
    shutil.copytree(bundle, folder / ".altered", copy_function=os.link)
    altered = folder / ".altered" / "items.parquet"
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.unlink()
    altered.write_bytes(content)
    return folder


def chaos(server: Server, redis: Redis, folder: Path, plan: dict[str, Any], swaps: int) -> list[dict[str, Any]]:
    """What fails while one thing after another happens, and how long each takes."""

    def swap(number: int) -> Callable[[], object]:
        def act() -> object:
            before = server.state()["swaps"]
            activate(folder, 1 + number % 2)
            return server.until(lambda: server.state()["swaps"] > before, "a swap")

        return act

    def refuse() -> object:
        (folder / ".altered").rename(folder / "99")
        activate(folder, 99)
        server.until(lambda: server.state()["refused"], "a refusal")
        return activate(folder, 1)

    def kill(module: str, kind: str) -> Callable[[], object]:
        def act() -> object:
            before = server.state()["restarts"].get(kind, 0)
            server.child(module).kill()
            server.until(lambda: server.state()["restarts"].get(kind, 0) > before, "a note of it")
            return server.until(lambda: server.state()["ready"] and server.child(module), "it again")

        return act

    def without_redis() -> object:
        redis.kill()
        time.sleep(AWAY)
        redis.start()
        body = plan["bodies"][0]
        return server.until(lambda: "degraded" not in json.loads(server.get("/v1/recommend", body)), "whole answers")

    acts: list[tuple[str, Callable[[], object]]] = [(f"swap {n}", swap(n)) for n in range(1, swaps + 1)]
    acts += [("a corrupt bundle", refuse), ("kill -9 a web worker", kill("worker", "web"))]
    acts += [("kill -9 the model process", kill("model_process", "model"))]
    acts += [(f"Redis is gone for {AWAY:g} s", without_redis)]
    found = []
    for name, act in acts:
        with loading(server, plan) as sent:
            time.sleep(1.0)
            start = time.monotonic()
            act()
            took = time.monotonic() - start
        found.append({"event": name, "took_seconds": took} | summary(sent, plan["seconds"]))
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    copied(arguments.bundle, folder, 2)
    activate(folder, 1)
    redis = Redis(arguments.bundle)
    start = time.monotonic()
    server = Server(folder, arguments.workers, redis.url)
    try:
        state = server.until(lambda: (found := server.state())["ready"] and found, "ready")
        ready = time.monotonic() - start
        asked = bodies(arguments.bundle)
        info = json.loads(server.get("/v1/info"))
        found: dict[str, Any] = {
            "items": info["catalogue_size"],
            "cores": os.cpu_count(),
            "workers": arguments.workers,
            "rate": arguments.rate,
            "start_seconds": ready,
            "model": state["loaded"],
        }
        steady = {"bodies": asked, "rate": arguments.rate, "seconds": arguments.seconds}
        with loading(server, {"bodies": asked, "clients": 4, "seconds": min(10.0, arguments.seconds)}):
            pass  # warm
        with others() as busy, loading(server, steady) as sent:
            pass
        found["at_rate"] = summary(sent, arguments.seconds) | {"others": busy.share}
        with loading(server, {"bodies": asked, "clients": 8, "seconds": arguments.seconds}) as sent:
            pass
        found["as_fast"] = summary(sent, arguments.seconds)
        if arguments.chaos:
            found["chaos"] = chaos(server, redis, folder, steady, arguments.swaps)
    finally:
        server.end()
        redis.end()
    return found


def page() -> str:
    """The section of docs/results.md."""
    if not RECORD.exists():
        return "Not run yet: `python benchmarks/server.py`.\n"
    record = json.loads(RECORD.read_text())
    model = record["model"]
    text = [
        f"{record['items']:,} items, {record['cores']} cores, {record['workers']} web workers; retrieve 500, rank 500 "
        f"by DIN over histories of 50, answer {K}. The model process is ready in {model['seconds']:.1f} s, of which "
        f"{model['import_seconds']:.1f} s are TensorFlow's import. Others took "
        f"{record['at_rate']['others']:.0%} of the machine.\n",
        _loads(record),
    ]
    return "\n".join([*text, _events(record["chaos"])] if "chaos" in record else text)


def _loads(record: dict[str, Any]) -> str:
    rows = []
    for name, key in ((f"{record['rate']:g} requests a second", "at_rate"), ("as fast as it goes", "as_fast")):
        found = record[key]
        stages = ", ".join(f"{stage} {took:.1f}" for stage, took in found["stages_ms"].items())
        times = [f"{found[each]:.1f}" for each in ("ms_p50", "ms_p99")]
        outside = f"{found['share_outside']:.0%}"
        counts = [str(found[each]) for each in ("failed", "degraded")]
        rows.append([name, f"{found['per_second']:.0f}", *times, stages, outside, *counts])
    columns = ["load", "answers a second", "p50 ms", "p99 ms", "stages, mean ms", "outside the models"]
    columns += ["failed", "degraded, flagged"]
    return markdown(columns, rows)


def _events(found: list[dict[str, Any]]) -> str:
    rows = []
    for each in found:
        counts = [str(each[name]) for name in ("requests", "failed", "degraded")]
        rows.append([each["event"], *counts, f"{each['ms_p99']:.0f}", f"{each['took_seconds']:.1f}"])
    columns = ["meanwhile", "requests", "failed", "degraded, flagged", "p99 ms", "seconds until done"]
    return markdown(columns, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="keep the record")
    parser.add_argument("--force", action="store_true", help="whatever others take of the machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.bundle.resolve().parent, prefix=".load-") as folder:
        record = measured(arguments, Path(folder))
    print(json.dumps(record, indent=2))
    if record["at_rate"]["others"] > QUIET:
        print(f"others took {record['at_rate']['others']:.0%} of the machine", file=sys.stderr)
        if not arguments.force:
            return 2
    if arguments.write:
        write_text(RECORD, json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
