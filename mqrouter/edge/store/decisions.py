"""The latest requests with what was decided of each."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.timeline import Now
from mqrouter.edge.store.reading import Page, read_summaries
from mqrouter.edge.store.search import find

SHOWN = ("strategy", "reason", "best", "score", "margin", "threshold", "tiers", "when_offline", "refusal", "private_by")
DECISIONS = "SELECT id, decision FROM requests WHERE seq IN (SELECT value FROM json_each(?))"


def page_of_decisions(db: sqlite3.Connection, wanted: Selection, *, limit: int, now: Now, after: Seq | None) -> Page:
    """Returns requests, newest first, with a `decision` each: None where it ended before there was one."""
    found = find(db, wanted, limit=limit, now_ms=now.ms, sort=Sort.NEWEST, after=after)
    summaries = read_summaries(db, found.seqs, now)
    decisions = {row["id"]: row["decision"] for row in db.execute(DECISIONS, (json.dumps(found.seqs),))}
    return Page([row | {"decision": _shown(decisions[row["id"]])} for row in summaries], found.next)


def _shown(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    decision = json.loads(text)
    return {name: decision.get(name) for name in SHOWN}  # rows of earlier versions lack some
