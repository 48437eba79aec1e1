"""What a request's life is, without a database: the rows as plain values, and each action's effect on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mqrouter.core.records import Accepted
from mqrouter.core.request import Refused, Request
from mqrouter.core.states import ACTIVE, State
from mqrouter.errors import ErrorCode

MAX_CRASHES = 3


@dataclass
class Row:
    """One request. `answer` is None, ready, done or given_up; `answer_due_ms` None where it may go out now."""

    id: str
    device: str
    key: bytes | None
    payload_hash: bytes
    priority: int
    expires_at_ms: int
    state: State = State.RECEIVED
    reason: str | None = None
    tiers: str | None = None
    todo: str | None = None
    not_before_ms: int | None = None
    attempts: int = 0
    rounds: int = 0
    lease: int = 0
    crashes: int = 0
    finished_at_ms: int | None = None
    dropped_until_ms: int | None = None
    answer: str | None = None
    answer_due_ms: int | None = None
    give_up_at_ms: int = 0
    is_provisional: bool = False
    """The answer: the terminal one will take its place."""
    is_sent: bool = False
    """Published since the last connection, and not offered again since."""

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def is_waiting(self) -> bool:
        return self.state in (State.RECEIVED, State.PENDING)

    def is_due_for(self, tier: str, now_ms: int) -> bool:
        is_first = self.todo is not None and self.todo.split(">")[0] == tier
        return self.state is State.PENDING and is_first and self.not_before_ms is None and self.expires_at_ms > now_ms

    def is_ready_to_send(self) -> bool:
        return self.answer == "ready" and self.answer_due_ms is None and not self.is_sent


@dataclass
class Model:
    """`rows` in order of acceptance."""

    max_requests: int
    per_device: int
    when_full: str
    grace_ms: int
    dedupe_ms: int
    rows: list[Row] = field(default_factory=list)
    packets: dict[int, Request | Refused] = field(default_factory=dict)
    """What came in last under each packet identifier."""
    is_route_paused: bool = False
    """Of the one route that all questions take."""
    dropped: list[str] = field(default_factory=list)
    """Ids of the requests that the store dropped to make room, in that order."""

    def row(self, request_id: str) -> Row:
        return next(row for row in self.rows if row.id == request_id)

    def active(self) -> list[Row]:
        return [row for row in self.rows if row.is_active]

    # --- accept -----------------------------------------------------------------------------------

    def accept(self, item: Request | Refused, now_ms: int) -> Accepted:
        if item.incoming.is_dup and self._is_redelivery(item):
            return Accepted.ABSORBED
        known = next((row for row in self.rows if item.dedupe_key is not None and row.key == item.dedupe_key), None)
        is_same = known is not None and known.payload_hash == item.payload_hash
        if isinstance(item, Request) and known is not None and self._is_free_again(known, is_same, now_ms):
            known.key = None
            known = None
        if known is not None and is_same:
            self._offer_again(known, now_ms)
            return Accepted.ABSORBED
        if isinstance(item, Refused):
            self._refuse(item, item.code, now_ms)
            return Accepted.REFUSED
        if known is not None:
            self._refuse(item, ErrorCode.CORRELATION_REUSED, now_ms)
            return Accepted.REUSED
        if not self._make_room(item, now_ms):
            self._refuse(item, ErrorCode.QUEUE_FULL, now_ms)
            return Accepted.REFUSED
        self._add(item, item.dedupe_key, item.question.priority, item.expires_at_ms)
        return Accepted.NEW

    def _is_redelivery(self, item: Request | Refused) -> bool:
        """True where nothing tells it from what came in under its packet identifier before."""
        known = self.packets.get(item.incoming.mid)
        if known is None or all(row.id != known.id for row in self.rows):
            return False
        addresses = [reply and (reply.topic, reply.correlation) for reply in (known.reply, item.reply)]
        is_same_address = addresses[0] == addresses[1]
        return is_same_address and (known.incoming.topic, known.payload_hash) == (
            item.incoming.topic,
            item.payload_hash,
        )

    def _is_free_again(self, known: Row, is_same: bool, now_ms: int) -> bool:
        if known.answer == "ready":
            return False
        if known.finished_at_ms is not None and known.finished_at_ms + self.dedupe_ms <= now_ms:
            return True
        return known.reason is not None and is_same and ErrorCode(known.reason).is_retryable

    def _make_room(self, item: Request, now_ms: int) -> bool:
        active = self.active()
        if sum(row.device == item.device for row in active) >= self.per_device:
            return False
        if len(active) < self.max_requests:
            return True
        victim = self._victim(item)
        if victim is not None:
            self.finish(victim, State.ANSWERED, now_ms, reason=ErrorCode.QUEUE_FULL)
        return victim is not None

    def _victim(self, item: Request) -> Row | None:
        waiting = [row for row in self.rows if row.is_waiting]
        if self.when_full == "drop_oldest":
            return waiting[0] if waiting else None
        lower = [row for row in waiting if row.priority < item.question.priority]
        if self.when_full == "reject" or not lower:
            return None
        lowest = [row for row in lower if row.priority == min(row.priority for row in lower)]
        newest = {row.device: row for row in lowest}  # which device loses one is a matter of turns, not of the model
        return next((row for name in self.dropped for row in newest.values() if row.id == name), None)

    def _refuse(self, item: Request | Refused, code: ErrorCode, now_ms: int) -> None:
        row = self._add(item, None, 0, item.received_at_ms)
        row.state, row.reason, row.finished_at_ms = State.DEAD, code, now_ms
        if item.reply is not None:
            row.answer, row.give_up_at_ms = "ready", now_ms + self.grace_ms

    def _add(self, item: Request | Refused, key: bytes | None, priority: int, expires_at_ms: int) -> Row:
        row = Row(item.id, item.device, key, item.payload_hash, priority, expires_at_ms)
        self.rows.append(row)
        self.packets[item.incoming.mid] = item
        return row

    def _offer_again(self, row: Row, now_ms: int) -> None:
        if row.answer is not None and (row.answer != "ready" or row.answer_due_ms is not None):
            row.answer, row.answer_due_ms, row.is_sent = "ready", None, False
            row.give_up_at_ms = max(row.give_up_at_ms, now_ms + self.grace_ms)

    # --- decide and forward -----------------------------------------------------------------------

    def queue(self, row: Row, tiers: str) -> None:
        row.state, row.tiers, row.todo, row.crashes = State.PENDING, tiers, tiers, 0

    def claim(self, tier: str, limit: int, chosen: Sequence[Row], now_ms: int) -> None:
        """Takes over the choice, once it is seen to be a right one."""
        due = [row for row in self.rows if row.is_due_for(tier, now_ms)] if not self.is_route_paused else []
        suspects = [row for row in due if row.crashes]
        assert all(row in due for row in chosen), "claimed what was not due"
        assert len(chosen) <= limit
        if not suspects:
            assert len(chosen) == min(limit, len(due)), "left waiting what was due"
        left = [row for row in due if row not in chosen and row not in suspects]
        for row in chosen:
            before = [other for other in left if other.priority > row.priority or _is_ahead(due, other, row)]
            assert not before, "somebody more urgent, or ahead of it in the line of its own device, was left waiting"
            row.state, row.lease = State.LEASED, row.lease + 1

    def release(self, row: Row, tiers: str, todo: str, not_before_ms: int | None, *, is_counted: bool) -> None:
        row.state, row.tiers, row.todo, row.not_before_ms = State.PENDING, tiers, todo, not_before_ms
        row.crashes = 0
        row.attempts += is_counted
        row.rounds += not_before_ms is not None

    def retry(self, row: Row) -> None:
        row.todo, row.not_before_ms, row.attempts, row.rounds = row.tiers, None, 0, 0

    def drop(self, row: Row, now_ms: int, undo_ms: int) -> None:
        row.state, row.dropped_until_ms = State.DROPPED, min(now_ms + undo_ms, row.expires_at_ms)

    def undo(self, row: Row, tiers: Sequence[str]) -> bool:
        """False where the queue has no room for it."""
        active = self.active()
        if len(active) >= self.max_requests or sum(other.device == row.device for other in active) >= self.per_device:
            return False
        row.state, row.dropped_until_ms = State.PENDING, None
        if not set(str(row.todo).split(">")) & set(tiers):
            row.state, row.tiers, row.todo, row.not_before_ms = State.RECEIVED, None, None, None
        return True

    def answer_provisionally(self, row: Row, tiers: str, now_ms: int) -> None:
        self.release(row, tiers, tiers, None, is_counted=False)
        if row.answer is None:
            row.answer, row.answer_due_ms, row.is_sent, row.is_provisional = "ready", None, False, True
            row.give_up_at_ms = max(row.expires_at_ms, now_ms + self.grace_ms)

    def finish(self, row: Row, state: State, now_ms: int, *, reason: str | None = None) -> None:
        row.attempts += row.state is State.LEASED
        if row.is_provisional and reason not in (None, ErrorCode.CANCELLED):
            state, reason = State.ANSWERED, None  # it stands
        row.is_provisional = row.is_sent = False
        row.state, row.reason = state, reason
        row.finished_at_ms = None if state is State.ANSWERED else now_ms
        row.answer, row.answer_due_ms = "ready", None
        row.give_up_at_ms = max(row.expires_at_ms, now_ms + self.grace_ms)

    # --- deliver ----------------------------------------------------------------------------------

    def ready_to_send(self) -> Iterator[Row]:
        return (row for row in self.rows if row.is_ready_to_send())

    def delivered(self, row: Row, now_ms: int, *, is_provisional: bool) -> None:
        if row.answer == "ready" and row.is_provisional is is_provisional:
            row.answer = "done"
            if row.state in (State.ANSWERED, State.UNDELIVERED):
                row.state, row.finished_at_ms = State.DELIVERED, now_ms

    def not_taken(self, row: Row, not_before_ms: int, *, is_provisional: bool) -> None:
        if row.answer == "ready" and row.is_provisional is is_provisional:
            row.answer_due_ms = not_before_ms

    # --- what the clock and a restart bring about -------------------------------------------------

    def upkeep(self, now_ms: int) -> None:
        for row in self.rows:
            if row.state is State.PENDING and row.not_before_ms is not None and row.not_before_ms <= now_ms:
                row.not_before_ms = None
            if row.answer == "ready":
                self._upkeep_answer(row, now_ms)
            if row.state is State.DROPPED and row.dropped_until_ms is not None and row.dropped_until_ms <= now_ms:
                is_late = row.expires_at_ms <= now_ms
                state, code = (State.EXPIRED, ErrorCode.EXPIRED) if is_late else (State.CANCELLED, ErrorCode.CANCELLED)
                self.finish(row, state, now_ms, reason=code)
            if row.is_waiting and row.expires_at_ms <= now_ms:
                self.finish(row, State.EXPIRED, now_ms, reason=ErrorCode.EXPIRED)

    def _upkeep_answer(self, row: Row, now_ms: int) -> None:
        if row.answer_due_ms is not None and row.answer_due_ms <= now_ms:
            row.answer_due_ms, row.is_sent = None, False
        if row.give_up_at_ms <= now_ms:
            row.answer = "given_up"
            if row.state is State.ANSWERED:
                row.state, row.finished_at_ms = State.UNDELIVERED, now_ms

    def restart_rounds(self, todo: str, now_ms: int, wait_ms: int) -> None:
        for row in self.rows:
            is_stuck = row.state is State.PENDING and row.not_before_ms is None and row.todo == todo != row.tiers
            if is_stuck:
                row.todo, row.rounds, row.not_before_ms = row.tiers, row.rounds + 1, now_ms + wait_ms

    def purge(self, finished_before_ms: int, refused_before_ms: int, left: set[str]) -> None:
        """Takes over which ids are left, once that is seen to be right."""

        def is_over(row: Row) -> bool:
            at_ms = row.finished_at_ms
            before_ms = max(finished_before_ms, refused_before_ms if row.state is State.DEAD else 0)
            return at_ms is not None and at_ms < before_ms and row.answer != "ready"

        assert all(is_over(row) for row in self.rows if row.id not in left), "purged what was not over"
        self.rows = [row for row in self.rows if row.id in left]
        assert not any(is_over(row) for row in self.rows), "left what was over"

    def crash(self, now_ms: int) -> None:
        """One leased row that was suspected already is to blame, and no other; else all of them are suspected."""
        leased = [row for row in self.rows if row.state is State.LEASED]
        for row in [row for row in leased if row.crashes] or leased:
            row.crashes += 1
        self.stop()
        for row in leased:
            if row.crashes >= MAX_CRASHES:
                self.finish(row, State.DEAD, now_ms, reason=ErrorCode.INTERNAL)

    def stop(self) -> None:
        for row in self.rows:
            if row.state is State.LEASED:
                row.state = State.PENDING
            row.is_sent = False

    def start(self, tiers: Sequence[str]) -> None:
        for row in self.rows:
            if row.state is State.PENDING and not set(str(row.todo).split(">")) & set(tiers):
                row.state, row.tiers, row.todo, row.not_before_ms = State.RECEIVED, None, None, None


def _is_ahead(rows: Sequence[Row], one: Row, other: Row) -> bool:
    is_same_line = one.device == other.device and one.priority == other.priority
    return is_same_line and rows.index(one) < rows.index(other)
