"""Provisional answers: each is its request's row in the outbox until the terminal answer takes its place.

So one that was not taken by then never goes out after the better one, and a request has one answer at any time.
"""

from __future__ import annotations

import sqlite3

from mqrouter.core.admission import Moves
from mqrouter.core.encode import encode_answer
from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.edge.store import leases
from mqrouter.edge.store.history import note
from mqrouter.edge.store.outbox import Outbox

EVENT = "answered_provisionally"


def answer_provisionally(
    db: sqlite3.Connection,
    moved: Moves,
    outbox: Outbox,
    request: StoredRequest,
    answer: Answer,
    waiting: Waiting,
    now_ms: int,
) -> bool:
    """The answer is in the outbox, and the request waits for better tiers; False where it was no longer leased.

    Of two provisional answers the first one stays: a repetition is a copy of it.
    """
    text = f"{answer.tier}: a provisional answer"
    is_ours = leases.release(
        db,
        moved,
        request,
        waiting,
        text=text,
        now_ms=now_ms,
        is_counted=False,
        not_before_ms=None,
        judged=answer.judged,
    )
    if not is_ours or db.execute("SELECT 1 FROM outbox WHERE request = ?", (request.seq,)).fetchone() is not None:
        return is_ours
    expiry_ms = request.expires_at_ms if request.client_gave_expiry and request.expires_at_ms > now_ms else None
    message = encode_answer(answer, request.reply, request.id, expiry_ms)
    outbox.post(db, moved, request.seq, message, now_ms, wanted_until_ms=request.expires_at_ms, is_provisional=True)
    db.execute("UPDATE requests SET saw_private = saw_private OR ? WHERE seq = ?", (answer.saw_private, request.seq))
    note(db, [(request.seq, now_ms, EVENT, answer.tier)])
    return True
