"""Row numbers that no row of this life had before: SQLite alone would give those of purged rows out again."""

from __future__ import annotations

import sqlite3

from mqrouter.core.records import Seq


class Numbers:
    """Of one table, whose key is `seq`."""

    def __init__(self, table: str) -> None:
        self._query = f"SELECT max(seq) FROM {table}"
        self._last: Seq = 0

    def pass_over(self, number: Seq) -> None:
        """A row of this number goes: nothing gets it again."""
        self._last = max(self._last, number)

    def next(self, db: sqlite3.Connection) -> Seq:
        """Returns a number above every one given out since the start, and above every row's."""
        last: Seq | None = db.execute(self._query).fetchone()[0]
        self._last = max(self._last, last or 0) + 1
        return self._last
