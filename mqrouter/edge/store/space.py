"""The room the database takes: counted, and given back in steps that hold nobody up."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from mqrouter.edge.store.database import Database

INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Size:
    """Of the database file, bytes."""

    used: int
    unused: int
    can_shrink: bool
    """False for a database made before it could give pages back one by one; `mqrouter db vacuum` mends that."""


class Space:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def size(self) -> Size:
        return await self._database.read(size_of)

    async def shrink(self, pages: int) -> None:
        """So many unused pages go back to the file system with the next checkpoint."""
        await self._database.write(lambda db: db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall())

    async def checkpoint(self) -> None:
        """The log is in the database, and empty: as far as no reader holds it back."""
        await self._database.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())


def size_of(db: sqlite3.Connection) -> Size:
    page_bytes, pages, unused, vacuum = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
    )
    return Size((pages - unused) * page_bytes, unused * page_bytes, vacuum == INCREMENTAL)
