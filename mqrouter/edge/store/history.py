"""The history table: what happened to each request, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mqrouter.core.records import Seq
from mqrouter.core.states import State
from mqrouter.edge.store.many import insert

_EVENTS = ", ".join(f"'{state}'" for state in State)
_LAST = f"SELECT event FROM history WHERE request = requests.seq AND event IN ({_EVENTS}) ORDER BY seq DESC LIMIT 1"
UNEXPLAINED = (
    f"CASE WHEN state IN ('expired', 'dead', 'cancelled')"
    f" THEN state NOT IN (SELECT event FROM history WHERE request = requests.seq) ELSE state IS NOT ({_LAST}) END"
)
"""Condition: a request whose history does not end in its state; an error's delivery may follow its cause."""

JUDGED = "judged"
"""Event that is no state: what was made of a local answer, as JSON."""

SUSPECTED = "suspected"
"""Event that is no state: the request may be what killed the daemon."""


def note(db: sqlite3.Connection, notes: Iterable[tuple[Seq, int, str, str | None]]) -> None:
    """Adds (request, time in milliseconds, event, text) each."""
    insert(db, "INSERT INTO history (request, at_ms, event, note)", notes)
