"""Is the database sound, and do its rows agree with each other? Reads only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mqrouter.core.states import OPEN, State
from mqrouter.edge.store.history import UNEXPLAINED
from mqrouter.edge.store.quarantine import sync_file
from mqrouter.edge.store.reading import count_by_state, open_read_only
from mqrouter.edge.store.space import size_of

MAX_PROBLEMS = 100
PAGES_A_STEP = 1000
_STATES = ", ".join(f"'{state}'" for state in State)
_OPEN = ", ".join(f"'{state}'" for state in OPEN)
RULES = {
    "in no known state": f"state NOT IN ({_STATES})",
    "answered, and without an answer": "state = 'answered'"
    " AND seq NOT IN (SELECT request FROM outbox WHERE is_provisional = 0)",
    "not over, and with an answer": f"state IN ({_OPEN})"
    " AND seq IN (SELECT request FROM outbox WHERE is_provisional = 0)",
    "not over, and with a time of its end": f"state IN ({_OPEN}) AND finished_at_ms IS NOT NULL",
    "ended, and without a time of that": f"state NOT IN ({_OPEN}, 'answered') AND finished_at_ms IS NULL",
    "pending, and waiting for no tier": "state = 'pending' AND todo IS NULL",
    "dropped, and without a time of its end": "state = 'dropped' AND dropped_until_ms IS NULL",
    "in a state their history does not tell of": UNEXPLAINED,
}
"""What must not be, as conditions on requests."""


def check(db: sqlite3.Connection) -> dict[str, Any]:
    """Returns `ok`, what is wrong, and what is there; as of one moment, also while the daemon writes."""
    try:
        damage = _damage(db)
        problems = damage or _contradictions(db)
        counts = {} if problems else count_by_state(db)
        size = size_of(db)
    finally:
        db.execute("ROLLBACK")
    return {
        "ok": not problems,
        "problems": problems,
        "is_damaged": bool(damage),
        "requests": counts,
        "used_bytes": size.used,
        "unused_bytes": size.unused,
    }


def _damage(db: sqlite3.Connection) -> list[str]:
    problems: list[str] = []
    try:
        for (text,) in map(tuple, db.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})")):
            if text != "ok":
                problems.append(" ".join(text.split()))
    except sqlite3.DatabaseError as error:
        problems.append(str(error))
    return problems


def _contradictions(db: sqlite3.Connection) -> list[str]:
    problems = [
        f"{row['n']} rows of {row['table']} belong to no {row['parent']}"
        for row in db.execute('SELECT "table", parent, count(*) AS n FROM pragma_foreign_key_check GROUP BY 1, 2')
    ]
    for what, condition in RULES.items():
        number, example = db.execute(f"SELECT count(*), min(id) FROM requests WHERE {condition}").fetchone()
        if number:
            problems.append(f"{number} requests are {what}, {example} for one")
    return problems


def back_up(source: Path, target: Path, progress: Callable[[float], object]) -> int:
    """`target` is a sound copy of the database as it is now, whatever is written meanwhile; returns its size.

    `progress` is told the share that is done. Raises OSError, sqlite3.Error; then `target` is as it was.
    """
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with open_read_only(source) as db, closing(sqlite3.connect(part, isolation_level=None)) as copy:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # what is written from here on is not seen
            db.backup(copy, pages=PAGES_A_STEP, progress=lambda _, left, all_: progress(1 - left / max(1, all_)))
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, complete by itself
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"the copy is damaged, and so is what it was made from: {found}")
        sync_file(part)
        part.replace(target)
        sync_file(target.parent)
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size
