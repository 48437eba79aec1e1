"""How a life takes up what an earlier one left: the database, the gateway's time, and the requests under way."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack

from mqrouter.core.timeline import Anchor, resume
from mqrouter.edge.in_hand import InHandFile
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.leases import Recovery
from mqrouter.edge.store.store import Store
from mqrouter.edge.system import ServiceManager, SystemClock, machine_clocks

PATIENCE_S = 10.0


async def open_database(database: Database, stack: AsyncExitStack, manager: ServiceManager) -> None:
    """To mend a damaged one takes its time: the service manager hears that we live, and does not begin anew."""
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(stack.enter_async_context(database), name="store.open")
        while not (await asyncio.wait([opening], timeout=PATIENCE_S))[0]:
            manager.notify(STATUS="opening the database", EXTEND_TIMEOUT_USEC=int(3e6 * PATIENCE_S))


async def recover(store: Store, clock: SystemClock, in_hand: InHandFile, tiers: Collection[str]) -> Recovery:
    """The gateway's time goes on where it stood, and so does every request."""
    anchor, latest_ms = await store.anchor()
    clocks = machine_clocks()
    now_ms = resume(anchor, latest_ms, clocks)
    clock.start_at(now_ms)
    await store.set_anchor(Anchor(now_ms, clocks))
    # Where the machine itself went down, or the daemon ended by its own decision, no request is to blame for that.
    is_same_boot = anchor is not None and anchor.clocks.boot_id == clocks.boot_id
    has_crashed = is_same_boot and in_hand.was_left
    return await store.recover(now_ms, tiers, in_hand=in_hand.found, has_crashed=has_crashed)
