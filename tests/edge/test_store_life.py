"""Whatever the stages do and in whatever order: the store's rows are those of a small model without a database."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from fakes import LIMITS, START_MS, cancel, decoded, incoming, order, retry
from fakes import request as valid
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from life_model import Model, Row

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.backoff import Backoff
from mqrouter.core.decode import decode_question
from mqrouter.core.records import Accepted, OutboxRow, StoredRequest
from mqrouter.core.request import Answer, Refused, Request, refusal
from mqrouter.core.retry import Waiting
from mqrouter.core.states import ACTIVE, OPEN, State, may_move
from mqrouter.core.steering import Order, Verb
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import ErrorCode, StoreError

T = TypeVar("T")

GRACE_MS = 5_000
DEDUPE_MS = 8_000
UNDO_MS = 6_000
MAX_REQUESTS = 6
PER_DEVICE = 4
TIERS = ("hub", "edge")

names = st.sampled_from(["", "a", "b", "c"])
messages = st.builds(
    lambda text, device, name, priority, more: incoming(
        f'{{"question": "{text}", "priority": {priority}}}' if text else "{",
        topic=f"mqrouter/farm/ask/{device}" if device else "mqrouter/farm/ask",
        correlation=name.encode() or None,
        expiry_s=20,
        **more,
    ),
    st.sampled_from(["x?", "x?", "why y?", ""]),
    st.sampled_from(["d1", "d2", "d3", "d1", "d2", "d3", ""]),
    names,
    st.integers(0, 2),
    st.fixed_dictionaries({"mid": st.integers(1, 3), "is_dup": st.booleans(), "qos": st.just(1)}),
)


def facts(*values: Any) -> dict[str, Any]:
    """Names what is known of a request; the times of what is over count for nothing."""
    names = ("id", "state", "reason", "tiers", "todo", "attempts", "rounds", "lease", "crashes", "key")
    *known, finished_at_ms, not_before_ms, answer, answer_due_ms, is_provisional = values
    found = dict(zip(names, known, strict=True)) | {"finished_at_ms": finished_at_ms, "answer": answer}
    found["is_provisional"] = bool(is_provisional)
    if found["state"] in OPEN:
        found["not_before_ms"] = not_before_ms
    if answer == "ready":
        found["answer_due_ms"] = answer_due_ms
    return found


def told(row: Row) -> dict[str, Any]:
    """The same facts, as the model has them."""
    return facts(
        *(row.id, row.state, row.reason, row.tiers, row.todo, row.attempts, row.rounds, row.lease, row.crashes),
        *(row.key, row.finished_at_ms, row.not_before_ms, row.answer, row.answer_due_ms, row.is_provisional),
    )


class StoreLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.now_ms = START_MS
        self.tiers: tuple[str, ...] = TIERS
        self.leased: list[StoredRequest] = []
        """Including leases lost meanwhile: a lane may come back late."""
        self.published: list[OutboxRow] = []
        self.after = 0
        self.asked: list[Any] = []

    @initialize(when_full=st.sampled_from(WhenFull))
    def begin(self, when_full: WhenFull) -> None:
        self.limits = QueueLimits(MAX_REQUESTS, 100_000, when_full, PER_DEVICE / MAX_REQUESTS)
        self.model = Model(MAX_REQUESTS, PER_DEVICE, when_full, GRACE_MS, DEDUPE_MS)
        self.start()

    def start(self) -> None:
        async def start() -> None:
            self.database = await Database(self.folder / "x.db").__aenter__()
            self.store = Store(self.database, Policy(self.limits, GRACE_MS, DEDUPE_MS))
            await self.store.recover(self.now_ms, self.tiers)

        self.run(start())
        self.after = 0

    def teardown(self) -> None:
        self.run(self.database.__aexit__())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.run(self.database.read(lambda db: [tuple(row) for row in db.execute(query)]))

    def drawn_row(self, data: st.DataObject) -> Row | None:
        return data.draw(st.sampled_from(self.model.rows)) if self.model.rows else None

    # --- what the stages do -----------------------------------------------------------------------

    @rule(batch=st.lists(messages, max_size=4), limited=st.booleans())
    def accept(self, batch: list[Any], limited: bool) -> None:
        self.asked = [*self.asked, *batch][-4:]
        items = [self.item(message, limited) for message in batch]
        self.accepted(items, self.run(self.store.accept(items, self.now_ms)))

    def accepted(self, items: list[Request | Refused], results: list[Accepted]) -> None:
        dropped = (
            "SELECT id FROM history JOIN requests ON requests.seq = request"
            " WHERE event = 'answered' AND detail LIKE 'dropped to make room%' ORDER BY history.seq"
        )
        self.model.dropped = [request_id for (request_id,) in self.rows(dropped)]
        assert results == [self.model.accept(item, self.now_ms) for item in items]

    def item(self, message: Any, limited: bool) -> Request | Refused:
        """As the intake hands it over: a limit may stand against a valid request."""
        item = decoded(message, now_ms=self.now_ms)
        if limited and isinstance(item, Request):
            return refusal(item, ErrorCode.RATE_LIMITED, "too many")
        return item

    @rule(message=messages.filter(lambda message: b"?" in message.payload), tier=st.sampled_from(TIERS))
    def reach_a_tier(self, message: Any, tier: str) -> None:
        """The usual way at one go: most of what can go wrong goes wrong after it."""
        self.accept(batch=[message], limited=False)
        self.decide(tiers=tier, limit=3, is_refused=False)
        self.claim(tier=tier, limit=3)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), limited=st.booleans())
    def ask_again(self, data: st.DataObject, limited: bool) -> None:
        self.accept(batch=[data.draw(st.sampled_from(self.asked))], limited=limited)

    @rule(batch=st.lists(messages, min_size=1, max_size=3))
    def accept_on_a_full_disk(self, batch: list[Any]) -> None:
        items = [self.item(message, False) for message in batch]
        with self.full_disk():
            try:
                results = self.run(self.store.accept(items, self.now_ms))
            except StoreError:
                return  # and nothing has changed
        self.accepted(items, results)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        def limit(db: sqlite3.Connection) -> int:
            before: int = db.execute("PRAGMA max_page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
            return before

        before = self.run(self.database.read(limit))
        try:
            yield
        finally:
            self.run(self.database.read(lambda db: db.execute(f"PRAGMA max_page_count = {before}").fetchone()))

    @rule(tiers=st.sampled_from(["hub", "hub>edge", "edge"]), limit=st.integers(1, 3), is_refused=st.booleans())
    def decide(self, tiers: str, limit: int, is_refused: bool) -> None:
        found = self.run(self.store.next_received(limit, ()))
        waiting = [row for row in self.model.rows if row.state is State.RECEIVED]
        assert len(found) == min(limit, len(waiting))
        urgent = sorted((row.priority for row in waiting), reverse=True)
        assert [self.model.row(request.id).priority for request in found] == urgent[:limit]
        for request in found:
            if is_refused:
                self.end(request, State.ANSWERED, ErrorCode.NO_ROUTE)
                continue
            todo = tuple(tiers.split(">"))
            self.run(
                self.store.queue_for_tiers(request, todo, route="r", confidence=0.1, decision={}, now_ms=self.now_ms)
            )
            self.model.queue(self.model.row(request.id), tiers)

    def end(self, request: StoredRequest, state: State, code: ErrorCode) -> None:
        assert self.run(self.store.finish(request, Answer(error=code), state, self.now_ms))
        self.model.finish(self.model.row(request.id), state, self.now_ms, reason=code)

    @rule(tier=st.sampled_from(TIERS), limit=st.integers(1, 3))
    def claim(self, tier: str, limit: int) -> None:
        lists = [todo for todo in self.store.todo_lists if todo.startswith(tier)]
        found = self.run(self.store.claim(tier, lists, limit, self.now_ms))
        for request in found:
            assert decode_question(request.payload, request.content_type, request.reply.client_id, LIMITS).text
        self.model.claim(tier, limit, [self.model.row(request.id) for request in found], self.now_ms)
        assert all(request.lease == self.model.row(request.id).lease for request in found)
        self.leased += found

    def holder(self, data: st.DataObject) -> tuple[StoredRequest, Row | None]:
        """Returns a lease, and its row where it is still held."""
        request = data.draw(st.sampled_from(self.leased))
        return request, self.held_row(request)

    def held_row(self, request: StoredRequest) -> Row | None:
        held = (row for row in self.model.rows if row.id == request.id and row.state is State.LEASED)
        return next((row for row in held if row.lease == request.lease), None)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), wait_ms=st.none() | st.integers(0, 3_000), is_counted=st.booleans())
    def release(self, data: st.DataObject, wait_ms: int | None, is_counted: bool) -> None:
        request, row = self.holder(data)
        waiting = Waiting(request.tiers, request.tiers if wait_ms is not None else request.todo[-1:])
        not_before_ms = None if wait_ms is None else self.now_ms + wait_ms
        done = self.run(
            self.store.release(
                request,
                waiting,
                note="x",
                now_ms=self.now_ms,
                is_counted=is_counted,
                not_before_ms=not_before_ms,
            )
        )
        assert done is (row is not None)
        if row is not None:
            tiers, todo = ">".join(waiting.tiers), ">".join(waiting.todo)
            self.model.release(row, tiers, todo, not_before_ms, is_counted=is_counted)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def answer_provisionally(self, data: st.DataObject) -> None:
        request, row = self.holder(data)
        answer = Answer(text="Maybe.", tier="edge", is_provisional=True)
        done = self.run(self.store.answer_provisionally(request, answer, Waiting(("hub",), ("hub",)), self.now_ms))
        assert done is (row is not None)
        if row is not None:
            self.model.answer_provisionally(row, "hub", self.now_ms)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), state=st.sampled_from([State.ANSWERED, State.ANSWERED, State.EXPIRED]))
    def finish(self, data: st.DataObject, state: State) -> None:
        self.finish_under(data.draw(st.sampled_from(self.leased)), state)

    def finish_under(self, request: StoredRequest, state: State) -> None:
        row = self.held_row(request)
        answer = Answer(text="Yes.", tier="hub") if state is State.ANSWERED else Answer(error=ErrorCode.EXPIRED)
        done = self.run(self.store.finish(request, answer, state, self.now_ms, lease=request.lease))
        assert done is (row is not None), "the late answer of a lost lease counted"
        if row is not None:
            self.model.finish(row, state, self.now_ms, reason=answer.error)

    @precondition(lambda self: self.leased)
    @rule(is_ordered=st.booleans())
    def come_back_late(self, is_ordered: bool) -> None:
        """The daemon restarts, another attempt has the request, and then the answer of the first one is there."""
        lost = self.leased[-1]
        self.restart(is_ordered=is_ordered, tiers=TIERS)
        for tier in TIERS:
            self.claim(tier=tier, limit=3)
        self.finish_under(lost, State.ANSWERED)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row = self.drawn_row(data)
        found = self.run(cancel(self.store, row.id if row else "nobody", self.now_ms))
        assert found == (row and row.state)
        if row and row.state in OPEN:
            self.model.finish(row, State.CANCELLED, self.now_ms, reason=ErrorCode.CANCELLED)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        row = self.drawn_row(data)
        found = self.run(retry(self.store, row.id if row else "nobody", self.now_ms))
        assert found == (row and row.state)
        if row and row.state is State.PENDING:
            self.model.retry(row)

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        row = self.drawn_row(data)
        steer = Order(Verb.DROP, undo_ms=UNDO_MS)
        assert self.run(order(self.store, row.id if row else "nobody", self.now_ms, steer)) == (row and row.state)
        if row and row.is_waiting:
            self.model.drop(row, self.now_ms, UNDO_MS)

    @rule()
    def pause_or_resume_the_route(self) -> None:
        steer = self.store.resume_route if self.model.is_route_paused else self.store.pause_route
        self.run(steer("r", "me", self.now_ms))
        self.model.is_route_paused = not self.model.is_route_paused
        assert set(self.store.paused_routes) == ({"r"} if self.model.is_route_paused else set())

    @precondition(lambda self: any(row.state is State.DROPPED for row in self.model.rows))
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        dropped = [row for row in self.model.rows if row.state is State.DROPPED]
        row = data.draw(st.sampled_from(dropped))
        undo = Order(Verb.UNDO)
        work = self.store.carry_out(undo, [row.id], target="x", actor="me", now_ms=self.now_ms)
        (outcome,) = self.run(work)
        assert outcome.is_changed is self.model.undo(row, self.tiers), outcome

    @rule(limit=st.integers(1, 3))
    def publish(self, limit: int) -> None:
        ready = list(self.model.ready_to_send())
        found = self.run(self.store.outbox_after(self.after, limit))
        assert len(found) == min(limit, len(ready)), "an answer lies behind the cursor, or goes out twice"
        for row in found:
            known = self.model.row(row.request_id)
            assert known in ready
            known.is_sent, self.after = True, row.seq
        self.published += found

    @precondition(lambda self: self.published)
    @rule(data=st.data(), is_taken=st.booleans())
    def acknowledge(self, data: st.DataObject, is_taken: bool) -> None:
        self.acknowledge_one(data.draw(st.sampled_from(self.published)), is_taken)

    @rule()
    def find_nobody(self) -> None:
        self.publish(limit=3)
        for row in tuple(self.published):
            self.acknowledge_one(row, False)

    def acknowledge_one(self, row: OutboxRow, is_taken: bool) -> None:
        self.published.remove(row)
        known = next((known for known in self.model.rows if known.id == row.request_id), None)
        if is_taken:
            self.run(self.store.delivered(row, self.now_ms))
        else:
            self.run(self.store.not_taken(row, "no_subscriber", self.now_ms + 1_000, self.now_ms))
        if known and is_taken:
            self.model.delivered(known, self.now_ms, is_provisional=row.is_provisional)
        elif known:
            self.model.not_taken(known, self.now_ms + 1_000, is_provisional=row.is_provisional)

    @rule(seconds=st.integers(0, 8))
    def upkeep(self, seconds: int) -> None:
        self.now_ms += 1000 * seconds
        self.run(self.store.wake_due(self.now_ms))
        self.run(self.store.give_up_answers(self.now_ms))
        self.run(self.store.end_dropped(self.now_ms))
        for row in self.run(self.store.expired(self.now_ms)):
            answer = Answer(error=ErrorCode.EXPIRED)
            assert self.run(self.store.finish(row, answer, State.EXPIRED, self.now_ms))
        self.model.upkeep(self.now_ms)
        due_ms = self.run(self.store.next_due_ms())
        assert due_ms is None or due_ms > self.now_ms

    @precondition(lambda self: self.store.partial_lists)
    @rule(data=st.data())
    def restart_rounds(self, data: st.DataObject) -> None:
        todo = data.draw(st.sampled_from(sorted(self.store.partial_lists)))
        self.run(self.store.restart_rounds(todo, self.now_ms, Backoff(min_s=1.0, max_s=1.0)))
        self.model.restart_rounds(todo, self.now_ms, 1000)

    @rule(finished_s=st.sampled_from([0, 3, 100]), refused_s=st.sampled_from([0, 3, 100]))
    def purge(self, finished_s: int, refused_s: int) -> None:
        finished_ms, refused_ms = self.now_ms - 1000 * finished_s, self.now_ms - 1000 * refused_s
        self.run(self.store.purge(finished_ms, refused_ms))
        self.model.purge(
            finished_ms, refused_ms, {request_id for (request_id,) in self.rows("SELECT id FROM requests")}
        )

    @rule()
    def reconnect(self) -> None:
        """The broker kept the session: nobody acknowledges what was in flight any more."""
        self.published, self.after = [], 0
        for row in self.model.rows:
            row.is_sent = False

    @rule()
    def reconnect_to_a_new_session(self) -> None:
        self.reconnect()
        self.run(self.store.forget_packets(0))
        self.model.packets.clear()

    @rule(is_ordered=st.booleans(), tiers=st.sampled_from([TIERS, TIERS, ("hub",), ("edge",)]))
    def restart(self, is_ordered: bool, tiers: tuple[str, ...]) -> None:
        if is_ordered:
            self.run(self.store.release_leases(self.now_ms))
            self.model.stop()
        self.run(self.database.__aexit__())
        self.published, self.tiers = [], tiers
        self.model.crash(self.now_ms)
        self.model.start(tiers)
        self.start()

    # --- what holds at every moment ---------------------------------------------------------------

    @invariant()
    def rows_are_those_of_the_model(self) -> None:
        query = (
            "SELECT id, requests.state, reason, tiers, todo, attempts, rounds, lease, crashes, dedupe_key,"
            " finished_at_ms, requests.not_before_ms, o.state, o.not_before_ms, o.is_provisional"
            " FROM requests LEFT JOIN outbox o ON o.request = requests.seq ORDER BY requests.seq"
        )
        assert [facts(*values) for values in self.rows(query)] == [told(row) for row in self.model.rows]

    @invariant()
    def counts_are_those_of_the_table(self) -> None:
        found = Counter(row.state for row in self.model.rows)
        assert {state: self.store.counts[state] for state in OPEN} == {state: found[state] for state in OPEN}

    @invariant()
    def sizes_are_those_of_the_table(self) -> None:
        found = dict.fromkeys(ACTIVE, 0) | {
            State(state): size
            for state, size in self.rows("SELECT state, sum(length(payload)) FROM requests GROUP BY state")
            if state in ACTIVE
        }
        assert {state: self.store.holdings.sizes[state] for state in self.store.holdings.sizes.keys() | ACTIVE} == found
        assert self.store.holdings.total.bytes == sum(found.values())

    @invariant()
    def answers_not_taken_are_those_of_the_table(self) -> None:
        assert self.store.holdings.answers == sum(row.answer == "ready" for row in self.model.rows)

    @invariant()
    def queue_keeps_to_its_limits(self) -> None:
        active = Counter(row.device for row in self.model.active())
        assert active.total() <= MAX_REQUESTS
        assert all(number <= PER_DEVICE for number in active.values())

    @invariant()
    def history_tells_legal_moves_up_to_the_present_state(self) -> None:
        events: dict[str, list[State]] = {row.id: [] for row in self.model.rows}
        query = "SELECT id, event FROM history JOIN requests ON requests.seq = request ORDER BY history.seq"
        for request_id, event in self.rows(query):
            if event in set(State):
                events[request_id].append(State(event))
        for row in self.model.rows:
            moves = events[row.id]
            assert moves[0] in (State.RECEIVED, State.DEAD)
            ends = [move for move in moves if move not in OPEN and move not in (State.DELIVERED, State.UNDELIVERED)]
            assert len(ends) == (0 if row.state in OPEN else 1), "more than one end, or none"
            path = moves[: moves.index(ends[0]) + 1] if ends else moves
            assert all(may_move(old, new) for old, new in pairwise(path)), path
            if row.state in OPEN:
                assert moves[-1] == row.state

    @invariant()
    def every_pending_row_is_on_a_list_the_lanes_ask_for(self) -> None:
        found = {row.todo for row in self.model.rows if row.state is State.PENDING}
        assert found <= set(self.store.todo_lists)


async def test_late_answer_of_a_purged_request_is_not_taken_for_another_ones(store: Store) -> None:
    """SQLite alone gives the number of the newest row out again, once that row is deleted."""

    async def claimed(number: int) -> StoredRequest:
        await store.accept([valid(f"question {number}?", mid=number)], START_MS)
        (found,) = await store.next_received(1, ())
        await store.queue_for_tiers(found, TIERS, route="r", confidence=0.1, decision={}, now_ms=START_MS)
        (lease,) = await store.claim("hub", ["hub>edge"], 1, START_MS)
        return lease

    first = await claimed(1)
    await cancel(store, first.id, START_MS)
    (answer,) = await store.outbox_after(0, 1)
    await store.delivered(answer, START_MS)
    await store.purge(START_MS + 1, START_MS + 1)
    second = await claimed(2)
    late = Answer(text="of the first", tier="hub")
    assert not await store.finish(first, late, State.ANSWERED, START_MS, lease=first.lease)
    assert not await store.release(first, Waiting(TIERS, TIERS), note="x", now_ms=START_MS, is_counted=True)
    assert await store.finish(second, Answer(text="its own"), State.ANSWERED, START_MS, lease=second.lease)


async def test_redelivery_under_an_old_number_with_another_correlation_is_a_new_question(store: Store) -> None:
    """Packet identifiers come round again; the broker marks a packet as redelivered that we have never seen."""
    first, second = (valid("frost?", mid=7, is_dup=n > 0, correlation=b"c%d" % n) for n in range(2))
    assert await store.accept([first], START_MS) == [Accepted.NEW]
    assert await store.accept([second], START_MS) == [Accepted.NEW]


StoreLife.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestStoreLife = StoreLife.TestCase
