"""Leases: which tier works on which request. The number of the latest one fences off the answers of earlier ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mqrouter.core.admission import Holdings, Moves
from mqrouter.core.records import Seq, StoredRequest, join_tiers
from mqrouter.core.request import Answer
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.history import JUDGED, SUSPECTED, note
from mqrouter.edge.store.lines import Line
from mqrouter.edge.store.many import run_for, select_each
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request
from mqrouter.errors import ErrorCode

MAX_CRASHES = 3

DUE = (
    "SELECT priority, turn, seq FROM requests INDEXED BY {index} WHERE state = 'pending' AND not_before_ms IS NULL"
    " AND todo = ? AND route IS ? AND expires_at_ms > ?{condition} ORDER BY priority DESC, turn, seq LIMIT ?"
)
ALL_DUE = DUE.format(index="requests_due", condition="")
INNOCENT_DUE = DUE.format(index="requests_due", condition=" AND crashes = 0")
SUSPECTS_DUE = DUE.format(index="requests_suspect", condition=" AND crashes > 0")
LEASE = "UPDATE requests SET state = 'leased', lease = lease + 1, tier = ? WHERE seq IN {values} RETURNING *"
COUNT_DUE = (
    "SELECT count(*) FROM (SELECT 1 FROM requests INDEXED BY requests_due"
    " WHERE state = 'pending' AND not_before_ms IS NULL AND todo = ? AND route IS ? LIMIT ?)"
)
SUSPECTS = "SELECT 1 FROM requests INDEXED BY requests_suspect WHERE state = ? AND crashes > 0 LIMIT 1"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found at start."""

    released: int
    dead: int


def recover(
    db: sqlite3.Connection, outbox: Outbox, now_ms: int, in_hand: Collection[Seq], has_crashed: bool
) -> Recovery:
    """Makes the leases of an earlier life void; where it crashed, what it had in hand is suspected of that.

    A suspect is taken in hand alone among its like. So where one was in hand already, it and nobody else is to blame.
    """
    leased = [row["seq"] for row in db.execute("SELECT seq FROM requests WHERE state = 'leased'")]
    db.execute("UPDATE requests SET state = 'pending', tier = NULL WHERE state = 'leased'")
    note(db, ((seq, now_ms, State.PENDING, "recovered: the daemon stopped meanwhile") for seq in leased))
    poisoned = _blame(db, list(dict.fromkeys([*leased, *in_hand])), now_ms) if has_crashed else []
    uncounted = Moves(Holdings())  # what is there is counted afterwards
    for seq in poisoned:
        answer = Answer(error=ErrorCode.INTERNAL, error_message="answering this stopped the daemon three times")
        end(db, uncounted, outbox, _stored(db, seq), answer, State.DEAD, now_ms)
    return Recovery(len(leased) - len(set(leased) & set(poisoned)), len(poisoned))


def _blame(db: sqlite3.Connection, in_hand: Sequence[Seq], now_ms: int) -> list[Seq]:
    """Counts one crash more for those to blame; returns those that now had one too many."""
    found = [
        db.execute(
            "SELECT seq, crashes FROM requests WHERE seq = ? AND state IN ('received', 'pending')", (seq,)
        ).fetchone()
        for seq in in_hand
    ]
    present = [row for row in found if row is not None]
    blamed = [row for row in present if row["crashes"]] or present
    times = f"of {MAX_CRASHES}: tried again, one such request at a time"
    note(db, [(row["seq"], now_ms, SUSPECTED, f"in hand at crash {row['crashes'] + 1} {times}") for row in blamed])
    db.executemany("UPDATE requests SET crashes = crashes + 1 WHERE seq = ?", [(row["seq"],) for row in blamed])
    return [row["seq"] for row in blamed if row["crashes"] + 1 >= MAX_CRASHES]


def has_suspects(db: sqlite3.Connection) -> bool:
    """True where a request may have crashed an earlier life; asked once, at start."""
    return any(db.execute(SUSPECTS, (state,)).fetchone() for state in (State.RECEIVED, State.PENDING))


def claim(
    db: sqlite3.Connection,
    moved: Moves,
    tier: str,
    lines: Collection[Line],
    limit: int,
    now_ms: int,
    *,
    has_suspects: bool,
    affordable: Callable[[sqlite3.Connection, Sequence[Seq]], int] | None = None,
) -> list[StoredRequest]:
    """Leases the most urgent; `affordable` says how many of them, from the first on, the tier's limits allow."""
    query = INNOCENT_DUE if has_suspects else ALL_DUE
    due = _due(db, query, lines, now_ms, limit)
    if has_suspects and not db.execute(SUSPECTS, (State.LEASED,)).fetchone():
        due += sorted(_due(db, SUSPECTS_DUE, lines, now_ms, 1))[:1]
    chosen = sorted(due)[:limit]
    if affordable is not None:
        chosen = chosen[: affordable(db, [seq for _, _, seq in chosen])]
    leased = {row["seq"]: stored_request(row) for row in run_for(db, LEASE, [seq for _, _, seq in chosen], [tier])}
    note(db, ((seq, now_ms, State.LEASED, tier) for _, _, seq in chosen))
    claimed = [leased[seq] for _, _, seq in chosen]
    for request, (priority, turn, _) in zip(claimed, chosen, strict=True):
        moved.move(State.PENDING, State.LEASED, len(request.payload))
        moved.serve(-priority, turn)
    return claimed


def _due(
    db: sqlite3.Connection, query: str, lines: Collection[Line], now_ms: int, limit: int
) -> list[tuple[int, int, Seq]]:
    """Returns (less of priority, turn, number) of requests due, `limit` of each line: the first to be served first."""
    rows = select_each(db, query, [(*line, now_ms, limit) for line in lines])  # an index range each: nothing is sorted
    return [(-row["priority"], row["turn"], row["seq"]) for row in rows]


def count_due(db: sqlite3.Connection, line: Line, limit: int) -> int:
    return int(db.execute(COUNT_DUE, (*line, limit)).fetchone()[0])


def release(
    db: sqlite3.Connection,
    moved: Moves,
    request: StoredRequest,
    waiting: Waiting,
    *,
    text: str,
    now_ms: int,
    is_counted: bool,
    not_before_ms: int | None,
    judged: str | None = None,
) -> bool:
    done = db.execute(
        "UPDATE requests SET state = 'pending', tiers = ?, todo = ?, not_before_ms = ?,"
        " attempts = attempts + ?, rounds = rounds + ?, tier = NULL, crashes = 0"
        " WHERE seq = ? AND state = 'leased' AND lease = ?",
        (
            join_tiers(waiting.tiers),
            join_tiers(waiting.todo),
            not_before_ms,
            is_counted,
            not_before_ms is not None,
            request.seq,
            request.lease,
        ),
    )
    if done.rowcount == 0:
        return False
    judgement = [] if judged is None else [(request.seq, now_ms, JUDGED, judged)]
    note(db, [*judgement, (request.seq, now_ms, State.PENDING, text)])
    moved.move(State.LEASED, State.PENDING, len(request.payload))
    return True


def release_all(db: sqlite3.Connection, moved: Moves, now_ms: int) -> int:
    rows = db.execute("SELECT seq, bytes FROM requests WHERE state = 'leased'").fetchall()
    db.execute("UPDATE requests SET state = 'pending', tier = NULL WHERE state = 'leased'")
    note(db, ((row["seq"], now_ms, State.PENDING, "the daemon stopped") for row in rows))
    for row in rows:
        moved.move(State.LEASED, State.PENDING, row["bytes"])
    return len(rows)


def _stored(db: sqlite3.Connection, seq: Seq) -> StoredRequest:
    return stored_request(db.execute("SELECT * FROM requests WHERE seq = ?", (seq,)).fetchone())
