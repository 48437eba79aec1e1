"""The history table: what happened to each request, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mqrouter.core.records import Seq


def note(db: sqlite3.Connection, notes: Iterable[tuple[Seq, int, str, str | None]]) -> None:
    """Adds (request, time in milliseconds, event, text) each."""
    db.executemany("INSERT INTO history (request, at_ms, event, note) VALUES (?, ?, ?, ?)", notes)
