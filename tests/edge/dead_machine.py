"""A hub whose power fails while it thinks. Run in a network of its own: unshare -rn python dead_machine.py.

Prints, as JSON, what the client made of it and after how many seconds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

from mqrouter.core.events import TierCall
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.errors import TransientError

HUB = "10.9.9.9"
CONNECT_LIMIT_S = 1.0
FIRST_TOKEN_LIMIT_S = 60.0


async def main() -> None:
    asked = asyncio.Event()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.set()

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(connected, HUB, 0)
    url = f"http://{HUB}:{server.sockets[0].getsockname()[1]}/v1"
    options = UpstreamOptions("hub", url, "m", None, 8, 0.0, 1, CONNECT_LIMIT_S, FIRST_TOKEN_LIMIT_S, 60.0)
    async with UpstreamClient(options, OpenAiWire(options)) as client:
        asking = asyncio.create_task(anext(client.stream(TierCall("r1", (Message("user", "?"),), 120.0))))
        await asked.wait()
        await asyncio.to_thread(subprocess.run, ["ip", "link", "set", "lo", "down"], check=True)
        started_s = time.monotonic()
        try:
            await asking
        except TransientError as error:
            found = {"error": type(error).__name__, "elapsed_s": time.monotonic() - started_s}
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", f"{HUB}/32", "dev", "lo"], check=True)
    asyncio.run(main())
