"""Answers one request after the other at a tier with prices, and says so; runs until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fakes import QUEUE, START_MS, request

from mqrouter.core.request import Answer
from mqrouter.core.spending import Meter, TierLimits, Tokens
from mqrouter.core.states import State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store


async def main(path: Path) -> None:
    meter = Meter(TierLimits(prompt_price=1e6, max_tokens=10))
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, 0, 0), meters={"hub": meter})
        await store.recover(START_MS, ("hub",))
        while True:
            await store.accept([request()], START_MS)
            (row,) = await store.next_received(1, ())
            await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.5, decision={}, now_ms=START_MS)
            (held,) = await store.claim("hub", ["hub"], 1, START_MS)
            call = meter.call_of(held.id)
            assert call is not None
            call.used = Tokens(3, 4)
            await store.finish(held, Answer(text="Yes."), State.ANSWERED, START_MS, lease=held.lease)
            print(held.id, flush=True)  # noqa: T201


asyncio.run(main(Path(sys.argv[1])))
