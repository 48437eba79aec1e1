"""Looking without touching: what the commands read, also while the daemon is down.

A connection of its own, opened read-only: it never writes and never checkpoints, so the daemon stays the one writer.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

COLUMNS = (
    "seq, id, client_id, state, reason, detail, device, route, tier, todo, tiers, priority, is_private,"
    " attempts, received_at_ms, expires_at_ms, not_before_ms, finished_at_ms, model"
)

LAST_FAILURE = (
    "(SELECT note FROM history WHERE request = requests.seq AND event = 'pending' AND note LIKE '%: %'"
    " ORDER BY history.seq DESC LIMIT 1)"
)


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Raises OSError where there is no database, or none this user may see; sqlite3.Error where it cannot be read."""
    path.stat()
    # Who may not write beside the file can read it all the same while nobody writes: then there is no log beside it.
    is_quiet = not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK)
    mode = "immutable=1" if is_quiet else "mode=ro"
    db = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=5.0)
    db.row_factory = sqlite3.Row
    try:
        yield db
    finally:
        db.close()


def list_requests(
    db: sqlite3.Connection, *, states: tuple[str, ...], route: str | None, device: str | None, limit: int, now_ms: int
) -> list[dict[str, Any]]:
    """Returns requests, newest first; without `states` those of every state."""
    conditions, values = ["1"], []
    if states:
        conditions.append(f"state IN ({', '.join('?' * len(states))})")
        values += list(states)
    for column, wanted in (("route", route), ("device", device)):
        if wanted is not None:
            conditions.append(f"{column} = ?")
            values.append(wanted)
    rows = db.execute(
        f"SELECT {COLUMNS}, {LAST_FAILURE} AS failure FROM requests"
        f" WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
    return [_summary(row, now_ms) for row in rows]


def show_request(db: sqlite3.Connection, request_id: str, now_ms: int) -> dict[str, Any] | None:
    """Returns everything about one request, found by its id or by the requester's own (then the latest)."""
    row = db.execute(
        f"SELECT *, {LAST_FAILURE} AS failure FROM requests WHERE seq = coalesce("
        "(SELECT seq FROM requests WHERE id = :id),"
        " (SELECT seq FROM requests WHERE client_id = :id ORDER BY seq DESC LIMIT 1))",
        {"id": request_id},
    ).fetchone()
    if row is None:
        return None
    history = db.execute("SELECT at_ms, event, note FROM history WHERE request = ? ORDER BY seq", (row["seq"],))
    answer = db.execute("SELECT state, payload, topic, tries FROM outbox WHERE request = ?", (row["seq"],)).fetchone()
    return _summary(row, now_ms) | {
        "topic": row["topic"],
        "reply_topic": row["reply_topic"],
        "form": row["form"],
        "payload": row["payload"].decode("utf-8", "replace"),
        "decision": json.loads(row["decision"]) if row["decision"] else None,
        "confidence": row["confidence"],
        "answer": answer and answer["payload"].decode("utf-8", "replace"),
        "answer_state": answer and answer["state"],
        "history": [dict(entry) for entry in history],
    }


def open_requests_under(db: sqlite3.Connection, client_id: str) -> list[dict[str, Any]]:
    """Returns the waiting requests that carry this id of the requester's own: several devices may count from 1."""
    rows = db.execute(
        "SELECT id, device FROM requests WHERE client_id = ? AND state IN ('received', 'pending', 'leased')",
        (client_id,),
    )
    return [dict(row) for row in rows]


def count_by_state(db: sqlite3.Connection) -> dict[str, int]:
    return {row["state"]: row["n"] for row in db.execute("SELECT state, count(*) AS n FROM requests GROUP BY state")}


def oldest_pending_ms(db: sqlite3.Connection) -> int | None:
    """Returns when the oldest request without an answer was received, or None."""
    row = db.execute("SELECT min(received_at_ms) FROM requests WHERE state IN ('received', 'pending', 'leased')")
    value: int | None = row.fetchone()[0]
    return value


def _summary(row: sqlite3.Row, now_ms: int) -> dict[str, Any]:
    return {
        "id": row["id"],
        "client_id": row["client_id"],
        "state": row["state"],
        "reason": row["reason"],
        "detail": row["detail"] or row["failure"],
        "device": row["device"],
        "route": row["route"],
        "tier": row["tier"],
        "waiting_for": row["todo"] if row["state"] == "pending" else None,
        "priority": row["priority"],
        "private": bool(row["is_private"]),
        "attempts": row["attempts"],
        "age_s": round((now_ms - row["received_at_ms"]) / 1000, 1),
        "expires_in_s": round((row["expires_at_ms"] - now_ms) / 1000, 1) if row["finished_at_ms"] is None else None,
        "next_attempt_in_s": None
        if row["not_before_ms"] is None
        else round(max(0, row["not_before_ms"] - now_ms) / 1000, 1),
        "model": row["model"],
        "received_at_ms": row["received_at_ms"],
    }
