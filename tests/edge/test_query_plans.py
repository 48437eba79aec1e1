"""No statement of a request's life reads more of the database than it needs, however much is in it."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import QUEUE, START_MS, FlakyDatabase, cancel, order, refused, request, retry

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.backoff import Backoff
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.spending import Meter, TierLimits, Tokens
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Selection, Sort, Verb
from mqrouter.core.timeline import Now
from mqrouter.edge.store.reading import oldest_pending_ms, open_read_only, page_of, show_request
from mqrouter.edge.store.store import Policy, Store

LATER_MS = START_MS + 10_000_000
AGES: dict[str, Any] = {"older_than_s": 1.0, "newer_than_s": 9.0}
PARTIAL = (
    "requests_received",
    "requests_leased",
    "requests_droppable",
    "requests_partial",
    "requests_waiting",
    "requests_suspect",
    "requests_resting",
    "requests_expiring",
    "requests_dropped",
    "requests_attempted",
    "calls_open",
    "outbox_waiting",
    "outbox_giving_up",
)
"""Indexes that hold nothing but what such a statement is about: reading them from the start is the point."""
EVERY_PENDING = "INDEX requests_by_state (state=?)"  # without a bound that is every row of the state
GIVEN = re.compile(r"SCAN \d+ CONSTANT ROWS|SCAN \(subquery")
"""Rows that are in the statement itself, and what another step has read."""
AT_START = "SCAN requests USING COVERING INDEX requests_held"  # sizes and devices are counted once


class Statements:
    """Every statement a connection runs, once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def plans(self, db: sqlite3.Connection) -> dict[str, str]:
        db.set_trace_callback(None)
        plans = {}
        for statement in self.seen:
            if statement.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                steps = db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                plans[statement] = "; ".join(str(step[3]) for step in steps)
        return plans


BOUNDED = (
    "ORDER BY seq",
    "state = 'leased'",
    "SELECT count(*)",
    "INDEXED BY requests_suspect",
    "FROM packets",
    "FROM paused_routes",
)
"""Parts of statements that read in the order of an index and only as far as wanted, or of few, or once at start."""


def reads_too_much(plan: str) -> bool:
    steps = [step for step in plan.split("; ") if not (step == AT_START or step.endswith(PARTIAL) or GIVEN.match(step))]
    return any(step.startswith("SCAN") or "TEMP B-TREE" in step or EVERY_PENDING in step for step in steps)


async def live(store: Store) -> None:
    """Everything the daemon does to its database."""
    await store.recover(START_MS, ("hub", "edge"), in_hand=[1], has_crashed=True)
    items = [request(f"{name}?", correlation=name.encode(), expiry_s=9) for name in "abcdefg"]
    await store.accept([*items, items[0], request("x?", correlation=b"a"), refused()], START_MS)
    rows = await store.next_received(5, ())
    for row in rows:
        await store.latest_of_session(row, START_MS)
        await store.turns_of_session(row, 9)
        await store.queue_for_tiers(row, ("hub", "edge"), route="r", confidence=0.1, decision={}, now_ms=START_MS)
    assert (await store.count_due(3))["hub>edge"] == 3
    first, second, *others = await store.claim("hub", ["hub>edge"], 4, START_MS)
    for other in others[:1]:
        maybe = Answer(text="Maybe.", tier="edge", is_provisional=True)
        assert await store.answer_provisionally(other, maybe, Waiting(("hub",), ("hub",)), START_MS)
        assert await store.finish(other, Answer(text="Yes."), State.ANSWERED, START_MS)
    if (call := store._accounts.call_of(first, first.lease)) is not None:
        call.used = Tokens(1, 1)
    await store.finish(first, Answer(text="Yes.", judged="{}"), State.ANSWERED, START_MS, lease=first.lease)
    await store.release(
        second, Waiting(("hub", "edge"), ("edge",)), note="x", now_ms=START_MS, is_counted=True, judged="{}"
    )
    await store.restart_rounds("edge", START_MS, Backoff(1.0, 2.0))
    await store.waiting_for("hub>edge", ["r", None])
    await cancel(store, items[2].id, START_MS)
    await retry(store, items[3].id, START_MS)
    for steer in (Order(Verb.MOVE, tier="edge"), Order(Verb.PRIORITY, priority=3), Order(Verb.TTL, ttl_ms=9_000)):
        await order(store, items[4].id, START_MS, steer)
    for steer in (Order(Verb.DROP), Order(Verb.UNDO), Order(Verb.DROP)):
        await order(store, items[4].id, START_MS, steer)
    await store.pause("hub", "me", START_MS)
    await store.resume("hub", "me", START_MS)
    await store.pause_route("r", "me", START_MS)
    assert not await store.claim("hub", ["hub>edge"], 1, START_MS)
    await store.resume_route("r", "me", START_MS)
    for answer in await store.outbox_after(0, 2):
        await store.delivered(answer, START_MS)
    for answer in await store.outbox_after(0, 2):
        await store.not_taken(answer, "x", START_MS + 1, START_MS)
    await store.release_leases(START_MS)
    await store.claim("hub", ["hub>edge"], 1, START_MS)
    await store.recover(START_MS, ("hub", "edge"))
    assert await store.claim("hub", ["hub>edge"], 2, START_MS)
    await store.next_due_ms()
    await store.oldest_ms()
    await store.wake_due(LATER_MS)
    await store.expired(LATER_MS)
    await store.give_up_answers(LATER_MS)
    await store.end_dropped(LATER_MS)
    await store.purge(LATER_MS, LATER_MS)
    await store.forget_packets(10)
    await store.recover(LATER_MS, ("edge",))


@pytest.mark.parametrize("when_full", WhenFull)
async def test_life_of_requests_reads_by_index_only(database: FlakyDatabase, when_full: WhenFull) -> None:
    statements = Statements()
    await database.read(lambda db: db.set_trace_callback(statements.seen.add))
    limits = QueueLimits(6, QUEUE.max_bytes, when_full, 1.0)
    meters = {"hub": Meter(TierLimits(requests_per_minute=100))}
    await live(Store(database, Policy(limits, 1000, 1000, share_window_ms=1000), meters=meters))
    plans = await database.read(statements.plans)
    assert len(plans) > 40
    found = [f"{statement}: {plan}" for statement, plan in plans.items() if reads_too_much(plan)]
    assert [text for text in found if not any(part in text for part in BOUNDED)] == []


@pytest.mark.parametrize("states", [(), ("pending",), ("received", "pending", "leased")])
@pytest.mark.parametrize("route", [None, "r"])
@pytest.mark.parametrize("device", [None, "d1"])
async def test_listing_reads_by_index_only(
    database: FlakyDatabase, tmp_path: Path, states: tuple[str, ...], route: str | None, device: str | None
) -> None:
    await live(Store(database, Policy(QUEUE, 1000, 1000)))
    statements = Statements()
    with open_read_only(tmp_path / "mqrouter.db") as db:
        db.set_trace_callback(statements.seen.add)
        wanted = Selection(states=states, route=route, device=device)
        for more in ({}, {"tier": "hub", "priority": 3, "error": "x", "text": "y"}, AGES):
            for sort in Sort:
                page_of(db, replace(wanted, **more), limit=5, now=Now(START_MS), sort=sort, after=9)
        show_request(db, "nobody", Now(START_MS))
        oldest_pending_ms(db)
        plans = statements.plans(db)
    found = [f"{statement}: {plan}" for statement, plan in plans.items() if reads_too_much(plan)]
    assert [text for text in found if not any(part in text for part in BOUNDED)] == []
