"""Decided requests with what it takes to decide them again; read-only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mqrouter.core.records import StoredRequest
from mqrouter.edge.store.backlog import latest_of_session
from mqrouter.edge.store.rows import stored_request
from mqrouter.routing.session import Session


@dataclass(frozen=True, slots=True)
class Decided:
    request: StoredRequest
    decision: dict[str, Any]
    """As it was stored, JSON."""


def decided(db: sqlite3.Connection, since_ms: int, limit: int) -> list[Decided]:
    """Returns requests received since then that were decided, the newest first."""
    rows = db.execute("SELECT * FROM requests ORDER BY seq DESC")
    found: list[Decided] = []
    for row in rows:
        if row["received_at_ms"] < since_ms or len(found) == limit:
            break
        if row["decision"] is not None:
            found.append(Decided(stored_request(row), json.loads(row["decision"])))
    rows.close()
    return found


def sessions_of(db: sqlite3.Connection, past: list[Decided], max_age_s: float) -> Iterator[Session | None]:
    """Yields each request's session as it stood: decided as it was then."""
    for entry in past:
        request = entry.request
        oldest_ms = request.received_at_ms - int(1000 * max_age_s)
        yield None if request.session is None else latest_of_session(db, request, oldest_ms)
