"""Finding requests by what an operator knows of them: one page at a time, in the order of an index."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.records import Seq
from mqrouter.core.states import State
from mqrouter.core.steering import WAITING, Selection, Sort

MAX_LOOKED_AT = 20_000
"""Rows one page looks at where no index has all of a selection: it says where to go on rather than read a million."""
MAX_SCATTERED = 10_000
"""The same where the rows lie all over the table."""
MAX_READ = 4_000
"""The same where the text of each has to be read: 30 to 60 ms on the machines measured."""
FAILED = "SELECT 1 FROM history WHERE request = requests.seq AND event = 'pending' AND instr(lower(note), ?) > 0"
ENDS = {Sort.NEWEST: "<", Sort.OLDEST: ">"}
STARTS = {Sort.NEWEST: (1 << 63) - 1, Sort.OLDEST: -1}
FIRST_BATCH, MAX_BATCH = 64, 4_096


@dataclass(frozen=True, slots=True)
class Found:
    """Numbers of requests, in order, and the number to go on after: None where nothing is left to look at."""

    seqs: list[Seq]
    next: Seq | None


def find(
    db: sqlite3.Connection, wanted: Selection, *, limit: int, now_ms: int, sort: Sort, after: Seq | None = None
) -> Found:
    """Returns up to `limit` requests; fewer, and `next`, where it has looked at as many as one page may."""
    most = (MAX_SCATTERED if sort in WAITING_IN else MAX_LOOKED_AT) if not wanted.reads_texts else MAX_READ
    found: list[Seq] = []
    seq = after
    in_order = _waiting_in_order if sort in WAITING_IN else _in_order
    for number, row in enumerate(in_order(db, wanted, now_ms, sort, after)):
        if len(found) == limit or number == most:
            return Found(found, seq)
        seq = row["seq"]
        if row["fits"]:
            found.append(row["seq"])
    return Found(found, None)


def _in_order(
    db: sqlite3.Connection, wanted: Selection, now_ms: int, sort: Sort, after: Seq | None
) -> Iterator[Mapping[str, int]]:
    """Yields numbers from one index range per state, merged: nothing is sorted, however many there are."""
    fits, values = _condition(wanted)
    bounds, limits = _bounds(db, wanted, now_ms)
    if not wanted.states and wanted.route is None and wanted.device is None:
        query = f"SELECT seq, {fits} AS fits FROM requests WHERE TRUE{bounds}"
        return _in_batches(db, query, (*values, *limits), sort, after)
    source, key = _source(wanted)
    query = f"SELECT seq, {fits} AS fits FROM {source} state = ?{bounds}"
    states = wanted.states or tuple(State)
    ranges = (_in_batches(db, query, (*values, *key, state, *limits), sort, after) for state in dict.fromkeys(states))
    sign = -1 if sort is Sort.NEWEST else 1
    return heapq.merge(*ranges, key=lambda row: sign * row["seq"])


def _in_batches(
    db: sqlite3.Connection, query: str, values: Sequence[object], sort: Sort, after: Seq | None
) -> Iterator[Mapping[str, int]]:
    """Yields what `query` selects, each batch from one step of its statement.

    At each step SQLite lets go of the interpreter, and has it back only when a busy loop lets go in its turn.
    """
    order = "DESC" if sort is Sort.NEWEST else "ASC"
    batch = (
        "SELECT json_group_array(CASE WHEN fits THEN seq ELSE -seq END) FROM"
        f" ({query} AND seq {ENDS[sort]} ? ORDER BY seq {order} LIMIT ?)"
    )
    size, place = FIRST_BATCH, STARTS[sort] if after is None else after
    while True:
        signed = json.loads(db.execute(batch, (*values, place, size)).fetchone()[0])
        for number in signed:
            yield {"seq": abs(number), "fits": number > 0}
        if len(signed) < size:
            return
        size, place = min(MAX_BATCH, 4 * size), abs(signed[-1])


WAITING_IN = {
    Sort.EXPIRY: "FROM requests INDEXED BY requests_expiring WHERE state IN ('received', 'pending')"
    " AND (expires_at_ms, seq) > (?, ?) ORDER BY expires_at_ms, seq",
    Sort.ATTEMPTS: "FROM requests INDEXED BY requests_attempted WHERE state = 'pending' AND attempts > 0"
    " AND (attempts, seq) < (?, ?) ORDER BY attempts DESC, seq DESC",
    Sort.PRIORITY: "FROM requests INDEXED BY requests_droppable WHERE state IN ('received', 'pending')"
    " AND priority = ? AND (turn, seq) > (?, ?) ORDER BY turn, seq",
}
"""Waiting requests in the order of an index, from after a place in it."""
FIRST, LAST = -1, (1 << 63) - 1


def _waiting_in_order(
    db: sqlite3.Connection, wanted: Selection, now_ms: int, sort: Sort, after: Seq | None
) -> Iterator[Mapping[str, int]]:
    """Yields numbers of waiting requests; none where those are not wanted, or nobody knows the one to go on after."""
    if wanted.states and not WAITING & set(wanted.states):
        return
    row = None
    if after is not None:
        query = "SELECT priority, turn, expires_at_ms, attempts, seq FROM requests WHERE seq = ?"
        if (row := db.execute(query, (after,)).fetchone()) is None:
            return
    fits, values = _condition(wanted, every=True)
    bounds, limits = _bounds(db, wanted, now_ms)
    query = f"SELECT seq, ({fits}){bounds} AS fits {WAITING_IN[sort]}"
    for place in _places(sort, row):
        yield from db.execute(query, (*values, *limits, *place))


def _places(sort: Sort, row: sqlite3.Row | None) -> Iterator[tuple[int, ...]]:
    """Yields where to go on in the index: one place, and of priorities one in each, the highest first."""
    if sort is Sort.EXPIRY:
        yield (FIRST, FIRST) if row is None else (row["expires_at_ms"], row["seq"])
    elif sort is Sort.ATTEMPTS:
        yield (LAST, LAST) if row is None else (row["attempts"], row["seq"])
    else:
        highest = MAX_PRIORITY if row is None else row["priority"]
        for priority in range(highest, -1, -1):
            is_within = row is not None and priority == row["priority"]
            yield (priority, row["turn"], row["seq"]) if row is not None and is_within else (priority, FIRST, FIRST)


def _source(wanted: Selection) -> tuple[str, list[str]]:
    if wanted.device is not None:
        return "requests INDEXED BY requests_by_device WHERE device = ? AND", [wanted.device]
    if wanted.route is not None:
        return "requests INDEXED BY requests_by_route WHERE route = ? AND", [wanted.route]
    return "requests INDEXED BY requests_by_state WHERE", []


def _condition(wanted: Selection, *, every: bool = False) -> tuple[str, list[object]]:
    """Returns what no index range sees to, as an expression with its values; with `every` none sees to anything."""
    parts: list[str] = []
    values: list[object] = []
    if every and wanted.states:
        parts.append(f"state IN ({', '.join('?' * len(wanted.states))})")
        values += wanted.states
    if every and wanted.device is not None:
        parts.append("device = ?")
        values.append(wanted.device)
    if wanted.route is not None and (every or wanted.device is not None):
        parts.append("route = ?")
        values.append(wanted.route)
    if wanted.tier is not None:
        parts.append("(tier = ? OR state IN ('received', 'pending', 'dropped') AND instr('>' || todo || '>', ?) > 0)")
        values += [wanted.tier, f">{wanted.tier}>"]
    if wanted.priority is not None:
        parts.append("priority = ?")
        values.append(wanted.priority)
    if wanted.error is not None:
        ended = "instr(lower(coalesce(reason, '') || ' ' || coalesce(detail, '')), ?) > 0"
        parts.append(f"({ended} OR EXISTS ({FAILED}))")
        values += [wanted.error.lower()] * 2
    if wanted.text is not None:
        parts.append("instr(lower(CAST(payload AS TEXT)), ?) > 0")
        values.append(wanted.text.lower())
    return " AND ".join(parts) or "1", values


def _bounds(db: sqlite3.Connection, wanted: Selection, now_ms: int) -> tuple[str, list[Seq]]:
    """Returns the ages as bounds of numbers: requests are numbered in the order in which they came in."""
    bounds, limits = "", list[Seq]()
    if wanted.older_than_s is not None:
        bounds += " AND seq < ?"
        limits.append(first_since(db, now_ms - int(1000 * wanted.older_than_s) + 1))
    if wanted.newer_than_s is not None:
        bounds += " AND seq >= ?"
        limits.append(first_since(db, now_ms - int(1000 * wanted.newer_than_s)))
    return bounds, limits


def first_since(db: sqlite3.Connection, at_ms: int) -> Seq:
    """Returns the number of the first request received at that time or later, or the next that will be given out."""
    low: Seq = db.execute("SELECT coalesce(min(seq), 1) FROM requests").fetchone()[0]
    high: Seq = db.execute("SELECT coalesce(max(seq), 0) + 1 FROM requests").fetchone()[0]
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT seq, received_at_ms FROM requests WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row["received_at_ms"] >= at_ms:
            high = middle
        else:
            low = row["seq"] + 1
    return low
