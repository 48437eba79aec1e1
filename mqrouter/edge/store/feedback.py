"""Verdicts on requests: written by the daemon, read by whoever learns from them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from mqrouter.core.answer_signals import parse_judged
from mqrouter.core.decode import Limits, decode_question
from mqrouter.core.feedback import Feedback, Judged, JudgedAnswer, Source, Verdict
from mqrouter.core.request import RequestId
from mqrouter.errors import RequestError
from mqrouter.routing.decision import Reason

LOOKED_AT = 5_000
"""Requests that one id of a requester's own is looked for among: devices count from 1, all of them."""
READ_AT_MOST = 50_000
_BY_TEXT = "(route IS NOT NULL AND json_extract(decision, '$.reason') = ?)"


def of_request(db: sqlite3.Connection, seq: int) -> list[dict[str, Any]]:
    """Returns the verdicts on one request, the newest first."""
    query = "SELECT at_ms, source, verdict, right_route, note FROM feedback WHERE request = ? ORDER BY at_ms DESC"
    return [dict(row) for row in db.execute(query, (seq,))]


def record(db: sqlite3.Connection, feedback: Feedback, now_ms: int) -> RequestId | None:
    """Writes the verdict over an earlier one of the same source; None where there is no such request.

    A request that asked nothing that could be understood has no route to judge: it is none either. Nor is one
    that ended without an answer, but for its route.
    """
    found = _find(db, feedback)
    if found is None or (found["reason"] is not None and feedback.verdict is not Verdict.WRONG_ROUTE):
        return None
    db.execute(
        "INSERT INTO feedback (request, at_ms, device, source, verdict, right_route, note) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (request, source) DO UPDATE SET at_ms = excluded.at_ms, verdict = excluded.verdict,"
        " right_route = excluded.right_route, note = excluded.note",
        (
            found["seq"],
            now_ms,
            found["device"],
            feedback.source,
            feedback.verdict,
            feedback.right_route,
            feedback.note,
        ),
    )
    return RequestId(found["id"])


def count(db: sqlite3.Connection) -> int:
    """Returns the verdicts that may label a question; see `core.feedback.examples_of`."""
    query = (
        "SELECT count(*) FROM feedback JOIN requests ON requests.seq = feedback.request WHERE is_private = 0"
        f" AND (right_route IS NOT NULL OR (verdict = 'good' AND {_BY_TEXT}))"
    )
    return int(db.execute(query, (Reason.ABOVE_THRESHOLD,)).fetchone()[0])


def read(db: sqlite3.Connection, limits: Limits, limit: int = READ_AT_MOST) -> list[Judged]:
    """Returns the verdicts with their questions, the newest first; private questions stay out of what is learnt."""
    return list(_read(db, limits, limit))


def read_answers(db: sqlite3.Connection, limit: int = READ_AT_MOST) -> list[JudgedAnswer]:
    """Returns the good and bad verdicts on local answers with what was made of those, the newest first.

    Those of private questions too: nothing of what was asked or answered is in them.
    """
    rows = db.execute(
        "SELECT requests.id, requests.device, source, verdict, tier, history.note FROM feedback"
        " JOIN requests ON requests.seq = feedback.request JOIN history ON history.request = feedback.request"
        " WHERE verdict IN ('good', 'bad') AND history.event = 'judged'"
        " ORDER BY feedback.at_ms DESC, feedback.seq DESC LIMIT ?",
        (limit,),
    )
    found = ((row, parse_judged(row["note"])) for row in rows)
    return [
        JudgedAnswer(
            row["id"], row["device"], Source(row["source"]), row["verdict"] == "good", judged.model, judged.evidence
        )
        for row, judged in found
        if judged.tier == row["tier"] and judged.model is not None and judged.evidence is not None
    ]


def _read(db: sqlite3.Connection, limits: Limits, limit: int) -> Iterator[Judged]:
    rows = db.execute(
        "SELECT requests.id, requests.device, source, verdict, route, right_route, payload, content_type, client_id,"
        f" {_BY_TEXT} AS is_by_text"
        " FROM feedback JOIN requests ON requests.seq = feedback.request WHERE is_private = 0"
        " ORDER BY feedback.at_ms DESC, feedback.seq DESC LIMIT ?",
        (Reason.ABOVE_THRESHOLD, limit),
    )
    for row in rows:
        try:
            question = decode_question(row["payload"], row["content_type"], row["client_id"], limits)
        except RequestError:
            continue  # accepted under other limits
        yield Judged(
            RequestId(row["id"]),
            row["device"],
            Source(row["source"]),
            Verdict(row["verdict"]),
            row["route"],
            bool(row["is_by_text"]),
            row["right_route"],
            question.text,
        )


def _find(db: sqlite3.Connection, feedback: Feedback) -> sqlite3.Row | None:
    """Returns the request that is meant: by the gateway's name for it, else the device's latest of that name."""
    where = "(:device IS NULL OR device = :device) AND NOT (state = 'dead' AND decision IS NULL)"
    values = {"id": feedback.request_id, "device": feedback.device, "looked_at": LOOKED_AT}
    found: sqlite3.Row | None = db.execute(
        f"SELECT seq, id, device, reason FROM requests WHERE id = :id AND {where}", values
    ).fetchone()
    if found is None:
        found = db.execute(
            f"SELECT seq, id, device, reason FROM (SELECT seq, id, device, state, reason, decision FROM requests"
            f" WHERE client_id = :id ORDER BY seq DESC LIMIT :looked_at) WHERE {where} ORDER BY seq DESC LIMIT 1",
            values,
        ).fetchone()
    return found
