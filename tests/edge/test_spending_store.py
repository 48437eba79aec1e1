"""What a tier was used for is on disk with the request's own state: no crash loses it, nothing counts it twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import QUEUE, START_MS, FlakyDatabase, cancel, request

from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.spending import DAY_MS, Meter, TierLimits, Tokens
from mqrouter.core.states import State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import StoreError

LIMITS = TierLimits(
    requests_per_minute=5, budget_per_day=100.0, prompt_price=1e6, completion_price=2e6, max_tokens=10
)  # a token read costs 1, a token written 2
EXPECTED = Tokens(6, 10)  # of "how are the cows?"
POLICY = Policy(QUEUE, 600_000, 3_600_000)
HUB = Waiting(("hub",), ("hub",))
KILLED = Path(__file__).with_name("spending_child.py")


def meters(limits: TierLimits = LIMITS) -> dict[str, Meter]:
    return {"hub": Meter(limits)}


async def opened(database: Database, limits: TierLimits = LIMITS, now_ms: int = START_MS) -> tuple[Store, Meter]:
    found = meters(limits)
    store = Store(database, POLICY, meters=found)
    await store.recover(now_ms, ("hub",))
    return store, found["hub"]


async def ask(store: Store, number: int = 1) -> None:
    await store.accept([request(now_ms=START_MS) for _ in range(number)], START_MS)
    for row in await store.next_received(number, ()):
        await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.5, decision={}, now_ms=START_MS)


async def claim(store: Store, now_ms: int = START_MS) -> StoredRequest:
    (found,) = await store.claim("hub", ["hub"], 1, now_ms)
    return found


async def finish(store: Store, held: StoredRequest, now_ms: int = START_MS) -> bool:
    return await store.finish(held, Answer(text="Yes.", tier="hub"), State.ANSWERED, now_ms, lease=held.lease)


def use(meter: Meter, held: StoredRequest, used: Tokens) -> None:
    call = meter.call_of(held.id)
    assert call is not None
    call.used = used


def spent(meter: Meter, now_ms: int = START_MS) -> float:
    return next(level.used for level in meter.levels(now_ms) if level.name == "budget_per_day")


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    return await database.read(lambda db: [tuple(row) for row in db.execute(query)])


async def spending(database: Database) -> list[tuple[Any, ...]]:
    return await rows(database, "SELECT tier, requests, prompt_tokens, completion_tokens, cost FROM spending")


async def test_use_is_written_with_the_answer_and_read_at_the_next_start(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store)
    held = await claim(store)
    assert spent(meter) == 26.0  # what it is expected to cost
    use(meter, held, Tokens(7, 3))
    await finish(store, held)
    assert (spent(meter), await spending(database)) == (13.0, [("hub", 1, 7, 3, 13.0)])
    _, again = await opened(database, now_ms=START_MS + 1000)
    assert again.levels(START_MS + 1000) == meter.levels(START_MS + 1000)
    assert again.allowance(START_MS + 1000).requests == 4


async def test_failed_attempt_counts_what_it_used_and_one_never_sent_does_not(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store)
    held = await claim(store)
    use(meter, held, Tokens(7, 0))
    await store.release(held, HUB, note="broke off", now_ms=START_MS, is_counted=True)
    held = await claim(store)
    await store.release(held, HUB, note="refused", now_ms=START_MS, is_counted=False)
    assert await spending(database) == [("hub", 1, 7, 0, 7.0)]
    assert await rows(database, "SELECT count(*) FROM calls") == [(1,)]
    assert meter.allowance(START_MS).requests == 4


async def test_late_answer_of_a_lost_lease_was_paid_for_all_the_same(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store)
    late = await claim(store)
    use(meter, late, Tokens(5, 0))
    await cancel(store, late.id, START_MS)
    assert not await finish(store, late)
    assert not await finish(store, late)  # and once only
    assert (spent(meter), await spending(database)) == (5.0, [("hub", 1, 5, 0, 5.0)])


async def test_failed_write_counts_nothing_until_it_is_written(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store)
    held = await claim(store)
    use(meter, held, Tokens(5, 0))
    database.error = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await finish(store, held)
    database.error = None
    assert (spent(meter), await spending(database)) == (26.0, [])
    assert await finish(store, held)
    assert (spent(meter), await spending(database)) == (5.0, [("hub", 1, 5, 0, 5.0)])


async def test_call_cut_off_by_a_crash_counts_as_expected_and_once(database: FlakyDatabase) -> None:
    store, _ = await opened(database)
    await ask(store)
    await claim(store)
    for _ in range(2):
        _, meter = await opened(database)
        assert spent(meter) == 26.0
    assert await spending(database) == [("hub", 1, EXPECTED.prompt, EXPECTED.completion, 26.0)]


async def test_claims_stop_at_the_limit_of_requests_and_go_on_a_minute_later(database: FlakyDatabase) -> None:
    store, meter = await opened(database, TierLimits(requests_per_minute=5))
    await ask(store, 8)
    assert len(await store.claim("hub", ["hub"], 8, START_MS)) == 5
    assert await store.claim("hub", ["hub"], 8, START_MS + 59_999) == []
    assert meter.is_over(START_MS + 59_999)
    assert len(await store.claim("hub", ["hub"], 8, START_MS + 60_000)) == 3


async def test_claims_together_pass_a_budget_by_one_call_at_most(database: FlakyDatabase) -> None:
    store, meter = await opened(database)  # 100, and a call is expected to cost 26
    await ask(store, 8)
    assert len(await store.claim("hub", ["hub"], 8, START_MS)) == 4
    assert await store.claim("hub", ["hub"], 8, START_MS) == []
    assert spent(meter) == 104.0


async def test_what_calls_used_less_than_expected_is_room_for_others(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store, 8)
    for held in await store.claim("hub", ["hub"], 8, START_MS):
        use(meter, held, Tokens(1, 1))
        await finish(store, held)
    assert spent(meter) == 12.0
    assert len(await store.claim("hub", ["hub"], 8, START_MS)) == 1  # of five in this minute


async def test_spending_is_kept_by_day_and_summed_by_month(database: FlakyDatabase) -> None:
    store, meter = await opened(database)
    await ask(store, 2)
    for now_ms in (START_MS, START_MS + DAY_MS):
        held = await claim(store, START_MS)
        use(meter, held, Tokens(5, 0))
        await finish(store, held, now_ms)
    assert [row[1] for row in await spending(database)] == [1, 1]
    _, meter = await opened(database, now_ms=START_MS + DAY_MS)
    found = {level.name: level.used for level in meter.levels(START_MS + DAY_MS)}
    assert (found["budget_per_day"], found["budget_per_month"]) == (5.0, 10.0)


async def test_tier_without_a_meter_leaves_no_trace(database: FlakyDatabase) -> None:
    store = Store(database, POLICY)
    await ask(store)
    await finish(store, await claim(store))
    assert await rows(database, "SELECT * FROM calls") == await spending(database) == []


async def test_counts_are_exact_after_kill_9(tmp_path: Path) -> None:
    """A process that answers as fast as it can is killed in mid-work: every lease of it is counted exactly once."""
    path = tmp_path / "mqrouter.db"
    with subprocess.Popen(
        [sys.executable, str(KILLED), str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        finished = 0
        while finished < 25:
            line = child.stdout.readline()
            assert line, "the child ended by itself"
            finished += 1
        child.send_signal(signal.SIGKILL)
    async with Database(path) as database:
        ((cut_off,),) = await rows(database, "SELECT count(*) FROM calls WHERE is_open = 1")
        await opened(database, TierLimits(prompt_price=1e6, max_tokens=10))
        ((leases,),) = await rows(database, "SELECT count(*) FROM history WHERE event = 'leased'")
        ((answered,),) = await rows(database, "SELECT count(*) FROM requests WHERE state = 'answered'")
        ((_, requests, prompt, completion, cost),) = await spending(database)
    assert requests == leases == answered + cut_off
    assert answered >= finished
    assert prompt == 3 * answered + EXPECTED.prompt * cut_off == cost
    assert completion == 4 * answered + EXPECTED.completion * cut_off
