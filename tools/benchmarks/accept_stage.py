"""Only the accept stage, in the daemon's own parts: MQTT link, intake, store. Run: accept_stage.py CONFIG.

Prints `ready` once subscribed, and at the end its acknowledgements a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from pathlib import Path

from mqrouter import wiring
from mqrouter.app import configure_logs
from mqrouter.config import load
from mqrouter.core.rate import DeviceRates
from mqrouter.core.request import Incoming, RequestId
from mqrouter.edge.mqtt.link import MqttLink
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.edge.system import SystemClock
from mqrouter.flow.intake import Intake
from mqrouter.flow.wakeup import Wakeup


async def main(config: Path, expected: int) -> None:
    settings = load(config, os.environ).settings
    configure_logs(settings.log)
    acknowledged: list[float] = []
    async with Database(settings.database) as database:
        store = Store(database, Policy(settings.queue.limits, 0, 0))
        link = MqttLink(
            wiring.link_options(settings),
            on_message=lambda incoming: intake.put(incoming),  # noqa: PLW0108  not built yet
            on_published=lambda *_: None,
            on_connected=lambda _is_session_present: print("ready", flush=True),
        )
        counting = _Counting(link, acknowledged, expected)
        intake = Intake(
            store,
            counting,
            SystemClock(),
            wiring.topic_map(settings),
            wiring.request_limits(settings),
            rates=DeviceRates(settings.limits.device_rate_per_minute),
            new_id=lambda: RequestId(uuid.uuid4().hex[:16]),
            accepted=Wakeup(),
            answered=Wakeup(),
        )
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(intake.run())]
        await counting.done.wait()
        print(len(acknowledged) / (acknowledged[-1] - acknowledged[0]), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _Counting:
    """The link, noting when each acknowledgement was given."""

    def __init__(self, link: MqttLink, acknowledged: list[float], expected: int) -> None:
        self.done = asyncio.Event()
        self._expected = expected
        self._link = link
        self._acknowledged = acknowledged
        self.publish = link.publish

    @property
    def is_connected(self) -> bool:
        return self._link.is_connected

    def acknowledge(self, incoming: Incoming) -> None:
        self._link.acknowledge(incoming)
        self._acknowledged.append(time.perf_counter())
        if len(self._acknowledged) == self._expected:
            self.done.set()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
