"""A provisional answer in the database: sound to the checks, and after damage no end of its request."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes import QUEUE, START_MS, FlakyDatabase, refused, request

from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.core.timeline import Now
from mqrouter.edge.store.checking import check
from mqrouter.edge.store.reading import open_read_only, show_request
from mqrouter.edge.store.salvage import salvage
from mqrouter.edge.store.store import Policy, Store

HUB = Waiting(("hub",), ("hub",))
MAYBE = Answer(text="Maybe.", tier="edge", is_provisional=True)


async def provisional(store: Store) -> str:
    """A request with a provisional answer, pending again; returns its id."""
    item = request('{"question": "a", "id": "q"}')
    await store.accept([item], START_MS)
    (row,) = await store.next_received(1, ())
    await store.queue_for_tiers(row, ("hub", "edge"), route="r", confidence=0.1, decision={}, now_ms=START_MS)
    (lease,) = await store.claim("edge", ["hub>edge"], 1, START_MS)
    assert await store.answer_provisionally(lease, MAYBE, HUB, START_MS)
    return item.id


async def test_it_is_no_contradiction_and_is_shown_as_what_it_is(store: Store, tmp_path: Path) -> None:
    request_id = await provisional(store)
    with open_read_only(tmp_path / "mqrouter.db") as db:
        assert check(db)["problems"] == []
    with open_read_only(tmp_path / "mqrouter.db") as db:
        shown = show_request(db, request_id, Now(START_MS))
    assert shown is not None
    assert (shown["state"], shown["answer_is_provisional"]) == ("pending", True)


async def test_late_provisional_answer_of_a_lost_lease_is_not_written(store: Store, database: FlakyDatabase) -> None:
    await store.accept([request('{"question": "a"}')], START_MS)
    (row,) = await store.next_received(1, ())
    await store.queue_for_tiers(row, ("edge",), route="r", confidence=0.1, decision={}, now_ms=START_MS)
    (lost,) = await store.claim("edge", ["edge"], 1, START_MS)
    await store.release_leases(START_MS)
    await store.claim("edge", ["edge"], 1, START_MS)
    assert not await store.answer_provisionally(lost, MAYBE, HUB, START_MS)
    assert await store.outbox_after(0, 9) == []


async def test_first_of_two_provisional_answers_stays(store: Store) -> None:
    await provisional(store)
    (first,) = await store.outbox_after(0, 9)
    (lease,) = await store.claim("hub", ["hub"], 1, START_MS)
    other = Answer(text="Otherwise.", tier="edge", is_provisional=True)
    assert await store.answer_provisionally(lease, other, HUB, START_MS)
    assert await store.outbox_after(0, 9) == [first]
    assert store.counts[State.PENDING] == 1


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_request_with_one_has_one_answer_that_waits_to_be_taken(store: Store, is_delivered: bool) -> None:
    await provisional(store)
    assert store.holdings.answers == 1
    if is_delivered:
        (row,) = await store.outbox_after(0, 9)
        for _ in range(2):  # the second time it is done
            await store.delivered(row, START_MS)
        assert store.holdings.answers == 0
    (lease,) = await store.claim("hub", ["hub"], 1, START_MS)
    await store.finish(lease, Answer(text="Yes.", tier="hub"), State.ANSWERED, START_MS, lease=lease.lease)
    assert store.holdings.answers == 1


async def test_it_survives_a_restart_and_the_request_goes_on(store: Store) -> None:
    await provisional(store)
    await store.recover(START_MS, ("hub", "edge"))
    assert [row.is_provisional for row in await store.outbox_after(0, 9)] == [True]
    assert len(await store.claim("hub", ["hub"], 1, START_MS)) == 1


async def test_salvage_keeps_its_request_open(store: Store, database: FlakyDatabase, tmp_path: Path) -> None:
    await provisional(store)
    result = salvage(tmp_path / "mqrouter.db", tmp_path / "new.db", reason="test", now_ms=START_MS)
    assert (result.requests, result.answers, result.error) == (1, 1, None)
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        assert db.execute("SELECT state FROM requests").fetchall() == [("pending",)]
        assert db.execute("SELECT is_provisional FROM outbox").fetchall() == [(1,)]


async def test_salvage_asks_again_where_only_the_provisional_one_is_left(
    store: Store, database: FlakyDatabase, tmp_path: Path
) -> None:
    await provisional(store)
    await database.write(lambda db: db.execute("UPDATE requests SET state = 'answered'"))
    result = salvage(tmp_path / "mqrouter.db", tmp_path / "new.db", reason="test", now_ms=START_MS)
    assert result.asked_again == 1
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        assert db.execute("SELECT state FROM requests").fetchall() == [("received",)]


@pytest.mark.parametrize("is_recovered", [True, False])
async def test_better_answer_comes_after_what_a_new_life_has_published(
    store: Store, database: FlakyDatabase, is_recovered: bool
) -> None:
    """SQLite alone would give it the number of the provisional one, which the deliverer is past."""
    await provisional(store)
    new_life = Store(database, Policy(QUEUE, 1000, 1000))
    if is_recovered:
        await new_life.recover(START_MS, ("hub", "edge"))
    (first,) = await new_life.outbox_after(0, 9)
    claiming = new_life if is_recovered else store
    (lease,) = await claiming.claim("hub", ["hub"], 1, START_MS)
    assert await new_life.finish(lease, Answer(text="Surely."), State.ANSWERED, START_MS, lease=lease.lease)
    (last,) = await new_life.outbox_after(first.seq, 9)
    assert b"Surely." in last.message.payload


async def test_answer_after_a_purge_comes_after_what_a_new_life_has_published(
    store: Store, database: FlakyDatabase
) -> None:
    await store.accept([refused(b"\xff")], START_MS)
    new_life = Store(database, Policy(QUEUE, 1000, 1000))
    await new_life.recover(START_MS, ("hub",))
    (first,) = await new_life.outbox_after(0, 9)
    await new_life.delivered(first, START_MS)
    assert await new_life.purge(START_MS + 1, START_MS + 1) == 1
    await new_life.accept([refused(b"\xfe")], START_MS)
    assert len(await new_life.outbox_after(first.seq, 9)) == 1
