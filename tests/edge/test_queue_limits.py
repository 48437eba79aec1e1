"""The queue at its limits, on a real database: the declared policy and nothing else."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from typing import Any

from fakes import QUEUE, START_MS, FlakyDatabase, request

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.backoff import Backoff
from mqrouter.core.records import Accepted, StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.store import Policy, Store

TIERS = ("hub",)


def make_store(database: FlakyDatabase, **limits: Any) -> Store:
    return Store(database, Policy(replace(QUEUE, **limits), 600_000, 3_600_000))


def ask(name: str, *, device: str = "d1", priority: int = 0) -> Any:
    payload = f'{{"question": "how is {name}?", "priority": {priority}}}'
    return request(payload, topic=f"mqrouter/farm/ask/{device}", correlation=name.encode())


async def accept(store: Store, *items: Any) -> list[Accepted]:
    return await store.accept(items, START_MS)


async def queue_all(store: Store) -> None:
    for row in await store.next_received(1000, ()):
        await store.queue_for_tiers(row, TIERS, route="r", confidence=0.5, decision={}, now_ms=START_MS)


async def served(store: Store, limit: int = 1000) -> list[str]:
    rows = await store.claim("hub", ["hub"], limit, START_MS)
    return [name_of(row) for row in rows]


def name_of(row: StoredRequest) -> str:
    assert row.reply.correlation is not None
    return row.reply.correlation.decode()


async def answers(store: Store) -> dict[str, bytes]:
    rows = await store.outbox_after(0, 1000)
    return {(row.message.correlation or b"").decode(): row.message.payload for row in rows}


async def active(store: Store) -> int:
    return sum(store.counts.values())


async def test_new_one_is_refused_where_the_policy_says_so(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=2)
    assert await accept(store, ask("a"), ask("b"), ask("c")) == [Accepted.NEW, Accepted.NEW, Accepted.REFUSED]
    assert list(await answers(store)) == ["c"]


async def test_oldest_waiting_one_makes_room(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=3, when_full=WhenFull.DROP_OLDEST)
    await accept(store, ask("at-tier"), ask("old", priority=9))
    await queue_all(store)
    assert await served(store, 1) == ["old"]  # leased: it stays, whatever its age
    await accept(store, ask("b"))
    assert await accept(store, ask("c"), ask("d")) == [Accepted.NEW, Accepted.NEW]
    assert list(await answers(store)) == ["at-tier", "b"]
    assert (store.dropped, await active(store)) == (2, 3)


async def test_lowest_priority_makes_room_and_the_newest_of_it_first(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=3, when_full=WhenFull.DROP_LOWEST)
    await accept(store, ask("low-old", priority=1), ask("low-new", priority=1), ask("high", priority=5))
    assert await accept(store, ask("equal", priority=1)) == [Accepted.REFUSED]
    assert await accept(store, ask("x", priority=2)) == [Accepted.NEW]
    assert list(await answers(store)) == ["equal", "low-new"]
    await queue_all(store)
    assert await served(store) == ["high", "x", "low-old"]


async def test_bytes_are_bounded_and_several_small_ones_make_room_for_a_large_one(database: FlakyDatabase) -> None:
    small = [ask(name) for name in "abcd"]
    size = len(small[0].incoming.payload)
    store = make_store(database, max_bytes=4 * size, when_full=WhenFull.DROP_OLDEST)
    await accept(store, *small)
    large = ask("e" * (1 + size))
    assert size < len(large.incoming.payload) <= 2 * size
    assert await accept(store, large) == [Accepted.NEW]
    assert list(await answers(store)) == ["a", "b"]
    assert store.holdings.total.bytes <= 4 * size


async def test_nothing_is_dropped_in_vain(database: FlakyDatabase) -> None:
    size = len(ask("a").incoming.payload)
    store = make_store(database, max_bytes=3 * size, when_full=WhenFull.DROP_LOWEST)
    await accept(store, ask("a", priority=1), ask("b", priority=9), ask("c", priority=9))
    assert await accept(store, ask("l" * (1 + size), priority=5)) == [Accepted.REFUSED]  # "a" alone would not do
    assert store.dropped == 0


async def test_one_device_cannot_fill_the_queue(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=10, share_per_device=0.5, when_full=WhenFull.DROP_OLDEST)
    results = await accept(store, *(ask(f"a{number}", device="loud") for number in range(8)))
    assert Counter(results) == {Accepted.NEW: 5, Accepted.REFUSED: 3}
    assert await accept(store, ask("b", device="quiet")) == [Accepted.NEW]
    assert store.dropped == 0


async def test_duplicate_takes_no_room_and_drops_nobody(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=2, when_full=WhenFull.DROP_OLDEST)
    first = ask("a")
    await accept(store, first, ask("b"))
    assert await accept(store, first) == [Accepted.ABSORBED]
    reused = request("something else?", topic="mqrouter/farm/ask/d1", correlation=b"a")
    assert await accept(store, reused) == [Accepted.REUSED]
    assert store.dropped == 0


async def test_room_comes_back_with_each_answer_and_after_a_restart(database: FlakyDatabase) -> None:
    store = make_store(database, max_requests=2)
    await accept(store, ask("a"), ask("b"))
    await queue_all(store)
    (row,) = await store.claim("hub", ["hub"], 1, START_MS)
    again = make_store(database, max_requests=2)
    await again.recover(START_MS, TIERS)
    assert again.holdings.total == store.holdings.total
    assert await accept(again, ask("c")) == [Accepted.REFUSED]
    await again.finish(row, Answer(text="Yes."), State.ANSWERED, START_MS)
    assert await accept(again, ask("d")) == [Accepted.NEW]


async def test_devices_take_turns_within_a_priority(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, *(ask(f"a{number}", device="loud") for number in range(5)))
    await accept(store, ask("b0", device="quiet"), ask("b1", device="quiet"), ask("now", device="loud", priority=9))
    await queue_all(store)
    assert await served(store) == ["now", "a0", "b0", "a1", "b1", "a2", "a3", "a4"]


async def test_turns_go_on_after_a_restart(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, *(ask(f"a{number}", device="loud") for number in range(4)))
    await queue_all(store)
    assert await served(store, 2) == ["a0", "a1"]
    again = make_store(database)
    await again.recover(START_MS, TIERS, has_crashed=False)
    await accept(again, ask("a4", device="loud"), ask("b0", device="quiet"))
    await queue_all(again)
    assert await served(again) == ["a0", "b0", "a1", "a2", "a3", "a4"]


async def test_innocent_requests_survive_what_one_of_them_does(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, *(ask(name) for name in ("poison", "b", "c", "d")))
    await queue_all(store)
    for crash in range(3):
        rows = await store.claim("hub", ["hub"], 10, START_MS)
        in_hand = [name_of(row) for row in rows]
        assert in_hand == (["poison", "b", "c", "d"] if crash == 0 else ["poison"])
        store = make_store(database)
        recovery = await store.recover(START_MS, TIERS)
    assert (recovery.released, recovery.dead) == (0, 1)
    assert list(await answers(store)) == ["poison"]
    names: list[str] = []
    while rows := await store.claim("hub", ["hub"], 10, START_MS):
        assert len(rows) == 1  # still suspects, each alone
        names += map(name_of, rows)
        await store.finish(rows[0], Answer(text="Yes."), State.ANSWERED, START_MS)
    assert names == ["b", "c", "d"]


async def test_power_cuts_and_ordered_stops_bury_nobody(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, ask("slow"))
    await queue_all(store)
    for _ in range(5):
        assert await served(store) == ["slow"]
        store = make_store(database)
        assert (await store.recover(START_MS, TIERS, has_crashed=False)).dead == 0


async def test_request_that_kills_while_it_is_decided_is_buried(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, ask("poison"), ask("b"))
    first, second = await store.next_received(10, ())
    for in_hand, dead in (([first.seq, second.seq], 0), ([first.seq], 0), ([first.seq], 1)):
        store = make_store(database)
        assert (await store.recover(START_MS, TIERS, in_hand=in_hand)).dead == dead
    assert list(await answers(store)) == ["poison"]
    (left,) = await store.next_received(10, ())
    assert (name_of(left), left.crashes) == ("b", 1)


def test_limits_are_what_the_settings_say() -> None:
    from mqrouter.settings import Queue

    assert Queue().limits == QueueLimits(100_000, 268_435_456, WhenFull.REJECT, 0.5)


async def test_one_crash_counts_once_where_a_request_was_handed_over(database: FlakyDatabase) -> None:
    store = make_store(database)
    await accept(store, ask("a"))
    await queue_all(store)
    for crash in range(1, 4):
        (row,) = await store.claim("hub", ["hub"], 1, START_MS)
        store = make_store(database)
        recovery = await store.recover(START_MS, TIERS, in_hand=[row.seq])
        assert recovery.dead == (crash == 3)
    assert list(await answers(store)) == ["a"]


async def test_row_that_lost_a_tier_in_mid_round_is_asked_for_when_its_round_starts_again(
    database: FlakyDatabase,
) -> None:
    store = make_store(database)
    await accept(store, ask("a"))
    (row,) = await store.next_received(1, ())
    await store.queue_for_tiers(row, ("a", "b", "c"), route="r", confidence=0.5, decision={}, now_ms=START_MS)
    (leased,) = await store.claim("a", ["a>b>c"], 1, START_MS)
    await store.release(leased, Waiting(("a", "c"), ("c",)), note="x", now_ms=START_MS, is_counted=True)
    again = make_store(database)
    await again.recover(START_MS, ("a", "b", "c"), has_crashed=False)
    for one in (store, again):
        assert {"c", "a>c"} <= set(one.todo_lists)
    await again.restart_rounds("c", START_MS, Backoff(0.001, 0.001))
    await again.wake_due(START_MS + 10)
    assert [name_of(row) for row in await again.claim("a", list(again.todo_lists), 1, START_MS)] == ["a"]


async def states_told(database: FlakyDatabase) -> tuple[str, list[str]]:
    def read(db: sqlite3.Connection) -> tuple[str, list[str]]:
        state = db.execute("SELECT state FROM requests").fetchone()["state"]
        return state, [row["event"] for row in db.execute("SELECT event FROM history ORDER BY seq")]

    return await database.read(read)


async def test_answer_given_up_and_asked_for_again_is_delivered_after_all(database: FlakyDatabase) -> None:
    store = make_store(database)
    first = ask("a")
    await accept(store, first)
    (row,) = await store.next_received(1, ())
    await store.finish(row, Answer(text="Yes."), State.ANSWERED, START_MS)
    later_ms = START_MS + 10_000_000
    assert await store.give_up_answers(later_ms) == 1
    assert await accept(store, first) == [Accepted.ABSORBED]
    (answer,) = await store.outbox_after(0, 1)
    await store.delivered(answer, later_ms)
    assert await states_told(database) == (
        "delivered",
        ["received", "answered", "undelivered", "duplicate_absorbed", "delivered"],
    )


async def test_answer_delivered_and_asked_for_in_vain_stays_delivered(database: FlakyDatabase) -> None:
    store = make_store(database)
    first = ask("a")
    await accept(store, first)
    (row,) = await store.next_received(1, ())
    await store.finish(row, Answer(text="Yes."), State.ANSWERED, START_MS)
    (answer,) = await store.outbox_after(0, 1)
    await store.delivered(answer, START_MS)
    await accept(store, first)
    assert await store.give_up_answers(START_MS + 100_000_000) == 1
    assert await states_told(database) == (
        "delivered",
        ["received", "answered", "delivered", "duplicate_absorbed"],
    )
