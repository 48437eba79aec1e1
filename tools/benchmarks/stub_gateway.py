"""The real daemon with one replaced part: every tier answers at once, in process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from mqrouter.app import Daemon, configure_logs
from mqrouter.config import load
from mqrouter.core.events import Delta, Done, TierCall, TierEvent


class StubTier:
    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        yield Delta("The stub has answered.")
        yield Done("stop", "stub", 0, 0)

    async def probe(self) -> bool:
        return True


async def main(config: Path) -> None:
    loaded = load(config, os.environ)
    configure_logs(loaded.settings.log)
    stub = StubTier()
    daemon = Daemon(loaded, clients=dict.fromkeys(loaded.settings.tiers, stub))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.request_stop)
    await daemon.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
