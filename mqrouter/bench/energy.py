"""Energy while something is measured: a meter that has to be read often is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mqrouter.edge.power import Ina3221, Meter

SAMPLE_S = 0.1


@asynccontextmanager
async def sampled(meter: Meter | None) -> AsyncIterator[None]:
    """Inside the block the meter is read often enough for a power that changes."""
    if not isinstance(meter, Ina3221):
        yield
        return
    sampling = asyncio.create_task(_sample(meter), name="bench.energy")
    try:
        yield
    finally:
        sampling.cancel()
        await asyncio.wait([sampling])


async def _sample(meter: Meter) -> None:
    while True:
        with contextlib.suppress(OSError, ValueError):
            meter.joules()
        await asyncio.sleep(SAMPLE_S)
