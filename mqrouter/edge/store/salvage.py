"""What can still be read of a damaged database, in a new one that is sound and true to itself.

First by SQL: in order of the key until an error, on behind the damage, and backwards up to it. Where that leaves
holes, page by page without the trees. Then rows that contradict each other are put right.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mqrouter.core.states import OPEN, TERMINAL, State, may_move
from mqrouter.edge.store.history import UNEXPLAINED, note
from mqrouter.edge.store.log_file import damage_of_log
from mqrouter.edge.store.pages import Record, open_pages, read_records
from mqrouter.edge.store.quarantine import newest_quarantine, sync_file, write_durably
from mqrouter.edge.store.schema import INCREMENTAL_VACUUM, migrate

REPORT = "salvage.json"
SALVAGED = "salvaged"
"""Event of a request that is not explained by what came before it: damage took that."""
FIRST_STATES = frozenset({State.RECEIVED, State.DEAD})
ROWS_AT_ONCE = 2000
LAST_ROWID = (1 << 63) - 1
EVERYTHING = (-LAST_ROWID, LAST_ROWID)
MAX_LOST_RANGES = 50
PROGRESS = {State.DROPPED: -1, State.RECEIVED: 0, State.PENDING: 1, State.LEASED: 1, State.ANSWERED: 2} | dict.fromkeys(
    TERMINAL, 3
)
"""A request that may have been brought back is: to answer it once more than wanted is the lesser evil."""
STATES = ", ".join(f"'{state}'" for state in State)
WITHOUT_ANSWER = ", ".join(f"'{state}'" for state in OPEN)

Row = tuple[Any, ...]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged database."""

    quarantined_to: str
    reason: str
    at_ms: int
    requests: int = 0
    answers: int = 0
    history: int = 0
    packets: int = 0
    from_pages: int = 0
    """Requests among them that only the pages still held."""
    asked_again: int = 0
    """Requests whose answer was lost."""
    dangling: int = 0
    """Answers and history entries whose request was lost; they are not kept."""
    lost_ranges: tuple[Range, ...] = ()
    """Numbers of requests, first and last, between others that were read: lost, or purged long ago."""
    error: str | None = None
    """Why it stopped before its end: what it had not reached is in the quarantine still."""


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    required: tuple[bool, ...]
    key: int | None
    """Which column is another name of the rowid."""

    @property
    def key_name(self) -> str:
        return "rowid" if self.key is None else self.columns[self.key]

    def takes(self, values: Sequence[Any]) -> bool:
        """True where a record can be a row of this table; older rows have fewer columns."""
        least = max((index + 1 for index, is_required in enumerate(self.required) if is_required), default=1)
        return least <= len(values) <= len(self.columns) and all(
            value is None if index == self.key else _fits(value, self.types[index], self.required[index])
            for index, value in enumerate(values)
        )


@dataclass(slots=True)
class _Work:
    target: sqlite3.Connection
    counts: Counter[str] = field(default_factory=Counter)
    holes: dict[str, list[Range]] = field(default_factory=dict)
    """By table: the keys SQL could not read."""


def salvage(source: Path, target: Path, *, reason: str, now_ms: int) -> Salvage:
    """Makes the database `target`, which must not exist, of what reads in `source`; never raises for damage."""
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute(INCREMENTAL_VACUUM)
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA synchronous = OFF")  # synced once, when it is whole
        migrate(db)
        work = _Work(db)
        error = None
        try:
            _read_all(source, work)
        except (sqlite3.Error, OSError) as problem:  # the new file takes no more
            error = f"{type(problem).__name__}: {problem}"
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        changes, rows = _put_right(db, _latest_ms(db) or now_ms), _counted(db)
        result = Salvage(
            quarantined_to=str(source.parent),
            reason=reason,
            at_ms=now_ms,
            requests=rows["requests"],
            answers=rows["outbox"],
            history=rows["history"],
            packets=rows["packets"],
            from_pages=work.counts["from_pages"],
            asked_again=changes["asked_again"],
            dangling=changes["dangling"],
            lost_ranges=tuple(_still_missing(db, work.holes.get("requests", []))),
            error=error,
        )
    sync_file(target)
    return result


def _latest_ms(db: sqlite3.Connection) -> int | None:
    """Returns when the last thing happened, by the gateway's own time: nothing that is noted now may be later."""
    latest: int | None = db.execute("SELECT max(at_ms) FROM history").fetchone()[0]
    return latest


def write_report(folder: Path, result: Salvage) -> None:
    write_durably(folder / REPORT, json.dumps(asdict(result), indent=2))


def latest_report(data_dir: Path) -> dict[str, Any] | None:
    """Returns what the latest salvage came to, for as long as its quarantine is there."""
    folder = newest_quarantine(data_dir)
    if folder is None:
        return None
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report


# --- reading ----------------------------------------------------------------------------------------


def _read_all(source: Path, work: _Work) -> None:
    tables = _tables(work.target)
    if damage_of_log(source) is not None:  # SQL reads all of what was true before
        work.holes = {table.name: [EVERYTHING] for table in tables}
    try:
        with closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, isolation_level=None)) as db:
            db.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for table in tables:
                _read_table(db, table, work)
    except sqlite3.Error:
        work.holes = {table.name: [EVERYTHING] for table in tables}
    if any(work.holes.values()):
        _read_pages(source, tables, work)


def _tables(db: sqlite3.Connection) -> list[_Table]:
    """Returns the tables of a sound database in the order they were made."""
    names = [
        row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]
    return [_described(name, db.execute(f"PRAGMA table_info({name})").fetchall()) for name in names]


def _described(name: str, columns: Sequence[Sequence[Any]]) -> _Table:
    keys = [index for index, column in enumerate(columns) if column[5]]
    is_alias = len(keys) == 1 and columns[keys[0]][2].upper() == "INTEGER"
    return _Table(
        name,
        tuple(column[1] for column in columns),
        tuple(column[2].upper() for column in columns),
        tuple(bool(column[3]) and column[4] is None for column in columns),
        keys[0] if is_alias else None,
    )


def _read_table(db: sqlite3.Connection, table: _Table, work: _Work) -> None:
    try:
        known = {row[1] for row in db.execute(f"PRAGMA table_info({table.name})")}
    except sqlite3.Error:
        known = set()
    columns = [name for name in table.columns if name in known]
    if not columns:
        work.holes[table.name] = [EVERYTHING]
        return
    holes = work.holes.setdefault(table.name, [])
    query = f"SELECT {table.key_name}, {', '.join(columns)} FROM {table.name} NOT INDEXED WHERE {table.key_name}"
    types = [(table.types[table.columns.index(name)], table.required[table.columns.index(name)]) for name in columns]
    rows = (row[1:] for row in _rows(db, query, table.key_name, holes) if _is_sound(row[1:], types))
    insert = f"INSERT OR IGNORE INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        work.target.execute("BEGIN IMMEDIATE")
        work.target.executemany(insert, batch)
        work.target.execute("COMMIT")


def _rows(db: sqlite3.Connection, query: str, key: str, holes: list[Range]) -> Iterator[Row]:
    """Yields rows in order of their key, over every hole; adds the holes, ends included, to `holes`."""
    at = -LAST_ROWID
    while True:
        last = at - 1
        try:
            for row in db.execute(f"{query} >= ? ORDER BY {key}", (at,)):
                if row[0] <= last:  # the tree runs in a circle
                    raise sqlite3.DatabaseError("keys out of order")
                last = row[0]
                yield row
            return
        except sqlite3.Error:
            start = last + 1
        following = _next_readable(db, f"{query} >= ? ORDER BY {key} LIMIT 1", start)
        end = LAST_ROWID if following is None else following - 1
        backwards = list(_backwards(db, f"{query} BETWEEN ? AND ? ORDER BY {key} DESC", start, end))
        yield from reversed(backwards)
        holes.append((start, backwards[-1][0] - 1 if backwards else end))
        if following is None:
            return
        at = following


def _next_readable(db: sqlite3.Connection, query: str, failed: int) -> int | None:
    """Returns the least key above `failed` whose row reads, or None: steps that double, then halves."""
    step, low = 1, failed
    while True:
        high = failed + step
        if high > LAST_ROWID:
            return None
        try:
            row = db.execute(query, (high,)).fetchone()
        except sqlite3.Error:
            step, low = 2 * step, high
            continue
        if row is None:
            return _bisected(db, query, low, high)
        return _bisected(db, query, low, row[0])


def _bisected(db: sqlite3.Connection, query: str, low: int, high: int) -> int | None:
    """`low` fails, `high` does not: returns the first readable key between them, None where no row follows."""
    found: int | None = None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            row = db.execute(query, (middle,)).fetchone()
        except sqlite3.Error:
            low = middle
        else:
            found, high = (None if row is None else row[0]), middle
    if found is None:
        with suppress(sqlite3.Error):
            row = db.execute(query, (high,)).fetchone()
            found = None if row is None else row[0]
    return found


def _backwards(db: sqlite3.Connection, query: str, start: int, end: int) -> Iterator[Row]:
    last = end + 1
    with suppress(sqlite3.Error):
        for row in db.execute(query, (start, end)):
            if not start <= row[0] < last:
                return
            last = row[0]
            yield row


def _is_sound(values: Sequence[Any], types: Iterable[tuple[str, bool]]) -> bool:
    return all(_fits(value, kind, is_required) for value, (kind, is_required) in zip(values, types, strict=True))


def _fits(value: Any, kind: str, is_required: bool) -> bool:
    if value is None:
        return not is_required
    match kind:
        case "INTEGER":
            return isinstance(value, int)
        case "REAL":
            return isinstance(value, (int, float))
        case "TEXT":
            return isinstance(value, str)
        case "BLOB":
            return isinstance(value, bytes)
        case _:
            return True


# --- pages ------------------------------------------------------------------------------------------


def _read_pages(source: Path, tables: Sequence[_Table], work: _Work) -> None:
    """Adds what the trees did not lead to; of two versions of a row the most advanced stays."""
    holes = [hole for ranges in work.holes.values() for hole in ranges]
    torn = [table for table in tables if work.holes.get(table.name)]
    records = read_records(open_pages(source), lambda key: any(start <= key <= end for start, end in holes))
    rows = (found for record in records if (found := _recognised(record, torn)) is not None)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        work.target.execute("BEGIN IMMEDIATE")
        for table, row in batch:
            _add(work, table, row)
        work.target.execute("COMMIT")


def _recognised(record: Record, tables: Sequence[_Table]) -> tuple[_Table, dict[str, Any]] | None:
    for table in tables:
        if table.takes(record.values):
            row = dict(zip(table.columns, record.values, strict=False))
            if table.key is not None:
                row[table.columns[table.key]] = record.rowid
            if table.name != "requests" or row["state"] in PROGRESS:
                return table, row
    return None


def _add(work: _Work, table: _Table, row: dict[str, Any]) -> None:
    match table.name:
        case "requests":
            _add_request(work, table, row)
        case "outbox":
            known = work.target.execute("SELECT seq FROM outbox WHERE request = ?", (row["request"],)).fetchone()
            if known is None or known["seq"] < row["seq"]:  # an answer offered again got a new number
                work.target.execute("DELETE FROM outbox WHERE request = ?", (row["request"],))
                _insert(work.target, table, row)
        case "packets":
            known = work.target.execute("SELECT request FROM packets WHERE mid = ?", (row["mid"],)).fetchone()
            if known is None or known["request"] < row["request"]:
                _insert(work.target, table, row, "REPLACE")
        case _:
            _insert(work.target, table, row)


def _add_request(work: _Work, table: _Table, row: dict[str, Any]) -> None:
    known = work.target.execute("SELECT * FROM requests WHERE seq = ?", (row["seq"],)).fetchone()
    if known is not None and _progress(known) >= _progress(row):
        return
    if known is None:
        work.counts["from_pages"] += 1
    else:
        work.target.execute("DELETE FROM requests WHERE seq = ?", (row["seq"],))
    if not _insert(work.target, table, row):
        _insert(work.target, table, row | {"dedupe_key": None})  # a later request has it


def _progress(row: Any) -> tuple[int, int, int, int]:
    return PROGRESS[State(row["state"])], row["lease"], row["rounds"], row["attempts"]


def _insert(db: sqlite3.Connection, table: _Table, row: dict[str, Any], conflict: str = "IGNORE") -> bool:
    marks = ", ".join("?" * len(row))
    done = db.execute(
        f"INSERT OR {conflict} INTO {table.name} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
    )
    return done.rowcount > 0


# --- what contradicts itself ------------------------------------------------------------------------


def _put_right(db: sqlite3.Connection, now_ms: int) -> Counter[str]:
    """Every row is explained by the others again; returns the counts of what was changed."""
    changes: Counter[str] = Counter()

    try:
        db.execute("BEGIN IMMEDIATE")
        for table in ("outbox", "history", "feedback"):
            query = f"DELETE FROM {table} WHERE request NOT IN (SELECT seq FROM requests)"
            changes["dangling"] += db.execute(query).rowcount
        db.execute("UPDATE requests SET bytes = length(payload) WHERE bytes <> length(payload)")  # of an older schema
        _give_answers_their_state(db, now_ms)
        changes["asked_again"] = _ask_again(db, now_ms)
        _explain(db, now_ms)
        db.execute("COMMIT")
    except sqlite3.Error:  # no space: the rows are there, and a missing explanation is the lesser evil
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
    return changes


def _give_answers_their_state(db: sqlite3.Connection, now_ms: int) -> None:
    """A request that has an answer is not asked again, whatever its own row says."""
    rows = db.execute(
        f"SELECT requests.seq, outbox.state FROM requests JOIN outbox ON outbox.request = requests.seq"
        f" WHERE requests.state IN ({WITHOUT_ANSWER}) AND is_provisional = 0"
    ).fetchall()
    ends = {"ready": State.ANSWERED, "done": State.DELIVERED, "given_up": State.UNDELIVERED}
    for row in rows:
        state = ends[row["state"]]
        finished_at_ms = None if state is State.ANSWERED else now_ms
        db.execute(
            "UPDATE requests SET state = ?, finished_at_ms = ? WHERE seq = ?", (state, finished_at_ms, row["seq"])
        )
        steps = [State.ANSWERED] if state is State.ANSWERED else [State.ANSWERED, state]
        note(db, [(row["seq"], now_ms, step, "its answer was there") for step in steps])


def _ask_again(db: sqlite3.Connection, now_ms: int) -> int:
    rows = db.execute(
        "SELECT seq FROM requests WHERE state = 'answered'"
        " AND seq NOT IN (SELECT request FROM outbox WHERE is_provisional = 0)"
    ).fetchall()
    db.executemany(
        "UPDATE requests SET state = 'received', tiers = NULL, todo = NULL, not_before_ms = NULL, reason = NULL,"
        " detail = NULL, tier = NULL, model = NULL WHERE seq = ?",
        [(row["seq"],) for row in rows],
    )
    note(db, [(row["seq"], now_ms, State.RECEIVED, "its answer was lost") for row in rows])
    return len(rows)


def _explain(db: sqlite3.Connection, now_ms: int) -> None:
    """What a request's history does not tell, for entries or an answer are lost, is told as it was found."""
    broken = dict.fromkeys(_broken_lives(db), "its history was lost in part")
    silent = db.execute(f"SELECT seq FROM requests WHERE {UNEXPLAINED}")
    broken |= {row["seq"]: "its history was lost" for row in silent}
    unanswered = db.execute(
        f"SELECT seq FROM requests WHERE reply_topic IS NOT NULL AND state NOT IN ({WITHOUT_ANSWER})"
        f" AND seq NOT IN (SELECT request FROM outbox)"
    )
    broken |= {row["seq"]: "its answer was lost" for row in unanswered}
    for seq, why in broken.items():
        state = db.execute("SELECT state FROM requests WHERE seq = ?", (seq,)).fetchone()["state"]
        note(db, [(seq, now_ms, SALVAGED, why), (seq, now_ms, state, None)])


def _broken_lives(db: sqlite3.Connection) -> Iterator[int]:
    """Yields requests whose history does not begin at the beginning, or leaves a step out."""
    rows = db.execute(f"SELECT request, event FROM history WHERE event IN ({STATES}) ORDER BY request, seq")
    for request, entries in groupby(rows, itemgetter("request")):
        states = [State(entry["event"]) for entry in entries]
        moves = pairwise(states)
        if states[0] not in FIRST_STATES or not all(may_move(old, new) or old in TERMINAL for old, new in moves):
            yield request


def _still_missing(db: sqlite3.Connection, holes: Iterable[Range]) -> Iterator[Range]:
    """Yields what no row fills of the holes, at most MAX_LOST_RANGES; nothing is known behind the last row."""
    last = db.execute("SELECT max(seq) FROM requests").fetchone()[0] or 0
    missing = (gap for start, end in holes for gap in _gaps(db, max(start, 1), end if end < last else last))
    yield from islice(missing, MAX_LOST_RANGES)


def _gaps(db: sqlite3.Connection, start: int, end: int) -> Iterator[Range]:
    for row in db.execute("SELECT seq FROM requests WHERE seq BETWEEN ? AND ? ORDER BY seq", (start, end)):
        if row["seq"] > start:
            yield start, row["seq"] - 1
        start = row["seq"] + 1
    if start <= end:
        yield start, end


def _counted(db: sqlite3.Connection) -> dict[str, int]:
    tables = ("requests", "outbox", "history", "packets")
    return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
