"""An operator's pages and scripts that look at the queue, so many times a second. Run: looker.py PORT PER_S PATH...

Prints `ready`, and asks for one path after the other, however long the answers take, until SIGTERM; then prints the
time of each answer in milliseconds, from when it was due, and the number a second. `{id}` in a path is a request of the
first page.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from itertools import count

HOST = "127.0.0.1"


class Connections:
    """HTTP/1.1 connections that stay open; a new one where all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> bytes:
        """Raises SystemExit where the answer is not 200."""
        pair = self._free.pop() if self._free else await asyncio.open_connection(HOST, self._port)
        reader, writer = pair
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.split("\r\n")[0]:
            raise SystemExit(f"looker: {path}: {head}")
        body = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        self._free.append(pair)
        return body


async def main(port: int, per_s: float, paths: Sequence[str]) -> None:
    connections, stopped, times_ms = Connections(port), asyncio.Event(), list[float]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    page = json.loads(await connections.get("/v1/requests"))["requests"]
    known = [path.replace("{id}", page[0]["id"] if page else "none") for path in paths]
    print("ready", flush=True)
    begun_s = time.monotonic()

    async def look(due_s: float, path: str) -> None:
        await connections.get(path)
        times_ms.append(1000 * (time.monotonic() - due_s))

    async with asyncio.TaskGroup() as group:
        for number in count():
            due_s = begun_s + number / per_s
            if stopped.is_set():
                break
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            group.create_task(look(due_s, known[number % len(known)]))
    print(json.dumps({"times_ms": times_ms, "per_s": len(times_ms) / (time.monotonic() - begun_s)}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
