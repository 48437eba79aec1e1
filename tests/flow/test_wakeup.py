"""However often it is called, one look answers it; and no call is lost."""

from __future__ import annotations

import asyncio

from fakes import FakeClock, until

from mqrouter.flow.wakeup import Wakeup


async def test_calls_before_the_wait_count_once() -> None:
    wakeup = Wakeup()
    wakeup.give()
    wakeup.give()
    await wakeup.wait()
    waiting = asyncio.create_task(wakeup.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    wakeup.give()
    await waiting


async def test_wait_ends_with_its_time(clock: FakeClock) -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(5.0))
    await asyncio.sleep(0)
    clock.advance(5.1)
    await until(waiting.done)
    wakeup.give()
    await wakeup.wait(0.0)  # a call that is there is taken without waiting
