"""Fit for a new request at the queue's limits: by refusing it, or by dropping others that wait."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable

from mqrouter.core.admission import Fit, Moves, QueueLimits, WhenFull, fit_of
from mqrouter.core.request import Answer, Request
from mqrouter.core.states import State
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request
from mqrouter.errors import ErrorCode


class Eviction:
    """Its methods run inside a transaction."""

    def __init__(self, outbox: Outbox, limits: QueueLimits) -> None:
        self._outbox = outbox
        self._limits = limits

    def fit(self, moved: Moves, item: Request) -> Fit:
        return fit_of(len(item.incoming.payload), moved.held(), moved.held_by(item.device), self._limits)

    def make_room(self, db: sqlite3.Connection, moved: Moves, item: Request, now_ms: int) -> str | None:
        """The queue, which had no room for it, has it; or else returns why not."""
        if self.fit(moved, item) is Fit.DEVICE_FULL:
            return "this device has as many questions waiting as one device may have"
        victims = self._victims(db, moved, item)
        for row in victims:
            self._drop(db, moved, row, now_ms)
        return None if victims else "too many questions are waiting"

    def _victims(self, db: sqlite3.Connection, moved: Moves, item: Request) -> list[sqlite3.Row]:
        """Returns the requests that make room for it by the declared policy: enough of them, or none."""
        held = moved.held()
        requests = held.requests + 1 - self._limits.max_requests
        size = held.bytes + len(item.incoming.payload) - self._limits.max_bytes
        chosen: list[sqlite3.Row] = []
        for row in _droppable(db, item, self._limits.when_full):
            if requests <= 0 and size <= 0:
                break
            chosen.append(row)
            requests -= 1
            size -= row["bytes"]
        return chosen if requests <= 0 and size <= 0 else []

    def _drop(self, db: sqlite3.Connection, moved: Moves, row: sqlite3.Row, now_ms: int) -> None:
        dropped = stored_request(db.execute("SELECT * FROM requests WHERE seq = ?", (row["seq"],)).fetchone())
        answer = Answer(
            error=ErrorCode.QUEUE_FULL,
            error_message="dropped to make room for a newer question",
            route=dropped.route,
            latency_ms=now_ms - dropped.received_at_ms,
        )
        ended = end(db, moved, self._outbox, dropped, answer, State.ANSWERED, now_ms)
        moved.leave(State(row["state"]), dropped.device, row["bytes"], ended)
        moved.dropped += 1


def _droppable(db: sqlite3.Connection, item: Request, when_full: WhenFull) -> Iterable[sqlite3.Row]:
    """Returns what may be dropped for it, first things first: nothing that is at a tier."""
    match when_full:
        case WhenFull.REJECT:
            return ()
        case WhenFull.DROP_OLDEST:
            return _oldest(db)
        case WhenFull.DROP_LOWEST:
            return _lowest(db, item.question.priority)


def _oldest(db: sqlite3.Connection) -> Iterable[sqlite3.Row]:
    """Returns waiting requests in order of acceptance: two index ranges, merged."""
    query = "SELECT seq, state, bytes FROM requests WHERE state = ? ORDER BY seq"
    ranges = (db.execute(query, (state,)) for state in (State.RECEIVED, State.PENDING))
    return heapq.merge(*ranges, key=lambda row: row["seq"])


def _lowest(db: sqlite3.Connection, below: int) -> Iterable[sqlite3.Row]:
    """Yields waiting requests of a priority lower than `below`: the lowest first, and the newest of each first."""
    query = (
        "SELECT seq, state, bytes FROM requests INDEXED BY requests_droppable"
        " WHERE state IN ('received', 'pending') AND priority = ? ORDER BY turn DESC, seq DESC"
    )
    for priority in range(below):
        yield from db.execute(query, (priority,))
