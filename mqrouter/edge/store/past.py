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
class Answered:
    tier: str
    chars: int
    """Of the answer as it was sent."""
    usage: tuple[int, int] | None
    """Tokens of prompt and completion as the tier counted them; None where the answer sent does not say."""


@dataclass(frozen=True, slots=True)
class Decided:
    request: StoredRequest
    decision: dict[str, Any]
    """As it was stored, JSON."""
    answered: Answered | None = None
    """None where no tier has answered."""


def decided(db: sqlite3.Connection, since_ms: int, limit: int) -> list[Decided]:
    """Returns requests received since then that were decided, the newest first."""
    rows = db.execute("SELECT * FROM requests ORDER BY seq DESC")
    found: list[Decided] = []
    for row in rows:
        if row["received_at_ms"] < since_ms or len(found) == limit:
            break
        if row["decision"] is not None:
            found.append(Decided(stored_request(row), json.loads(row["decision"]), _answered(db, row)))
    rows.close()
    return found


def _answered(db: sqlite3.Connection, row: sqlite3.Row) -> Answered | None:
    if row["tier"] is None or row["reason"] is not None:
        return None
    sent = db.execute("SELECT payload, content_type FROM outbox WHERE request = ?", (row["seq"],)).fetchone()
    if sent is None:
        return None
    text = bytes(sent["payload"]).decode("utf-8", "replace")
    if not sent["content_type"].startswith("application/json"):
        return Answered(row["tier"], len(text), None)
    body = json.loads(text)
    counted = body.get("usage") or {}
    usage = (counted.get("prompt_tokens") or 0, counted.get("completion_tokens") or 0)
    return Answered(row["tier"], len(body.get("answer") or ""), usage if all(usage) else None)


def sessions_of(db: sqlite3.Connection, past: list[Decided], max_age_s: float) -> Iterator[Session | None]:
    """Yields each request's session as it stood: decided as it was then."""
    for entry in past:
        request = entry.request
        oldest_ms = request.received_at_ms - int(1000 * max_age_s)
        yield None if request.session is None else latest_of_session(db, request, oldest_ms)
