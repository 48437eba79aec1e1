"""Looking without touching: what the commands read, also while the daemon is down.

A connection of its own, opened read-only: it never writes and never checkpoints, so the daemon stays the one writer.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mqrouter.core.records import Seq, split_tiers
from mqrouter.core.states import ACTIVE
from mqrouter.core.steering import Selection, Sort
from mqrouter.core.timeline import Clocks, Now, resume
from mqrouter.core.waiting import Standing, TierStanding
from mqrouter.edge.store import feedback, steering, timeline
from mqrouter.edge.store.search import find

COLUMNS = (
    *("seq", "id", "client_id", "state", "reason", "detail", "device", "route", "tier", "todo", "tiers", "priority"),
    *("is_private", "crashes", "attempts", "received_at_ms", "expires_at_ms", "not_before_ms", "finished_at_ms"),
    *("dropped_until_ms", "model"),
)
LAST_FAILURE = (
    "SELECT note FROM history WHERE request = requests.seq AND event = 'pending' AND note LIKE '%: %'"
    " ORDER BY seq DESC LIMIT 1"
)
# What is over did not end of the failures before.
FAILURE = f"CASE state WHEN 'pending' THEN ({LAST_FAILURE}) END"
SUMMARIES = (
    f"SELECT json_group_array(json_array({', '.join(COLUMNS)}, {FAILURE})) FROM requests"
    " WHERE seq IN (SELECT value FROM json_each(?))"
)

WAITING_BY_TURN = "requests INDEXED BY requests_droppable WHERE state IN ('received', 'pending')"
BEFORE_BY_PRIORITY = f"SELECT count(*) FROM (SELECT 1 FROM {WAITING_BY_TURN} AND priority > ? LIMIT ?)"
BEFORE_BY_TURN = (
    f"SELECT count(*) FROM (SELECT 1 FROM {WAITING_BY_TURN} AND priority = ? AND (turn, seq) < (?, ?) LIMIT ?)"
)


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    next: Seq | None
    """The number to go on after; None where nothing is left to look at. A page may be short, and go on."""


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Raises OSError where there is no database, or none this user may see; sqlite3.Error where it cannot be read."""
    db = connect_read_only(path)
    try:
        db.execute("BEGIN")  # all that is read here is of one moment
        yield db
    finally:
        db.close()


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Raises OSError where there is no database, or none this user may see; sqlite3.Error where it cannot be read."""
    path.stat()
    # Who may not write beside the file can read it all the same while nobody writes: then there is no log beside it.
    is_quiet = not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK)
    mode = "immutable=1" if is_quiet else "mode=ro"
    db = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=5.0, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


def gateway_now(db: sqlite3.Connection, clocks: Clocks) -> Now:
    """Returns the gateway's time, also where no daemon runs."""
    now_ms = resume(*timeline.read(db), clocks)
    return Now(now_ms, clocks.wall_ms - now_ms)


def list_requests(
    db: sqlite3.Connection, *, states: tuple[str, ...], route: str | None, device: str | None, limit: int, now: Now
) -> Page:
    """Returns requests, newest first; without `states` those of every state."""
    return page_of(db, Selection(states=states, route=route, device=device), limit=limit, now=now)


def page_of(
    db: sqlite3.Connection,
    wanted: Selection,
    *,
    limit: int,
    now: Now,
    sort: Sort = Sort.NEWEST,
    after: Seq | None = None,
) -> Page:
    """Returns requests from after number `after` on."""
    found = find(db, wanted, limit=limit, now_ms=now.ms, sort=sort, after=after)
    return Page(read_summaries(db, found.seqs, now), found.next)


def read_summaries(db: sqlite3.Connection, seqs: Sequence[Seq], now: Now) -> list[dict[str, Any]]:
    """Returns them in this order, from one step of SQLite: after each, the thread waits for the interpreter."""
    text = db.execute(SUMMARIES, (json.dumps(seqs),)).fetchone()[0]
    rows = (dict(zip((*COLUMNS, "failure"), values, strict=True)) for values in json.loads(text))
    found = {row["seq"]: _summary(row, now) for row in rows}
    return [found[seq] for seq in seqs]


def show_request(db: sqlite3.Connection, request_id: str, now: Now) -> dict[str, Any] | None:
    """Returns everything about one request, found by its id or by the requester's own (then the latest)."""
    row = db.execute(
        f"SELECT *, {FAILURE} AS failure FROM requests WHERE seq = coalesce("
        "(SELECT seq FROM requests WHERE id = :id),"
        " (SELECT seq FROM requests WHERE client_id = :id ORDER BY seq DESC LIMIT 1))",
        {"id": request_id},
    ).fetchone()
    if row is None:
        return None
    history = db.execute("SELECT at_ms, event, note FROM history WHERE request = ? ORDER BY seq", (row["seq"],))
    answer = db.execute(
        "SELECT state, payload, topic, tries, is_provisional FROM outbox WHERE request = ?", (row["seq"],)
    ).fetchone()
    is_waiting = row["state"] in ("received", "pending")
    return _summary(dict(row), now) | {
        "waiting_before": waiting_before(db, row["id"]) if is_waiting else None,
        "topic": row["topic"],
        "reply_topic": row["reply_topic"],
        "correlation": None if row["correlation"] is None else row["correlation"].hex(),
        "content_type": row["content_type"],
        "session": row["session"],
        "traceparent": row["traceparent"],
        "max_bytes": row["max_bytes"],
        "bytes": row["bytes"],
        "form": row["form"],
        "payload": row["payload"].decode("utf-8", "replace"),
        "decision": json.loads(row["decision"]) if row["decision"] else None,
        "confidence": row["confidence"],
        "answer": answer and answer["payload"].decode("utf-8", "replace"),
        "answer_state": answer and answer["state"],
        "answer_is_provisional": bool(answer and answer["is_provisional"]),
        "verdicts": [
            entry | {"at_ms": entry["at_ms"] + now.offset_ms} for entry in feedback.of_request(db, row["seq"])
        ],
        "history": [dict(entry) | {"at_ms": entry["at_ms"] + now.offset_ms} for entry in history],
    }


def last_known(db: sqlite3.Connection, now: Now) -> Standing:
    """Returns what the database tells of a daemon that is down: its operators' pauses, its tiers' own wishes."""
    tiers = {name: TierStanding(paused_by=pause.actor) for name, pause in steering.paused(db).items()}
    for name, until_ms in steering.holds(db).items():
        if until_ms > now.ms:
            tiers.setdefault(name, TierStanding(held_s=(until_ms - now.ms) / 1000))
    routes = {name: pause.actor for name, pause in steering.paused_routes(db).items()}
    return Standing(tiers, routes, is_live=False)


def waiting_before(db: sqlite3.Connection, request_id: str, most: int = 1000) -> int:
    """Returns how many waiting requests come before this waiting one, for whichever tier; `most` at most."""
    row = db.execute("SELECT priority, turn, seq FROM requests WHERE id = ?", (request_id,)).fetchone()
    found = db.execute(BEFORE_BY_PRIORITY, (row["priority"], most)).fetchone()[0]
    found += db.execute(BEFORE_BY_TURN, (row["priority"], row["turn"], row["seq"], most)).fetchone()[0]
    return min(int(found), most)


MASKED = ("payload", "answer")


def masked(shown: dict[str, Any]) -> dict[str, Any]:
    """Returns what `show_request` does without what was asked and answered: None, with the number of characters."""
    chars = {f"{name}_chars": None if shown[name] is None else len(shown[name]) for name in MASKED}
    return shown | dict.fromkeys(MASKED) | chars


def open_requests_under(db: sqlite3.Connection, client_id: str) -> list[dict[str, Any]]:
    """Returns the waiting requests that carry this id of the requester's own: several devices may count from 1."""
    rows = db.execute(
        "SELECT id, device FROM requests WHERE client_id = ? AND state IN ('received', 'pending', 'leased')",
        (client_id,),
    )
    return [dict(row) for row in rows]


def list_actions(db: sqlite3.Connection, limit: int, now: Now) -> list[dict[str, Any]]:
    """Returns what operators did, newest first."""
    rows = db.execute("SELECT at_ms, actor, action, target FROM actions ORDER BY seq DESC LIMIT ?", (limit,))
    return [dict(row) | {"at_ms": row["at_ms"] + now.offset_ms} for row in rows]


def count_by_state(db: sqlite3.Connection) -> dict[str, int]:
    return {row["state"]: row["n"] for row in db.execute("SELECT state, count(*) AS n FROM requests GROUP BY state")}


def stats(db: sqlite3.Connection, now: Now) -> dict[str, Any]:
    """Returns how many requests there are by state and by route, and what the pending ones wait for.

    Each is counted from an index, and reads all of it.
    """
    query = (
        "SELECT route, state, count(*) AS n FROM requests INDEXED BY requests_by_route GROUP BY route, state"
        " ORDER BY route, state"
    )
    routes = [{"route": row["route"], "state": row["state"], "requests": row["n"]} for row in db.execute(query)]
    states: dict[str, int] = {}
    for entry in routes:
        states[entry["state"]] = states.get(entry["state"], 0) + entry["requests"]
    oldest_ms = oldest_pending_ms(db)
    oldest_s = None if oldest_ms is None else round((now.ms - oldest_ms) / 1000, 1)
    return {"requests": states, "routes": routes, "waiting": _waiting(db), "oldest_waiting_s": oldest_s}


def _waiting(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Returns how many pending requests wait for each list of tiers."""
    found: Counter[str] = Counter()
    for index, condition in (("requests_due", "IS NULL"), ("requests_resting", "IS NOT NULL")):
        query = (
            f"SELECT todo, count(*) AS n FROM requests INDEXED BY {index}"
            f" WHERE state = 'pending' AND not_before_ms {condition} GROUP BY todo"
        )
        found.update({row["todo"]: row["n"] for row in db.execute(query)})
    return [{"tiers": split_tiers(todo), "requests": count} for todo, count in sorted(found.items())]


def oldest_pending_ms(db: sqlite3.Connection) -> int | None:
    """Returns when the oldest request without an answer was received, or None."""
    query = "SELECT received_at_ms FROM requests WHERE state = ? ORDER BY seq LIMIT 1"
    oldest = (db.execute(query, (state,)).fetchone() for state in ACTIVE)
    return min((row["received_at_ms"] for row in oldest if row is not None), default=None)


def _summary(row: Mapping[str, Any], now: Now) -> dict[str, Any]:
    return {
        "id": row["id"],
        "client_id": row["client_id"],
        "state": row["state"],
        "reason": row["reason"],
        "detail": row["detail"] or row["failure"],
        "last_failure": row["failure"],
        "is_suspect": row["crashes"] > 0,
        "device": row["device"],
        "route": row["route"],
        "tier": row["tier"],
        "waiting_for": row["todo"] if row["state"] == "pending" else None,
        "priority": row["priority"],
        "private": bool(row["is_private"]),
        "attempts": row["attempts"],
        "age_s": round((now.ms - row["received_at_ms"]) / 1000, 1),
        "expires_in_s": round((row["expires_at_ms"] - now.ms) / 1000, 1) if row["finished_at_ms"] is None else None,
        "next_attempt_in_s": None
        if row["not_before_ms"] is None
        else round(max(0, row["not_before_ms"] - now.ms) / 1000, 1),
        "dropped_for_s": None
        if row["state"] != "dropped"
        else round(max(0, row["dropped_until_ms"] - now.ms) / 1000, 1),
        "model": row["model"],
        "received_at_ms": row["received_at_ms"] + now.offset_ms,
    }
