"""What an operator drops is out of the queue, comes back as it was, and ends explained where nobody brings it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import QUEUE, START_MS, FlakyDatabase, order, request

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Selection, Verb
from mqrouter.core.timeline import Now
from mqrouter.edge.store.checking import check
from mqrouter.edge.store.reading import oldest_pending_ms, open_read_only, page_of
from mqrouter.edge.store.store import Policy, Store

DAY_MS = 86_400_000
DROP, UNDO = Order(Verb.DROP), Order(Verb.UNDO)
LISTS = ("hub>edge",)


async def pending(store: Store, *names: str, ttl_s: int = 7 * 86_400) -> list[str]:
    """Requests of one device each, decided; returns their ids."""
    items = [request(f"{name}?", topic=f"mqrouter/farm/ask/{name}") for name in names]
    await store.accept(items, START_MS)
    for row in await store.next_received(len(names), ()):
        await store.queue_for_tiers(
            row, ("hub", "edge"), route="r", confidence=0.5, decision={"route": "r"}, now_ms=START_MS
        )
        await order(store, row.id, START_MS, Order(Verb.TTL, ttl_ms=1000 * ttl_s))
    return [item.id for item in items]


async def test_dropped_request_is_not_worked_on_and_counts_for_nothing(store: Store, tmp_path: Path) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    first, second = await pending(store, "a", "b")
    assert await order(store, first, START_MS, DROP) is State.PENDING
    assert (store.counts[State.PENDING], store.counts[State.DROPPED]) == (1, 1)
    assert (store.holdings.total.requests, set(store.holdings.devices)) == (1, {"b"})
    assert [row.id for row in await store.claim("hub", LISTS, 9, START_MS)] == [second]
    assert await store.expired(START_MS + 8 * DAY_MS) == []
    with open_read_only(tmp_path / "mqrouter.db") as db:
        (shown,) = page_of(db, Selection(states=("dropped",)), limit=9, now=Now(START_MS)).rows
        assert (shown["id"], shown["dropped_for_s"]) == (first, 86_400.0)
        assert not page_of(db, Selection(states=("received", "pending")), limit=9, now=Now(START_MS)).rows
        assert check(db)["ok"]


async def test_undone_drop_leaves_everything_as_it_was(store: Store, tmp_path: Path) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    first, second = await pending(store, "a", "b")
    with open_read_only(tmp_path / "mqrouter.db") as db:
        before = [tuple(row) for row in db.execute("SELECT * FROM requests ORDER BY seq")]
    await order(store, first, START_MS, DROP)
    assert await order(store, first, START_MS + 1, UNDO) is State.DROPPED
    with open_read_only(tmp_path / "mqrouter.db") as db:
        assert [tuple(row) for row in db.execute("SELECT * FROM requests ORDER BY seq")] == before
        assert oldest_pending_ms(db) == START_MS
    assert [row.id for row in await store.claim("hub", LISTS, 9, START_MS)] == [first, second], "its old place"
    assert store.counts[State.DROPPED] == 0


async def test_dropped_request_that_is_not_brought_back_is_cancelled(store: Store) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    (name,) = await pending(store, "a")
    await order(store, name, START_MS, DROP)
    assert await store.next_due_ms() == START_MS + DAY_MS
    assert await store.end_dropped(START_MS + DAY_MS - 1) == 0
    assert await store.end_dropped(START_MS + DAY_MS) == 1
    (answer,) = await store.outbox_after(0, 9)
    assert (answer.state, answer.reason) == (State.CANCELLED, "cancelled")
    assert b"an operator dropped the request" in answer.message.payload
    assert await order(store, name, START_MS + DAY_MS, UNDO) is State.CANCELLED
    assert (store.counts.total(), await store.end_dropped(START_MS + 9 * DAY_MS)) == (0, 0)


async def test_dropped_request_whose_own_time_is_over_first_is_expired(store: Store) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    (name,) = await pending(store, "a", ttl_s=60)
    await order(store, name, START_MS, DROP)
    assert await store.end_dropped(START_MS + 60_000) == 1
    (answer,) = await store.outbox_after(0, 9)
    assert (answer.state, answer.reason) == (State.EXPIRED, "expired")


async def test_drop_outlives_the_daemon(store: Store, database: FlakyDatabase) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    first, second = await pending(store, "a", "b")
    for name in (first, second):
        await order(store, name, START_MS, DROP)
    again = Store(database, Policy(QUEUE, 1000, 1000))
    await again.recover(START_MS + 1, ("hub",))
    assert (again.counts[State.DROPPED], again.holdings.total.requests, again.todo_lists) == (2, 0, set())
    await order(again, first, START_MS + 2, UNDO)
    assert [row.id for row in await again.claim("hub", list(again.todo_lists), 9, START_MS + 2)] == [first]

    elsewhere = Store(database, Policy(QUEUE, 1000, 1000))
    await elsewhere.recover(START_MS + 3, ("moon",))
    await order(elsewhere, second, START_MS + 4, UNDO)
    assert second in [row.id for row in await elsewhere.next_received(9, ())], "its tiers are gone: decided anew"


async def test_what_is_dropped_while_it_is_decided_stays_dropped(store: Store) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    await store.accept([request()], START_MS)
    (row,) = await store.next_received(1, ())
    await order(store, row.id, START_MS, DROP)
    await store.queue_for_tiers(row, ("hub",), route="r", confidence=0.5, decision={}, now_ms=START_MS)
    assert not await store.finish(row, Answer(text="late"), State.ANSWERED, START_MS)
    assert await store.claim("hub", ["hub"], 9, START_MS) == []
    await order(store, row.id, START_MS, UNDO)
    assert [found.id for found in await store.next_received(1, ())] == [row.id]


async def test_request_at_a_tier_is_not_dropped(store: Store) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    (name,) = await pending(store, "a")
    await store.claim("hub", LISTS, 1, START_MS)
    (outcome,) = await store.carry_out(DROP, [name], target=name, actor="me", now_ms=START_MS)
    assert (outcome.is_changed, outcome.why_not) == (False, "it is leased")


@pytest.mark.parametrize(("share", "why"), [(1.0, "the queue is full"), (0.5, "its device has its share")])
async def test_dropped_request_makes_room_and_comes_back_only_where_there_is_some(
    database: FlakyDatabase, share: float, why: str
) -> None:
    store = Store(database, Policy(QueueLimits(2, QUEUE.max_bytes, WhenFull.REJECT, share), 1000, 1000))
    await store.recover(START_MS, ("hub", "edge"))
    (name,) = await pending(store, "a")
    await order(store, name, START_MS, DROP)
    await pending(store, "a") if share < 1 else await pending(store, "b", "c")
    (outcome,) = await store.carry_out(UNDO, [name], target=name, actor="me", now_ms=START_MS)
    assert not outcome.is_changed
    assert why in str(outcome.why_not)
    for row in await store.claim("hub", LISTS, 1, START_MS):
        await store.finish(row, Answer(text="Yes."), State.ANSWERED, START_MS, lease=row.lease)
    (outcome,) = await store.carry_out(UNDO, [name], target=name, actor="me", now_ms=START_MS)
    assert outcome.is_changed


async def test_question_asked_again_while_it_is_dropped_is_absorbed(store: Store) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    item = request("x?", correlation=b"1")
    await store.accept([item], START_MS)
    await order(store, item.id, START_MS, DROP)
    assert [str(found) for found in await store.accept([item], START_MS)] == ["absorbed"]
    assert (store.counts[State.DROPPED], store.counts[State.RECEIVED]) == (1, 0)


async def test_history_tells_who_dropped_and_who_brought_back(store: Store, database: FlakyDatabase) -> None:
    await store.recover(START_MS, ("hub", "edge"))
    (name,) = await pending(store, "a")
    await order(store, name, START_MS, DROP)
    await order(store, name, START_MS, UNDO)
    rows = await database.read(lambda db: db.execute("SELECT event, note FROM history ORDER BY seq").fetchall())
    assert json.dumps([tuple(row) for row in rows][-2:]) == json.dumps(
        [("dropped", "by me"), ("pending", "brought back by me")]
    )
