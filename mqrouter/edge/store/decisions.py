"""The latest requests with what was decided of each."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.timeline import Now
from mqrouter.edge.store.reading import Page, read_summary
from mqrouter.edge.store.search import find

SHOWN = ("strategy", "reason", "best", "score", "margin", "threshold", "tiers", "when_offline", "refusal", "private_by")


def page_of_decisions(db: sqlite3.Connection, wanted: Selection, *, limit: int, now: Now, after: Seq | None) -> Page:
    """Returns requests, newest first, with a `decision` each: None where it ended before there was one."""
    found = find(db, wanted, limit=limit, now_ms=now.ms, sort=Sort.NEWEST, after=after)
    return Page([read_summary(db, seq, now) | {"decision": _decision(db, seq)} for seq in found.seqs], found.next)


def _decision(db: sqlite3.Connection, seq: Seq) -> dict[str, Any] | None:
    text = db.execute("SELECT decision FROM requests WHERE seq = ?", (seq,)).fetchone()["decision"]
    if not text:
        return None
    decision = json.loads(text)
    return {name: decision.get(name) for name in SHOWN}  # rows of earlier versions lack some
