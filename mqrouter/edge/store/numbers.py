"""Row numbers that no row of this life had before: SQLite alone would give those of purged rows out again."""

from __future__ import annotations

import sqlite3

from mqrouter.core.records import Seq


class Numbers:
    """Of one table, whose key is `seq`."""

    def __init__(self, table: str) -> None:
        self._query = f"SELECT coalesce(max(seq), 0) FROM {table}"
        self._last: Seq = 0
        self._is_read = False

    def pass_over(self, number: Seq) -> None:
        """A row of this number goes: nothing gets it again."""
        self._last = max(self._last, number)

    def next(self, db: sqlite3.Connection) -> Seq:
        """Returns a number above every one given out since the start, and above every row's: rows come from here."""
        if not self._is_read:
            self.pass_over(db.execute(self._query).fetchone()[0])
            self._is_read = True
        self._last += 1
        return self._last
