"""Databases of many requests, and ways to spoil them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from mqrouter.edge.store.database import PRAGMAS
from mqrouter.edge.store.schema import migrate

PAGE = 4096
ROW_TYPES = ("received", "pending", "answered", "delivered")
TABLE_INNER, TABLE_LEAF, OVERFLOW = 5, 13, 0


def open_rw(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in PRAGMAS:
        db.execute(pragma)
    return db


def fill(db: sqlite3.Connection, rows: int) -> None:
    migrate(db)
    for first in range(1, rows + 1, 100):
        db.execute("BEGIN IMMEDIATE")
        for seq in range(first, first + 100):
            add(db, seq, ROW_TYPES[seq % 4])
        db.execute("COMMIT")


def add(db: sqlite3.Connection, seq: int, state: str) -> None:
    payload = b"q" * (9000 if seq % 50 == 0 else 150)
    key = seq.to_bytes(8, "big") * 4
    db.execute(
        "INSERT INTO requests (seq, id, state, topic, device, payload, payload_hash, dedupe_key, received_at_ms,"
        " expires_at_ms, reply_topic, form, tiers, todo) VALUES (?, ?, ?, 't', 'd1', ?, ?, ?, 1, 2, 'r', 'text',"
        " 'hub', 'hub')",
        (seq, f"{seq:016x}", state, payload, key, key),
    )
    events = {"received": 1, "pending": 2, "answered": 3, "delivered": 4}[state]
    db.executemany(
        "INSERT INTO history (request, at_ms, event, note) VALUES (?, 1, ?, NULL)",
        [(seq, event) for event in ("received", "pending", "answered", "delivered")[:events]],
    )
    if events > 2:
        db.execute(
            "INSERT INTO outbox (request, topic, payload, content_type, user_properties, give_up_at_ms, state)"
            " VALUES (?, 'r', ?, 'text/plain', '[]', 5, ?)",
            (seq, b"a%d" % seq + b"." * 200, "ready" if events == 3 else "done"),
        )


def pages_of_kind(path: Path, kind: int) -> list[int]:
    """Page numbers from 2 on whose first byte is `kind`; the second is the pointer map."""
    data = path.read_bytes()
    return [at // PAGE + 1 for at in range(2 * PAGE, len(data), PAGE) if data[at] == kind]


def overwrite(path: Path, pages: list[int], content: bytes | None = None) -> None:
    chance = random.Random(1)
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(chance.randbytes(PAGE) if content is None else content)


def root(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])
