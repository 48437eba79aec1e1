"""Leases: which tier works on which request. The number of the latest one fences off the answers of earlier ones."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from mqrouter.core.records import Seq, StoredRequest, join_tiers
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.history import note
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request
from mqrouter.errors import ErrorCode

MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found at start."""

    released: int
    dead: int


def recover(db: sqlite3.Connection, outbox: Outbox, now_ms: int) -> Recovery:
    leased = db.execute("SELECT seq, crashes FROM requests WHERE state = 'leased'").fetchall()
    # Waits were counted by a clock that may have been wrong, or is now: what waited is tried again.
    db.execute("UPDATE requests SET not_before_ms = NULL WHERE state = 'pending' AND not_before_ms IS NOT NULL")
    poisoned = [row["seq"] for row in leased if row["crashes"] + 1 >= MAX_CRASHES]
    db.execute("UPDATE requests SET state = 'pending', crashes = crashes + 1 WHERE state = 'leased'")
    note(db, ((row["seq"], now_ms, State.PENDING, "recovered: the daemon stopped meanwhile") for row in leased))
    for seq in poisoned:
        answer = Answer(error=ErrorCode.INTERNAL, error_message="answering this stopped the daemon three times")
        end(db, outbox, _stored(db, seq), answer, State.DEAD, now_ms)
    return Recovery(len(leased) - len(poisoned), len(poisoned))


def claim(
    db: sqlite3.Connection, moved: Counter[str], tier: str, todo_lists: Collection[str], limit: int, now_ms: int
) -> list[StoredRequest]:
    due: list[tuple[int, Seq]] = []
    for todo in todo_lists:  # one index range each: a joint query would have to sort them all
        due += db.execute(
            "SELECT -priority, seq FROM requests WHERE state = 'pending' AND not_before_ms IS NULL"
            " AND todo = ? AND expires_at_ms > ? ORDER BY priority DESC, seq LIMIT ?",
            (todo, now_ms, limit),
        ).fetchall()
    chosen = [seq for _, seq in sorted(map(tuple, due))[:limit]]
    db.executemany(
        "UPDATE requests SET state = 'leased', lease = lease + 1, tier = ? WHERE seq = ?",
        [(tier, seq) for seq in chosen],
    )
    note(db, ((seq, now_ms, State.LEASED, tier) for seq in chosen))
    moved[State.PENDING] -= len(chosen)
    moved[State.LEASED] += len(chosen)
    return [_stored(db, seq) for seq in chosen]


def release(
    db: sqlite3.Connection,
    moved: Counter[str],
    request: StoredRequest,
    waiting: Waiting,
    *,
    text: str,
    now_ms: int,
    is_counted: bool,
    not_before_ms: int | None,
) -> bool:
    done = db.execute(
        "UPDATE requests SET state = 'pending', tiers = ?, todo = ?, not_before_ms = ?,"
        " attempts = attempts + ?, rounds = rounds + ?, tier = NULL"
        " WHERE seq = ? AND state = 'leased' AND lease = ?",
        (
            join_tiers(waiting.tiers),
            join_tiers(waiting.todo),
            not_before_ms,
            is_counted,
            not_before_ms is not None,
            request.seq,
            request.lease,
        ),
    )
    if done.rowcount == 0:
        return False
    note(db, [(request.seq, now_ms, State.PENDING, text)])
    moved[State.LEASED] -= 1
    moved[State.PENDING] += 1
    return True


def release_all(db: sqlite3.Connection, moved: Counter[str], now_ms: int) -> int:
    rows = db.execute("SELECT seq FROM requests WHERE state = 'leased'").fetchall()
    db.execute("UPDATE requests SET state = 'pending', tier = NULL WHERE state = 'leased'")
    note(db, ((row["seq"], now_ms, State.PENDING, "the daemon stopped") for row in rows))
    moved[State.LEASED] -= len(rows)
    moved[State.PENDING] += len(rows)
    return len(rows)


def _stored(db: sqlite3.Connection, seq: Seq) -> StoredRequest:
    return stored_request(db.execute("SELECT * FROM requests WHERE seq = ?", (seq,)).fetchone())
