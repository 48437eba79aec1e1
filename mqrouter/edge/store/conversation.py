"""What was asked and answered before in a session."""

from __future__ import annotations

import sqlite3

from mqrouter.core.records import PastTurn, StoredRequest

PAST = (
    "SELECT requests.payload, requests.content_type, requests.topic, received_at_ms,"
    " is_private OR saw_private AS is_private,"
    " CASE WHEN reason IS NULL THEN (SELECT outbox.payload FROM outbox WHERE request = requests.seq) END AS answer"
    " FROM requests INDEXED BY requests_by_conversation"
    " WHERE device = ? AND session = ? AND session IS NOT NULL AND requests.seq < ?"
    " ORDER BY requests.seq DESC LIMIT ?"
)


def turns_of_session(db: sqlite3.Connection, request: StoredRequest, limit: int) -> list[PastTurn]:
    """Returns the latest requests of this one's device and session before it, the newest first.

    A provisional answer is one, until there is a better one: the device has heard it.
    """
    rows = db.execute(PAST, (request.device, request.session, request.seq, limit))
    return [
        PastTurn(
            row["payload"],
            row["content_type"],
            row["topic"],
            row["answer"],
            bool(row["is_private"]),
            row["received_at_ms"],
        )
        for row in rows
    ]
