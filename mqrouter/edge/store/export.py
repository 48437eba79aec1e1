"""Requests as lines of JSON: what came in, whole, and what became of it."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from typing import Any

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.timeline import Now
from mqrouter.edge.store.reading import Page
from mqrouter.edge.store.search import find

STEP = 500
WHOLE = (
    "SELECT id, client_id, requests.state, reason, detail, device, requests.topic, requests.payload,"
    " requests.content_type, reply_topic, requests.correlation, traceparent, priority, is_private, route, tier, model,"
    " attempts, received_at_ms, expires_at_ms, finished_at_ms, outbox.payload AS answer"
    " FROM requests LEFT JOIN outbox ON outbox.request = requests.seq WHERE requests.seq = ?"
)


def export(db: sqlite3.Connection, wanted: Selection, now: Now) -> Iterator[dict[str, Any]]:
    """Yields the oldest first; times are the machine's. What is not UTF-8 is there as base64, under another name."""
    after: Seq | None = None
    while True:
        page = export_page(db, wanted, now, limit=STEP, after=after)
        yield from page.rows
        if (after := page.next) is None:
            return


def export_page(db: sqlite3.Connection, wanted: Selection, now: Now, *, limit: int, after: Seq | None) -> Page:
    """Returns the next of those lines, from after number `after` on."""
    found = find(db, wanted, limit=limit, now_ms=now.ms, sort=Sort.OLDEST, after=after)
    return Page([_line(db.execute(WHOLE, (seq,)).fetchone(), now) for seq in found.seqs], found.next)


def _line(row: sqlite3.Row, now: Now) -> dict[str, Any]:
    line = {name: row[name] for name in row.keys() if name not in ("payload", "answer", "correlation")}  # noqa: SIM118
    for name in ("received_at_ms", "expires_at_ms", "finished_at_ms"):
        line[name] = None if line[name] is None else line[name] + now.offset_ms
    line["is_private"] = bool(row["is_private"])
    line["correlation"] = None if row["correlation"] is None else row["correlation"].hex()
    return line | _text("payload", row["payload"]) | ({} if row["answer"] is None else _text("answer", row["answer"]))


def _text(name: str, value: bytes) -> dict[str, str]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}
