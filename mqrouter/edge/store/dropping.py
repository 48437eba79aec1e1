"""Requests out of the queue on an operator's order: for as long as that can be undone, and then for good."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from mqrouter.core.admission import Moves
from mqrouter.core.records import split_tiers
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.edge.store.backlog import last_turn
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.history import note
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request
from mqrouter.errors import ErrorCode

NEXT_TIMES = (
    "SELECT dropped_until_ms FROM requests INDEXED BY requests_dropped WHERE state = 'dropped'"
    " ORDER BY dropped_until_ms LIMIT 1",
)
"""Query: when the next one ends."""
DUE = (
    "SELECT * FROM requests INDEXED BY requests_dropped WHERE state = 'dropped' AND dropped_until_ms <= ?"
    " ORDER BY dropped_until_ms LIMIT ?"
)
NO_TIERS = ", tiers = NULL, todo = NULL, not_before_ms = NULL"


def drop(db: sqlite3.Connection, moved: Moves, row: sqlite3.Row, undo_ms: int, actor: str, now_ms: int) -> None:
    """The waiting request is out of the queue until `undo` or its end, whichever comes first; its place is kept."""
    until_ms = min(now_ms + undo_ms, row["expires_at_ms"])
    db.execute("UPDATE requests SET state = 'dropped', dropped_until_ms = ? WHERE seq = ?", (until_ms, row["seq"]))
    note(db, [(row["seq"], now_ms, State.DROPPED, f"by {actor}")])
    moved.drop(State(row["state"]), row["device"], row["bytes"])


def undo(
    db: sqlite3.Connection, moved: Moves, row: sqlite3.Row, tiers: Collection[str], actor: str, now_ms: int
) -> None:
    """The dropped request has its old place and decision; undecided where none of its tiers is among `tiers`."""
    is_decided = bool(set(split_tiers(row["todo"])) & set(tiers))
    state = State.PENDING if is_decided else State.RECEIVED
    more = "" if is_decided else NO_TIERS
    db.execute(f"UPDATE requests SET state = ?, dropped_until_ms = NULL{more} WHERE seq = ?", (state, row["seq"]))
    note(db, [(row["seq"], now_ms, state, f"brought back by {actor}")])
    device, priority = row["device"], row["priority"]
    next_turn = moved.next_turn(device, priority, lambda: last_turn(db, device, priority))
    moved.bring_back(state, device, priority, row["bytes"], row["turn"], next_turn)


def end_due(db: sqlite3.Connection, moved: Moves, outbox: Outbox, now_ms: int, limit: int) -> int:
    """Ends those whose time is over, and their senders are told; returns how many."""
    rows = db.execute(DUE, (now_ms, limit)).fetchall()
    for row in rows:
        request = stored_request(row)
        state, code, message = State.CANCELLED, ErrorCode.CANCELLED, "an operator dropped the request"
        if row["expires_at_ms"] <= now_ms:
            state, code, message = State.EXPIRED, ErrorCode.EXPIRED, "no answer within the time to live"
        latency_ms = now_ms - request.received_at_ms
        answer = Answer(error=code, error_message=message, route=request.route, latency_ms=latency_ms)
        ended = end(db, moved, outbox, request, answer, state, now_ms)
        moved.leave(State.DROPPED, request.device, row["bytes"], ended)
    return len(rows)
