"""The backlog: requests that wait for a decision, for a tier, or for their time to try again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence

from mqrouter.core.backoff import Backoff
from mqrouter.core.records import Seq, StoredRequest
from mqrouter.core.request import JsonObject
from mqrouter.core.states import ACTIVE, State
from mqrouter.edge.store.history import note
from mqrouter.edge.store.rows import stored_request

NEXT_TIMES = (
    "SELECT min(not_before_ms) FROM requests WHERE state = 'pending' AND not_before_ms IS NOT NULL",
    "SELECT min(expires_at_ms) FROM requests WHERE state IN ('received', 'pending')",
)
"""Queries: when the next request comes due, and when the next one expires."""


def received(db: sqlite3.Connection, limit: int, busy: Collection[Seq]) -> list[StoredRequest]:
    rows = db.execute(
        "SELECT * FROM requests WHERE state = 'received' ORDER BY priority DESC, seq LIMIT ?",
        (limit + len(busy),),
    )
    return [stored_request(row) for row in rows if row["seq"] not in busy][:limit]


def queue(
    db: sqlite3.Connection,
    moved: Counter[str],
    request: StoredRequest,
    tiers: str,
    *,
    route: str | None,
    confidence: float,
    decision: JsonObject,
    now_ms: int,
) -> None:
    done = db.execute(
        "UPDATE requests SET state = 'pending', route = ?, confidence = ?, decision = ?,"
        " tiers = ?, todo = ? WHERE seq = ? AND state = 'received'",
        (route, confidence, json.dumps(decision), tiers, tiers, request.seq),
    )
    if done.rowcount:
        note(db, [(request.seq, now_ms, State.PENDING, tiers)])
        moved[State.RECEIVED] -= 1
        moved[State.PENDING] += 1


def record_decision(db: sqlite3.Connection, request: StoredRequest, decision: JsonObject) -> None:
    db.execute("UPDATE requests SET decision = ? WHERE seq = ?", (json.dumps(decision), request.seq))


def restart_rounds(db: sqlite3.Connection, todo: str, now_ms: int, backoff: Backoff) -> int:
    return db.execute(
        "UPDATE requests SET todo = tiers, rounds = rounds + 1,"
        " not_before_ms = ? + CAST(min(?, ? * (1 << min(rounds, 20))) AS INTEGER)"
        " WHERE state = 'pending' AND not_before_ms IS NULL AND todo = ? AND todo <> tiers",
        (now_ms, 1000 * backoff.max_s, 1000 * backoff.min_s, todo),
    ).rowcount


def waiting_for(db: sqlite3.Connection, todo: str, routes: Collection[str | None], limit: int) -> list[StoredRequest]:
    names = [route or "" for route in routes]  # a route has a name; the questions without one are NULL
    rows = db.execute(
        f"SELECT * FROM requests WHERE state = 'pending' AND todo = ? AND todo = tiers"
        f" AND coalesce(route, '') IN ({', '.join('?' * len(names))}) LIMIT ?",
        (todo, *names, limit),
    )
    return [stored_request(row) for row in rows]


def decide_again(db: sqlite3.Connection, todo_lists: Sequence[str], now_ms: int) -> None:
    """Rows that wait for tiers which the configuration no longer has are undecided once more."""
    for todo in todo_lists:
        rows = db.execute("SELECT seq FROM requests WHERE state = 'pending' AND todo = ?", (todo,)).fetchall()
        db.execute(
            "UPDATE requests SET state = 'received', tiers = NULL, todo = NULL, not_before_ms = NULL"
            " WHERE state = 'pending' AND todo = ?",
            (todo,),
        )
        note(db, ((row["seq"], now_ms, State.RECEIVED, f"no tier is left of {todo}") for row in rows))


def wake_due(db: sqlite3.Connection, now_ms: int) -> int:
    """Returns how many requests are due now whose wait is over."""
    return db.execute(
        "UPDATE requests SET not_before_ms = NULL"
        " WHERE state = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= ?",
        (now_ms,),
    ).rowcount


def expired(db: sqlite3.Connection, now_ms: int, limit: int) -> list[StoredRequest]:
    rows = db.execute(
        "SELECT * FROM requests WHERE state IN ('received', 'pending') AND expires_at_ms <= ?"
        " ORDER BY expires_at_ms LIMIT ?",
        (now_ms, limit),
    )
    return [stored_request(row) for row in rows]


def inventory(db: sqlite3.Connection) -> tuple[Counter[str], set[str], set[str]]:
    """Returns the number of requests in each active state, the tier lists of pending ones, and the partial ones."""
    counts: Counter[str] = Counter(
        {
            str(state): db.execute(f"SELECT count(*) FROM requests WHERE state = '{state}'").fetchone()[0]
            for state in ACTIVE
        }
    )
    lists = db.execute(
        "SELECT DISTINCT todo, todo <> tiers AS is_partial FROM requests WHERE state = 'pending'"
    ).fetchall()
    return counts, {row["todo"] for row in lists}, {row["todo"] for row in lists if row["is_partial"]}
