"""The database while the daemon is down: the same lock, so that it cannot start meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mqrouter.edge.store.endings import purge
from mqrouter.edge.store.lock import hold_lock
from mqrouter.edge.store.schema import INCREMENTAL_VACUUM
from mqrouter.edge.store.space import size_of

ROWS_A_STEP = 500


@contextmanager
def open_alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Raises StoreLockedError while the daemon runs, FileNotFoundError where there is no database."""
    path.stat()
    with hold_lock(path), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        for pragma in ("PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON", "PRAGMA busy_timeout = 5000"):
            db.execute(pragma)
        yield db


def purge_all(db: sqlite3.Connection, before_ms: int) -> int:
    """Deletes requests that finished before then, as the daemon would; returns how many."""
    purged = 0
    while True:
        db.execute("BEGIN IMMEDIATE")
        deleted = purge(db, before_ms, before_ms, ROWS_A_STEP)
        db.execute("COMMIT")
        db.execute(f"PRAGMA incremental_vacuum({ROWS_A_STEP})").fetchall()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        purged += deleted
        if not deleted:
            return purged


def vacuum(db: sqlite3.Connection) -> int:
    """Writes the whole file anew, without its unused pages; returns the bytes it has lost."""
    before = size_of(db)
    db.execute(INCREMENTAL_VACUUM)  # from here on it can shrink while the daemon runs, too
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    after = size_of(db)
    return before.used + before.unused - after.used - after.unused
