"""The ends of requests: the terminal answer and the new state, written together; and later the row's removal."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

from mqrouter.core.admission import Ended, Moves
from mqrouter.core.encode import decode_answer, encode_answer
from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Answer
from mqrouter.core.states import ACTIVE, State
from mqrouter.edge.store.history import JUDGED, note
from mqrouter.edge.store.outbox import Outbox
from mqrouter.errors import ErrorCode


def end(
    db: sqlite3.Connection,
    moved: Moves,
    outbox: Outbox,
    request: StoredRequest,
    answer: Answer,
    state: State,
    now_ms: int,
    *,
    is_attempt: bool = False,
) -> Ended:
    """The request is in `state` and its answer in the outbox; `is_attempt` counts one more. Returns how it ended.

    Where there is a provisional answer and no better one, that one is made the terminal answer instead of an error.
    """
    if (row := outbox.withdraw(db, moved, request.seq)) is not None:
        properties = dict(json.loads(row["user_properties"]))
        answer, state = _settle(answer, state, decode_answer(row["payload"], request.reply.form, properties))
    expiry_ms = request.expires_at_ms if request.client_gave_expiry and request.expires_at_ms > now_ms else None
    message = encode_answer(answer, request.reply, request.id, expiry_ms)
    db.execute(
        "UPDATE requests SET state = ?, reason = ?, detail = ?, tier = ?, model = ?, finished_at_ms = ?,"
        " attempts = attempts + ?, saw_private = saw_private OR ? WHERE seq = ?",
        (
            state,
            answer.error,
            answer.error_message or None,
            answer.tier,
            answer.model,
            None if state is State.ANSWERED else now_ms,
            is_attempt,
            answer.saw_private,
            request.seq,
        ),
    )
    outbox.post(db, moved, request.seq, message, now_ms, wanted_until_ms=request.expires_at_ms)
    judgement = [] if answer.judged is None else [(request.seq, now_ms, JUDGED, answer.judged)]
    note(db, [*judgement, (request.seq, now_ms, state, answer.error_message or answer.tier)])
    return Ended.of(answer.error, request.route, answer.tier)


def _settle(answer: Answer, state: State, provisional: Answer) -> tuple[Answer, State]:
    """Returns how a request ends that has had a provisional answer.

    Where no better one came, for whatever reason, that text stands as the terminal answer, which says so; an operator's
    order to cancel is carried out all the same.
    """
    if answer.error is ErrorCode.CANCELLED:
        return answer, state
    if answer.error is None:
        return replace(answer, is_refined=answer.tier != provisional.tier), state
    stands = replace(provisional, is_refined=False, error_message=answer.error_message, latency_ms=answer.latency_ms)
    return stands, State.ANSWERED


def finish(
    db: sqlite3.Connection,
    moved: Moves,
    outbox: Outbox,
    request: StoredRequest,
    answer: Answer,
    state: State,
    now_ms: int,
    lease: int | None,
) -> bool:
    row = db.execute("SELECT state, lease FROM requests WHERE seq = ?", (request.seq,)).fetchone()
    if row is None or row["state"] not in ACTIVE:
        return False
    if lease is not None and (row["state"] != State.LEASED or row["lease"] != lease):
        return False
    old = State(row["state"])
    ended = end(db, moved, outbox, request, answer, state, now_ms, is_attempt=old is State.LEASED)
    moved.leave(old, request.device, len(request.payload), ended)
    return True


def purge(db: sqlite3.Connection, finished_before_ms: int, refused_before_ms: int, limit: int) -> int:
    sent = "NOT EXISTS (SELECT 1 FROM outbox WHERE request = requests.seq AND outbox.state = 'ready')"
    purged = 0
    # Two looks, each at its own index: refused rows are many, and among the others of a week they would be lost.
    for condition, before_ms in (("state = 'dead' AND ", refused_before_ms), ("", finished_before_ms)):
        purged += db.execute(
            f"DELETE FROM requests WHERE seq IN"
            f" (SELECT seq FROM requests WHERE {condition}finished_at_ms < ? AND {sent} LIMIT ?)",
            (before_ms, limit),
        ).rowcount
    return purged
