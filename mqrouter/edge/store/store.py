"""What the stages do to the database, one method each; every method is one transaction or one read."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mqrouter.core.admission import Ended, Holdings, Moves, QueueLimits
from mqrouter.core.backoff import Backoff
from mqrouter.core.feedback import Feedback
from mqrouter.core.records import Accepted, OutboxRow, PastTurn, Pause, Seq, StoredRequest, join_tiers, split_tiers
from mqrouter.core.request import Answer, JsonObject, Refused, Request, RequestId
from mqrouter.core.retry import Waiting
from mqrouter.core.spending import Call, Meter
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Outcome, Verb
from mqrouter.core.timeline import Anchor
from mqrouter.edge.store import (
    acceptance,
    backlog,
    conversation,
    dropping,
    endings,
    feedback,
    leases,
    orders,
    outbox,
    provisional,
    sharing,
    steering,
    timeline,
)
from mqrouter.edge.store.acceptance import Acceptance
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.leases import Recovery
from mqrouter.edge.store.lines import Lines, lines_of
from mqrouter.edge.store.spending import Accounts
from mqrouter.errors import ErrorCode, StoreError
from mqrouter.routing.session import Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is held, and how long, in milliseconds."""

    queue: QueueLimits
    answer_grace_ms: int
    """An answer is offered at least this long, even where its request has expired."""
    dedupe_window_ms: int
    """A finished request is answered from its row this long; after that the same id is another question's."""
    share_window_ms: int | None = None
    """An answer also ends the waiting requests that ask the same and came in so close to its own; None: never."""


class Store:
    """Every change is on disk when its method returns, and in `holdings` and `meters` at the same moment."""

    def __init__(self, database: Database, policy: Policy, *, meters: Mapping[str, Meter] | None = None) -> None:
        self._database = database
        self._outbox = outbox.Outbox(policy.answer_grace_ms)
        self._share_window_ms = policy.share_window_ms
        self._limits = policy.queue
        self._tiers: frozenset[str] = frozenset()
        self._acceptance = Acceptance(self._outbox, policy.queue, policy.dedupe_window_ms)
        self.holdings = Holdings()
        self._accounts = Accounts(meters or {})
        self._has_suspects = False
        self.undelivered = 0
        """Answers given up since the start."""
        self._lines = Lines()
        self.paused_routes: dict[str, Pause] = {}
        """Nobody works on their questions, which wait."""
        self.brought_back = 0
        """Dropped requests that were brought back since the start."""

    @property
    def todo_lists(self) -> set[str]:
        """Every tier list a pending row may carry: what the lanes ask for."""
        return self._lines.todo_lists

    @property
    def partial_lists(self) -> set[str]:
        """Those among them that rows in the middle of a round carry."""
        return self._lines.partial_lists

    @property
    def counts(self) -> Counter[str]:
        """The number of requests in each state without a terminal answer."""
        return self.holdings.counts

    @property
    def dropped(self) -> int:
        return self.holdings.dropped

    async def _move(
        self, change: Callable[[sqlite3.Connection, Moves], T], committed: Callable[[], object] = lambda: None
    ) -> T:
        """Runs a change that moves requests between states, and counts the moves once they are on disk."""
        moved = Moves(self.holdings)

        def write(db: sqlite3.Connection) -> T:
            moved.clear()  # a batch that failed is run again
            return change(db, moved)

        def apply() -> None:
            self.holdings.apply(moved)
            committed()

        return await self._database.write(write, committed=apply)

    # --- start and stop -----------------------------------------------------------------------------

    async def recover(
        self, now_ms: int, tiers: Collection[str], *, in_hand: Collection[Seq] = (), has_crashed: bool = True
    ) -> Recovery:
        """Makes every lease of an earlier life void, buries rows that killed it too often, counts what is there.

        `in_hand` are rows that were being decided when the process crashed (`has_crashed`: not the whole machine).
        Rows that wait for none of the configured `tiers` are decided again.
        """
        await self._database.read(self._outbox.pass_over_all)
        self._tiers = frozenset(tiers)
        recovery = await self._database.write(lambda db: leases.recover(db, self._outbox, now_ms, in_hand, has_crashed))
        await self._database.write(lambda db: self._accounts.recover(db, now_ms))
        await self._database.read(lambda db: self._accounts.load(db, now_ms))
        self._has_suspects = await self._database.read(leases.has_suspects)
        self._lines = await self._database.read(lines_of)
        lost = [todo for todo in self.todo_lists if not set(split_tiers(todo)) & set(tiers)]
        if lost:
            await self._database.write(lambda db: backlog.decide_again(db, lost, now_ms))
            self._lines = await self._database.read(lines_of)
        self.holdings = await self._database.read(backlog.inventory)
        self.holdings.answers = await self._database.read(outbox.count_ready)
        self.paused_routes = await self._database.read(steering.paused_routes)
        self.holdings.ended[Ended.of(ErrorCode.INTERNAL)] += recovery.dead
        return recovery

    async def anchor(self) -> tuple[Anchor | None, int]:
        """Returns where the gateway's time stood last, and the latest moment anything happened at."""
        return await self._database.read(timeline.read)

    async def set_anchor(self, anchor: Anchor) -> None:
        await self._database.write(lambda db: timeline.write(db, anchor))

    async def release_leases(self, now_ms: int) -> int:
        """Gives every lease back at an ordered stop, when no attempt is running any more."""
        return await self._move(lambda db, moved: leases.release_all(db, moved, now_ms))

    # --- accept and decide --------------------------------------------------------------------------

    async def accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]:
        """Writes everything that came in, in one transaction; returns what became of each, in order."""
        return await self._move(lambda db, moved: self._acceptance.accept(db, moved, items, now_ms))

    async def next_received(self, limit: int, busy: Collection[Seq]) -> list[StoredRequest]:
        """Returns undecided requests, most urgent first, less those already `busy`."""
        left_out = tuple(busy)  # as it is now: the loop goes on
        return await self._database.read(lambda db: backlog.received(db, limit, left_out))

    async def queue_for_tiers(
        self,
        request: StoredRequest,
        tiers: tuple[str, ...],
        *,
        route: str | None,
        confidence: float,
        decision: JsonObject,
        now_ms: int,
    ) -> None:
        """The request is pending: any of `tiers`, in this order, may take it."""
        joined = join_tiers(tiers)
        self._lines.add(joined, route)

        def queue(db: sqlite3.Connection, moved: Moves) -> None:
            backlog.queue(
                db, moved, request, joined, route=route, confidence=confidence, decision=decision, now_ms=now_ms
            )
            if self._share_window_ms is not None:
                sharing.mark(db, request, route, decision)

        await self._move(queue)

    async def latest_of_session(self, request: StoredRequest, not_before_ms: int) -> Session | None:
        """Returns the request before this one in its session that took a route; None where it is older than that."""
        return await self._database.read(lambda db: backlog.latest_of_session(db, request, not_before_ms))

    async def turns_of_session(self, request: StoredRequest, limit: int) -> list[PastTurn]:
        """Returns the latest requests of this one's device and session before it, the newest first."""
        return await self._database.read(lambda db: conversation.turns_of_session(db, request, limit))

    async def record_decision(self, request: StoredRequest, decision: JsonObject) -> None:
        """Keeps the explanation of a decision that ended without a tier."""
        await self._database.write(lambda db: backlog.record_decision(db, request, decision))

    # --- forward ------------------------------------------------------------------------------------

    async def claim(self, tier: str, todo_lists: Collection[str], limit: int, now_ms: int) -> list[StoredRequest]:
        """Leases up to `limit` due requests that carry one of `todo_lists`, most urgent first; none of paused routes.

        None beyond what the tier's own limits leave; what those leased are expected to use is taken off them.
        """
        accounts, allowance, calls = self._accounts, self._accounts.allowance(tier, now_ms), list[Call]()

        def claim(db: sqlite3.Connection, moved: Moves) -> list[StoredRequest]:
            claimed = leases.claim(
                db,
                moved,
                tier,
                self._lines.of(todo_lists, self.paused_routes),
                limit,
                now_ms,
                has_suspects=self._has_suspects,
                affordable=lambda db, chosen: accounts.affordable(db, tier, chosen, allowance),
            )
            calls[:] = accounts.open(db, tier, claimed, now_ms)
            return claimed

        return await self._move(claim, lambda: accounts.begun(calls))

    async def count_due(self, limit: int) -> dict[str, int]:
        """Returns how many requests are due with each tier list, `limit` of each route at most; none of paused ones."""
        lines = self._lines.of(tuple(self.todo_lists), self.paused_routes)

        def read(db: sqlite3.Connection) -> dict[str, int]:
            found = Counter[str]()
            for todo, route in lines:
                found[todo] += leases.count_due(db, (todo, route), limit)
            return found

        return await self._database.read(read)

    async def release(
        self,
        request: StoredRequest,
        waiting: Waiting,
        *,
        note: str,
        now_ms: int,
        is_counted: bool,
        not_before_ms: int | None = None,
        judged: str | None = None,
    ) -> bool:
        """Gives a lease back; False where it was no longer held. With `not_before_ms` a round of tiers is over.

        `judged` is what was made of the answer there was, for the history.
        """
        self._lines.add_waiting(join_tiers(waiting.todo), join_tiers(waiting.tiers), request.route)
        call = self._accounts.call_of(request, request.lease)

        def change(db: sqlite3.Connection, moved: Moves) -> bool:
            self._accounts.close(db, call, now_ms)
            return leases.release(
                db,
                moved,
                request,
                waiting,
                text=note,
                now_ms=now_ms,
                is_counted=is_counted,
                not_before_ms=not_before_ms,
                judged=judged,
            )

        return await self._move(change, lambda: self._accounts.ended(call, now_ms))

    async def restart_rounds(self, todo: str, now_ms: int, backoff: Backoff) -> int:
        """Rows that have only `todo` left in their round wait, and then try all their tiers again."""
        return await self._database.write(
            lambda db: backlog.restart_rounds(db, todo, now_ms, backoff),
            committed=lambda: self.partial_lists.discard(todo),
        )

    async def waiting_for(self, todo: str, routes: Collection[str | None], limit: int = 200) -> list[StoredRequest]:
        """Returns requests of these routes that wait for the tiers `todo`, all of theirs."""
        return await self._database.read(lambda db: backlog.waiting_for(db, todo, routes, limit))

    async def forget_packets(self, less: int) -> None:
        """A redelivery can only be of the latest `less` packets, and of what comes from now on."""
        await self._database.write(lambda db: acceptance.forget_packets(db, less))

    async def finish(
        self, request: StoredRequest, answer: Answer, state: State, now_ms: int, *, lease: int | None = None
    ) -> bool:
        """Writes the terminal answer and the new state together; False where the request had ended meanwhile.

        With `lease` the request must still be held under it: a late answer of a lost lease changes nothing, but what
        it used counts.
        """
        call = self._accounts.call_of(request, lease)

        def change(db: sqlite3.Connection, moved: Moves) -> bool:
            self._accounts.close(db, call, now_ms)
            is_ours = endings.finish(db, moved, self._outbox, request, answer, state, now_ms, lease)
            if is_ours and self._share_window_ms is not None:
                sharing.spread(db, moved, self._outbox, request, answer, now_ms, self._share_window_ms)
            return is_ours

        return await self._move(change, lambda: self._accounts.ended(call, now_ms))

    async def answer_provisionally(self, request: StoredRequest, answer: Answer, waiting: Waiting, now_ms: int) -> bool:
        """Writes an answer that a better one of `waiting` follows; False where the lease was no longer held."""
        self._lines.add_waiting(join_tiers(waiting.todo), join_tiers(waiting.tiers), request.route)
        call = self._accounts.call_of(request, request.lease)

        def change(db: sqlite3.Connection, moved: Moves) -> bool:
            self._accounts.close(db, call, now_ms)
            return provisional.answer_provisionally(db, moved, self._outbox, request, answer, waiting, now_ms)

        return await self._move(change, lambda: self._accounts.ended(call, now_ms))

    # --- steer --------------------------------------------------------------------------------------

    async def carry_out(
        self, order: Order, requests: Sequence[Seq | str], *, target: str, actor: str, now_ms: int
    ) -> list[Outcome]:
        """Carries out an order on requests, by number or id; where anything changed, `target` is on record."""

        def change(db: sqlite3.Connection, moved: Moves) -> list[Outcome]:
            if order.verb in (Verb.MOVE, Verb.UNDO):
                orders.add_lines(db, self._lines, order, requests)
            done = orders.carry_out(
                db, moved, self._outbox, order, requests, actor, now_ms, limits=self._limits, tiers=self._tiers
            )
            if number := sum(outcome.is_changed for outcome in done):
                named = target if len(requests) == 1 else f"{number} requests: {target}"
                steering.record(db, str(order), named, actor, now_ms)
            return done

        done = await self._move(change)
        if order.verb is Verb.UNDO:
            self.brought_back += sum(outcome.is_changed for outcome in done)
        return done

    async def hold(self, tier: str, until_ms: int) -> None:
        """The tier asked to be left alone: that holds after a restart too."""
        await self._database.write(lambda db: steering.hold(db, tier, until_ms))

    async def holds(self) -> dict[str, int]:
        return await self._database.read(steering.holds)

    async def record_action(self, action: str, target: str, actor: str, now_ms: int) -> None:
        """What an operator did is on record."""
        await self._database.write(lambda db: steering.record(db, action, target, actor, now_ms))

    async def paused(self) -> dict[str, Pause]:
        return await self._database.read(steering.paused)

    async def pause(self, tier: str, actor: str, now_ms: int) -> None:
        await self._database.write(lambda db: steering.pause(db, tier, actor, now_ms))

    async def resume(self, tier: str, actor: str, now_ms: int) -> None:
        await self._database.write(lambda db: steering.resume(db, tier, actor, now_ms))

    async def pause_route(self, route: str, actor: str, now_ms: int) -> None:
        pause = Pause(now_ms, actor)
        self.paused_routes.setdefault(route, pause)  # before anything else of it is claimed
        try:
            await self._database.write(
                lambda db: steering.pause_route(db, route, actor, now_ms),
                committed=lambda: self.paused_routes.setdefault(route, pause),  # one resumed it just before
            )
        except StoreError:
            self.paused_routes = await self._database.read(steering.paused_routes)
            raise

    async def resume_route(self, route: str, actor: str, now_ms: int) -> None:
        await self._database.write(
            lambda db: steering.resume_route(db, route, actor, now_ms),
            committed=lambda: self.paused_routes.pop(route, None),
        )

    # --- learn --------------------------------------------------------------------------------------

    async def record_feedback(self, found: Sequence[Feedback], now_ms: int) -> list[RequestId | None]:
        """Writes verdicts; returns the request of each, None where there is no such one of that device."""
        return await self._database.write(lambda db: [feedback.record(db, entry, now_ms) for entry in found])

    async def count_feedback(self) -> int:
        """Returns the verdicts that may label a question."""
        return await self._database.read(feedback.count)

    async def latest_action_ms(self, action: str) -> int | None:
        """Returns when it was last on record; None where it never was, or so long ago that it is forgotten."""
        return await self._database.read(lambda db: steering.latest_ms(db, action))

    # --- deliver ------------------------------------------------------------------------------------

    async def outbox_after(self, after: Seq, limit: int) -> list[OutboxRow]:
        """Returns answers ready to be published, in the order they were written, from after row `after`."""
        return await self._database.read(lambda db: outbox.ready_after(db, after, limit))

    async def delivered(self, row: OutboxRow, now_ms: int) -> None:
        """The broker acknowledged the answer. Nothing changes where it was given up meanwhile."""
        await self._move(lambda db, moved: outbox.delivered(db, moved, row, now_ms))

    async def not_taken(self, row: OutboxRow, why: str, not_before_ms: int, now_ms: int) -> None:
        """Nobody was subscribed, or the broker refused: the answer waits and is offered again."""
        await self._database.write(lambda db: outbox.not_taken(db, row, why, not_before_ms, now_ms))

    # --- watch --------------------------------------------------------------------------------------

    async def oldest_ms(self) -> dict[State, int]:
        """Returns when the oldest request of each state that is not an end was received; no key where there is none."""
        return await self._database.read(backlog.oldest_ms)

    # --- upkeep -------------------------------------------------------------------------------------

    async def next_due_ms(self) -> int | None:
        """Returns when the next row comes due, expires or is given up, or None."""

        def read(db: sqlite3.Connection) -> int | None:
            queries = (*backlog.NEXT_TIMES, *dropping.NEXT_TIMES, *outbox.NEXT_TIMES)
            found = [db.execute(query).fetchone() for query in queries]
            return min((row[0] for row in found if row is not None), default=None)

        return await self._database.read(read)

    async def wake_due(self, now_ms: int) -> tuple[int, int]:
        """Makes rows due whose wait is over; returns how many requests and how many answers."""
        return await self._database.write(lambda db: (backlog.wake_due(db, now_ms), self._outbox.wake_due(db, now_ms)))

    async def expired(self, now_ms: int, limit: int = 200) -> list[StoredRequest]:
        return await self._database.read(lambda db: backlog.expired(db, now_ms, limit))

    async def end_dropped(self, now_ms: int, limit: int = 200) -> int:
        """Requests that were dropped so long ago that it cannot be undone any more end; returns how many."""
        return await self._move(lambda db, moved: dropping.end_due(db, moved, self._outbox, now_ms, limit))

    async def give_up_answers(self, now_ms: int) -> int:
        """Answers nobody took in time are given up; their requests end undelivered."""
        given_up = await self._move(lambda db, moved: outbox.give_up(db, moved, now_ms))
        self.undelivered += given_up
        return given_up

    async def purge(self, finished_before_ms: int, refused_before_ms: int, limit: int = 500) -> int:
        """Deletes finished and refused requests older than the given times, with their answers and history."""
        return await self._database.write(lambda db: endings.purge(db, finished_before_ms, refused_before_ms, limit))
