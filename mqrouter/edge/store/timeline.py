"""The timeline table: where the gateway's own time stands on the machine's clocks."""

from __future__ import annotations

import sqlite3

from mqrouter.core.timeline import Anchor, Clocks


def read(db: sqlite3.Connection) -> tuple[Anchor | None, int]:
    """Returns the anchor, and the latest moment anything is known to have happened at (0: nothing has)."""
    row = db.execute("SELECT now_ms, wall_ms, since_boot_ms, boot_id FROM timeline").fetchone()
    anchor = row and Anchor(row["now_ms"], Clocks(row["wall_ms"], row["since_boot_ms"], row["boot_id"]))
    latest = db.execute("SELECT at_ms FROM history ORDER BY seq DESC LIMIT 1").fetchone()
    return anchor, latest["at_ms"] if latest else 0


def write(db: sqlite3.Connection, anchor: Anchor) -> None:
    clocks = anchor.clocks
    db.execute(
        "INSERT OR REPLACE INTO timeline (id, now_ms, wall_ms, since_boot_ms, boot_id) VALUES (1, ?, ?, ?, ?)",
        (anchor.now_ms, clocks.wall_ms, clocks.since_boot_ms, clocks.boot_id),
    )
