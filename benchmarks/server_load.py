"""Requests at a rate, by a process of its own, over plain sockets: a client that costs the machine little.

Each request has a moment at which it is due, whatever became of those before it, and its latency counts from there: a
server that stalls does not slow the clock that measures it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One request."""

    due: float
    """Seconds since the load began."""
    seconds: float
    """From then until its answer was there."""
    status: int
    """0 where the connection broke off, or could not be made."""
    degraded: tuple[str, ...]
    milliseconds: dict[str, float]
    """By stage, as the server says."""


class Client:
    """Keeps connections, and opens another where all are busy."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        while True:
            kept = bool(self._free)
            reader, writer = self._free.pop() if kept else await asyncio.open_connection(self._host, self._port)
            if kept and reader.at_eof():  # the other end has closed it while nobody asked
                writer.close()
                continue
            break
        head = f"POST /v1/recommend HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        header = await reader.readuntil(b"\r\n\r\n")
        status = int(header[9:12])
        length = int(header.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self._free.append((reader, writer))
        return status, answer


async def _send(client: Client, start: float, due: float, body: bytes) -> Sent:
    try:
        status, answer = await client.ask(body)
        told = json.loads(answer) if status == 200 else {}
    except (OSError, asyncio.IncompleteReadError, ValueError):
        status, told = 0, {}
    took = perf_counter() - start - due
    return Sent(due, took, status, tuple(told.get("degraded", ())), told.get("milliseconds", {}))


async def at_rate(host: str, port: int, bodies: list[bytes], rate: float, seconds: float) -> list[Sent]:
    """So many requests a second, evenly."""
    client, start, tasks = Client(host, port), perf_counter(), []
    for number in range(int(rate * seconds)):
        due = number / rate
        await asyncio.sleep(max(0.0, start + due - perf_counter()))
        tasks.append(asyncio.create_task(_send(client, start, due, bodies[number % len(bodies)])))
    return list(await asyncio.gather(*tasks))


async def as_fast(host: str, port: int, bodies: list[bytes], clients: int, seconds: float) -> list[Sent]:
    """Clients that ask again as soon as they have an answer."""
    client, start, found = Client(host, port), perf_counter(), list[Sent]()

    async def keep_asking(first: int) -> None:
        number = first
        while (due := perf_counter() - start) < seconds:
            found.append(await _send(client, start, due, bodies[number % len(bodies)]))
            number += clients

    await asyncio.gather(*(keep_asking(number) for number in range(clients)))
    return found


def run(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """In this process; what `python -m server_load` reads as JSON and writes as JSON."""
    bodies = [json.dumps(body).encode() for body in plan["bodies"]]
    host, port, seconds = plan["host"], plan["port"], plan["seconds"]
    if "rate" in plan:
        sent = asyncio.run(at_rate(host, port, bodies, plan["rate"], seconds))
    else:
        sent = asyncio.run(as_fast(host, port, bodies, plan["clients"], seconds))
    return [asdict(each) for each in sent]


if __name__ == "__main__":
    import sys

    json.dump(run(json.load(sys.stdin)), sys.stdout)
