"""The backlog: requests that wait for a decision, for a tier, or for their time to try again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from mqrouter.core.admission import Held, Holdings, Moves
from mqrouter.core.backoff import Backoff
from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.records import Seq, StoredRequest, split_tiers
from mqrouter.core.request import JsonObject
from mqrouter.core.states import ACTIVE, OPEN, TERMINAL, State
from mqrouter.edge.store.history import note
from mqrouter.edge.store.many import marks
from mqrouter.edge.store.rows import stored_request
from mqrouter.routing.session import Session

NEXT_TIMES = (
    "SELECT not_before_ms FROM requests INDEXED BY requests_waiting WHERE state = 'pending'"
    " AND not_before_ms IS NOT NULL ORDER BY not_before_ms LIMIT 1",
    "SELECT expires_at_ms FROM requests INDEXED BY requests_expiring WHERE state IN ('received', 'pending')"
    " ORDER BY expires_at_ms LIMIT 1",
)
"""Queries: when the next request comes due, and when the next one expires."""

PRIVACY = "is_private = max(is_private, ?), private_by = ?"  # what was private stays so
HELD = "requests INDEXED BY requests_held WHERE state IN ('received', 'pending', 'leased')"
SIZES = ", ".join(f"sum(bytes) FILTER (WHERE state = '{state}') AS {state}" for state in sorted(ACTIVE))


def received(db: sqlite3.Connection, limit: int, busy: Collection[Seq]) -> list[StoredRequest]:
    query = (
        "SELECT * FROM requests INDEXED BY requests_received WHERE state = 'received'"
        f" AND seq NOT IN {marks(len(busy))} ORDER BY priority DESC, turn, seq LIMIT ?"
    )
    return [stored_request(row) for row in db.execute(query, (*busy, limit)).fetchall()]


def queue(
    db: sqlite3.Connection,
    moved: Moves,
    request: StoredRequest,
    tiers: str,
    *,
    route: str | None,
    confidence: float,
    decision: JsonObject,
    now_ms: int,
) -> None:
    done = db.execute(
        "UPDATE requests SET state = 'pending', crashes = 0, route = ?, strategy = ?, confidence = ?, decision = ?,"
        f" tiers = ?, todo = ?, {PRIVACY} WHERE seq = ? AND state = 'received'",
        (
            route,
            decision.get("strategy"),
            confidence,
            json.dumps(decision),
            tiers,
            tiers,
            *_privacy(decision),
            request.seq,
        ),
    )
    if done.rowcount:
        note(db, [(request.seq, now_ms, State.PENDING, tiers)])
        moved.move(State.RECEIVED, State.PENDING, len(request.payload))


def record_decision(db: sqlite3.Connection, request: StoredRequest, decision: JsonObject) -> None:
    db.execute(
        f"UPDATE requests SET decision = ?, {PRIVACY} WHERE seq = ?",
        (json.dumps(decision), *_privacy(decision), request.seq),
    )


def _privacy(decision: JsonObject) -> tuple[bool, str]:
    names = decision.get("private_by", [])
    return bool(names), " ".join(names)


def latest_of_session(db: sqlite3.Connection, request: StoredRequest, not_before_ms: int) -> Session | None:
    row = db.execute(
        "SELECT id, route, tiers, received_at_ms FROM requests INDEXED BY requests_by_session"
        " WHERE device = ? AND session = ? AND session IS NOT NULL AND route IS NOT NULL AND seq < ?"
        " ORDER BY seq DESC LIMIT 1",
        (request.device, request.session, request.seq),
    ).fetchone()
    if row is None or row["received_at_ms"] < not_before_ms:
        return None
    return Session(row["id"], row["route"], split_tiers(row["tiers"]))


def restart_rounds(db: sqlite3.Connection, todo: str, now_ms: int, backoff: Backoff) -> int:
    return db.execute(
        "UPDATE requests SET todo = tiers, rounds = rounds + 1,"
        " not_before_ms = ? + CAST(min(?, ? * (1 << min(rounds, 20))) AS INTEGER)"
        " WHERE state = 'pending' AND not_before_ms IS NULL AND todo = ? AND todo <> tiers",
        (now_ms, 1000 * backoff.max_s, 1000 * backoff.min_s, todo),
    ).rowcount


def waiting_for(db: sqlite3.Connection, todo: str, routes: Collection[str | None], limit: int) -> list[StoredRequest]:
    found: list[StoredRequest] = []
    for route in routes:  # one index range each; the questions of no route are NULL
        rows = db.execute(
            "SELECT * FROM requests WHERE state = 'pending' AND route IS ? AND todo = ? AND todo = tiers LIMIT ?",
            (route, todo, limit - len(found)),
        )
        found += [stored_request(row) for row in rows]
    return found


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
        "UPDATE requests INDEXED BY requests_waiting SET not_before_ms = NULL"
        " WHERE state = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= ?",
        (now_ms,),
    ).rowcount


def expired(db: sqlite3.Connection, now_ms: int, limit: int) -> list[StoredRequest]:
    rows = db.execute(
        "SELECT * FROM requests INDEXED BY requests_expiring WHERE state IN ('received', 'pending')"
        " AND expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?",
        (now_ms, limit),
    )
    return [stored_request(row) for row in rows]


def inventory(db: sqlite3.Connection) -> Holdings:
    """Returns what the queue holds."""
    holdings = Holdings()
    for state in OPEN:
        query = f"SELECT count(*) FROM requests WHERE state = '{state}'"
        holdings.counts[state] = db.execute(query).fetchone()[0]
    for row in db.execute(f"SELECT device, count(*) AS n, sum(bytes) AS size, {SIZES} FROM {HELD} GROUP BY device"):
        holdings.sizes.update({state: row[state] or 0 for state in ACTIVE})
        holdings.devices[row["device"]] = Held(row["n"], row["size"])
        holdings.total.add(row["n"], row["size"])
    holdings.unread = set(holdings.devices)
    for priority in range(MAX_PRIORITY + 1):
        query = "SELECT min(turn) FROM requests WHERE state IN ('received', 'pending') AND priority = ?"
        holdings.served[priority] = db.execute(query, (priority,)).fetchone()[0] or 0
    return holdings


def oldest_ms(db: sqlite3.Connection) -> dict[State, int]:
    query = "SELECT received_at_ms FROM requests WHERE state = ? ORDER BY seq LIMIT 1"
    rows = ((state, db.execute(query, (state,)).fetchone()) for state in State if state not in TERMINAL)
    return {state: row["received_at_ms"] for state, row in rows if row is not None}


def last_turn(db: sqlite3.Connection, device: str, priority: int) -> int:
    """Returns the last turn among what a device holds at this priority, -1 where it holds nothing."""
    query = f"SELECT max(turn) FROM {HELD} AND device = ? AND priority = ?"
    turn: int | None = db.execute(query, (device, priority)).fetchone()[0]
    return -1 if turn is None else turn
