"""Whatever the stages do and in whatever order: states move as declared, counts add up, one answer each."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from fakes import LIMITS, START_MS, refused, request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mqrouter.core.decode import decode_question
from mqrouter.core.records import OutboxRow, StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import ACTIVE, State, may_move
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import ErrorCode

GRACE_MS = 5_000
DEDUPE_MS = 3_600_000
TIERS = ("hub", "edge")


class StoreLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.now_ms = START_MS
        self.leased: list[StoredRequest] = []
        """Including leases lost meanwhile: a lane may come back late."""
        self.published: list[OutboxRow] = []
        self.after = 0
        self.known: dict[int, str] = {}
        self.start()

    def start(self) -> None:
        async def start() -> None:
            self.database = await Database(self.folder / "x.db").__aenter__()
            self.store = Store(self.database, Policy(GRACE_MS, DEDUPE_MS))
            await self.store.recover(self.now_ms, TIERS)

        self.runner.run(start())
        self.after = 0

    def teardown(self) -> None:
        self.runner.run(self.database.__aexit__())
        self.runner.close()
        shutil.rmtree(self.folder)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.runner.run(self.database.read(lambda db: [tuple(row) for row in db.execute(query)]))

    # --- what the stages do -----------------------------------------------------------------------

    @rule(names=st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=4), text=st.sampled_from(["x?", "y?", ""]))
    def accept(self, names: list[str], text: str) -> None:
        make = request if text else refused
        items = [make(text, correlation=name.encode() or None, expiry_s=20, now_ms=self.now_ms) for name in names]
        results = self.runner.run(self.store.accept(items, self.now_ms))
        assert len(results) == len(items)

    @rule(tiers=st.sampled_from([("hub",), ("hub", "edge"), ("edge",)]))
    def queue(self, tiers: tuple[str, ...]) -> None:
        for row in self.runner.run(self.store.next_received(2, ())):
            self.runner.run(
                self.store.queue_for_tiers(row, tiers, route="r", confidence=0.1, decision={}, now_ms=self.now_ms)
            )

    @rule(tier=st.sampled_from(TIERS), limit=st.integers(1, 3))
    def claim(self, tier: str, limit: int) -> None:
        lists = [todo for todo in self.store.todo_lists if todo.startswith(tier)]
        found = self.runner.run(self.store.claim(tier, lists, limit, self.now_ms))
        assert all(row.todo[0] == tier and row.expires_at_ms > self.now_ms for row in found)
        for row in found:
            assert decode_question(row.payload, row.content_type, row.reply.client_id, LIMITS).text
        self.leased += found

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), wait_ms=st.none() | st.integers(0, 3_000), is_counted=st.booleans())
    def release(self, data: st.DataObject, wait_ms: int | None, is_counted: bool) -> None:
        row = data.draw(st.sampled_from(self.leased))
        self.runner.run(
            self.store.release(
                row,
                Waiting(row.tiers, row.tiers if wait_ms is not None else row.todo[-1:]),
                note="x",
                now_ms=self.now_ms,
                is_counted=is_counted,
                not_before_ms=None if wait_ms is None else self.now_ms + wait_ms,
            )
        )

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.leased))
        held = (row.seq, "leased", row.lease) in self.rows("SELECT seq, state, lease FROM requests")
        answer = Answer(text="Yes.", tier="hub")
        done = self.runner.run(self.store.finish(row, answer, State.ANSWERED, self.now_ms, lease=row.lease))
        assert done is held

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ids = [request_id for (request_id,) in self.rows("SELECT id FROM requests")]
        if ids:
            chosen = data.draw(st.sampled_from(ids))
            self.runner.run(self.store.cancel(chosen, Answer(error=ErrorCode.CANCELLED), self.now_ms))

    @rule()
    def publish(self) -> None:
        found = self.runner.run(self.store.outbox_after(self.after, 3))
        if found:
            self.after = found[-1].seq
            self.published += found
        elif not self.published:
            waiting = self.rows("SELECT count(*) FROM outbox WHERE state = 'ready' AND not_before_ms IS NULL")
            assert waiting == [(0,)]  # nothing in flight: no answer may lie behind the cursor

    @precondition(lambda self: self.published)
    @rule(data=st.data(), is_taken=st.booleans())
    def acknowledge(self, data: st.DataObject, is_taken: bool) -> None:
        row = data.draw(st.sampled_from(self.published))
        self.published.remove(row)
        if is_taken:
            self.runner.run(self.store.delivered(row, self.now_ms))
        else:
            self.runner.run(self.store.not_taken(row, "no_subscriber", self.now_ms + 1_000, self.now_ms))

    @rule(seconds=st.integers(0, 8))
    def upkeep(self, seconds: int) -> None:
        self.now_ms += 1000 * seconds
        self.runner.run(self.store.wake_due(self.now_ms))
        self.runner.run(self.store.give_up_answers(self.now_ms))
        for row in self.runner.run(self.store.expired(self.now_ms)):
            answer = Answer(error=ErrorCode.EXPIRED)
            assert self.runner.run(self.store.finish(row, answer, State.EXPIRED, self.now_ms))
        due_ms = self.runner.run(self.store.next_due_ms())
        assert due_ms is None or due_ms > self.now_ms

    @rule()
    def purge(self) -> None:
        self.runner.run(self.store.purge(self.now_ms, 0))

    @rule(is_ordered=st.booleans())
    def restart(self, is_ordered: bool) -> None:
        if is_ordered:
            self.runner.run(self.store.release_leases(self.now_ms))
        self.runner.run(self.database.__aexit__())
        self.published = []
        self.start()

    # --- what holds at every moment ---------------------------------------------------------------

    @invariant()
    def counts_are_those_of_the_table(self) -> None:
        found = dict(self.rows("SELECT state, count(*) FROM requests GROUP BY state"))
        assert {state: self.store.counts[state] for state in ACTIVE} == {state: found.get(state, 0) for state in ACTIVE}

    @invariant()
    def states_move_as_declared(self) -> None:
        found = dict(self.rows("SELECT seq, state FROM requests"))
        for seq, state in found.items():
            old = self.known.get(seq)
            assert old is None or old == state or may_move(State(old), State(state)), (old, state)
        for seq in self.known.keys() - found.keys():
            assert State(self.known[seq]) not in ACTIVE | {State.ANSWERED}
        self.known = found

    @invariant()
    def ended_requests_have_one_answer_and_open_ones_none(self) -> None:
        answers = Counter(seq for (seq,) in self.rows("SELECT request FROM outbox"))
        for seq, state, topic in self.rows("SELECT seq, state, reply_topic FROM requests"):
            assert answers[seq] == (0 if state in ACTIVE or topic is None else 1), (state, answers[seq])

    @invariant()
    def every_pending_row_is_on_a_list_the_lanes_ask_for(self) -> None:
        found = {todo for (todo,) in self.rows("SELECT DISTINCT todo FROM requests WHERE state = 'pending'")}
        assert found <= set(self.store.todo_lists)


StoreLife.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestStoreLife = StoreLife.TestCase
