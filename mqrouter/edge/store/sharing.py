"""One answer for every waiting request that asks the same: written with the first one's end."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from mqrouter.core.admission import Moves
from mqrouter.core.records import StoredRequest, split_tiers
from mqrouter.core.request import Answer, JsonObject
from mqrouter.core.sharing import share_key
from mqrouter.core.states import State
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.history import note
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request

MAX_SHARED = 256  # in one transaction; what is left has its turn, and its answer is shared again


def mark(db: sqlite3.Connection, request: StoredRequest, route: str | None, decision: JsonObject) -> None:
    """The request can be found by those that ask the same."""
    key = share_key(request, route, is_private=request.is_private or bool(decision.get("private_by")))
    db.execute("UPDATE requests SET share_key = ? WHERE seq = ?", (key, request.seq))


def spread(
    db: sqlite3.Connection,
    moved: Moves,
    outbox: Outbox,
    request: StoredRequest,
    answer: Answer,
    now_ms: int,
    window_ms: int,
) -> int:
    """Ends waiting requests with the whole answer just given to `request`; returns how many.

    Of those asked within `window_ms` of it, each whose best tier, of those it has yet to try, gave this answer.
    """
    if answer.text is None or answer.is_truncated or answer.tier is None:
        return 0
    key = db.execute("SELECT share_key FROM requests WHERE seq = ?", (request.seq,)).fetchone()[0]
    if key is None:
        return 0
    at_ms = request.received_at_ms
    rows = db.execute(
        "SELECT * FROM requests INDEXED BY requests_shared WHERE state = 'pending' AND share_key IS NOT NULL"
        " AND share_key = ? AND received_at_ms BETWEEN ? AND ? AND expires_at_ms > ? LIMIT ?",
        (key, at_ms - window_ms, at_ms + window_ms, now_ms, MAX_SHARED),
    ).fetchall()
    waiting = [row for row in rows if split_tiers(row["todo"])[0] == answer.tier]
    for row in waiting:
        other = stored_request(row)
        note(db, [(other.seq, now_ms, "shared", f"the answer to request {request.id}, which asks the same")])
        ended = end(db, moved, outbox, other, _as_for(other, answer, now_ms), State.ANSWERED, now_ms)
        moved.leave(State.PENDING, other.device, len(other.payload), ended)
    return len(waiting)


def _as_for(other: StoredRequest, answer: Answer, now_ms: int) -> Answer:
    confidence = None if other.confidence is None else round(other.confidence, 4)
    latency_ms = now_ms - other.received_at_ms
    return replace(answer, confidence=confidence, latency_ms=latency_ms, usage={}, is_cached=True)
