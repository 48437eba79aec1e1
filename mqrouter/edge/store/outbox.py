"""The outbox table: answers until the broker has acknowledged them; one of each request, see `provisional`."""

from __future__ import annotations

import json
import sqlite3

from mqrouter.core.admission import Moves
from mqrouter.core.records import OutboxRow, Seq
from mqrouter.core.request import OutMessage
from mqrouter.core.states import State
from mqrouter.edge.store.history import note
from mqrouter.edge.store.numbers import Numbers
from mqrouter.edge.store.rows import outbox_row

NEXT_TIMES = (
    "SELECT not_before_ms FROM outbox WHERE state = 'ready' AND not_before_ms IS NOT NULL"
    " ORDER BY not_before_ms LIMIT 1",
    "SELECT give_up_at_ms FROM outbox WHERE state = 'ready' ORDER BY give_up_at_ms LIMIT 1",
)
"""Queries: when the next answer comes due, and when the next one is given up."""


class Outbox:
    """Gives each answer its number, its place in the order of publishing, inside a transaction.

    Every answer is offered at least `grace_ms` long from then on.
    """

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._numbers = Numbers("outbox")  # `ready_after` is asked with the last one seen

    def post(
        self,
        db: sqlite3.Connection,
        moved: Moves,
        request: Seq,
        message: OutMessage,
        now_ms: int,
        *,
        wanted_until_ms: int = 0,
        is_provisional: bool = False,
    ) -> None:
        db.execute(
            "INSERT INTO outbox (seq, request, topic, payload, correlation, content_type, user_properties,"
            " message_expires_at_ms, give_up_at_ms, is_provisional) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._numbers.next(db),
                request,
                message.topic,
                message.payload,
                message.correlation,
                message.content_type,
                json.dumps(message.user_properties),
                message.expires_at_ms,
                max(wanted_until_ms, now_ms + self._grace_ms),
                is_provisional,
            ),
        )
        moved.answers += 1

    def withdraw(self, db: sqlite3.Connection, moved: Moves, request: Seq) -> sqlite3.Row | None:
        """The request has no provisional answer any more; returns the row it had.

        Its number is not given out again: who reads in order may be past it.
        """
        row: sqlite3.Row | None = db.execute(
            "DELETE FROM outbox WHERE request = ? AND is_provisional = 1"
            " RETURNING seq, state, payload, user_properties",
            (request,),
        ).fetchone()
        if row is not None:
            self._numbers.pass_over(row["seq"])
            moved.answers -= row["state"] == "ready"
        return row

    def pass_over_all(self, db: sqlite3.Connection) -> None:
        """At start: no number of an earlier life's answer is given out again, even once that answer is purged."""
        self._numbers.next(db)

    def offer_again(self, db: sqlite3.Connection, moved: Moves, request: Seq, now_ms: int) -> None:
        """The answer of this request, where it has one, is ready under a new number: after all already published."""
        was_ready = is_ready(db, request)
        done = db.execute(
            "UPDATE outbox SET state = 'ready', not_before_ms = NULL, give_up_at_ms = max(give_up_at_ms, ?),"
            " seq = ? WHERE request = ? AND (state <> 'ready' OR not_before_ms IS NOT NULL)",
            (now_ms + self._grace_ms, self._numbers.next(db), request),
        )
        if not was_ready:
            moved.answers += done.rowcount

    def wake_due(self, db: sqlite3.Connection, now_ms: int) -> int:
        """Returns how many answers are ready now whose wait is over."""
        due = db.execute(
            "SELECT seq FROM outbox WHERE state = 'ready' AND not_before_ms IS NOT NULL AND not_before_ms <= ?",
            (now_ms,),
        ).fetchall()
        db.executemany(
            "UPDATE outbox SET not_before_ms = NULL, seq = ? WHERE seq = ?",
            [(self._numbers.next(db), row["seq"]) for row in due],
        )
        return len(due)


def count_ready(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM outbox WHERE state = 'ready'").fetchone()[0])


def is_ready(db: sqlite3.Connection, request: Seq) -> bool:
    """True where the request has an answer that is still to be published."""
    row = db.execute("SELECT state FROM outbox WHERE request = ?", (request,)).fetchone()
    return row is not None and row["state"] == "ready"


def _is_delivered(db: sqlite3.Connection, request: Seq) -> bool:
    row = db.execute("SELECT state FROM requests WHERE seq = ?", (request,)).fetchone()
    return row is not None and row["state"] == State.DELIVERED


def ready_after(db: sqlite3.Connection, after: Seq, limit: int) -> list[OutboxRow]:
    rows = db.execute(
        "SELECT outbox.*, id, device, route, tier, model, requests.state AS request_state, reason, attempts,"
        " received_at_ms, is_private FROM outbox JOIN requests ON requests.seq = request"
        " WHERE outbox.state = 'ready' AND outbox.not_before_ms IS NULL AND outbox.seq > ?"
        " ORDER BY outbox.seq LIMIT ?",
        (after, limit),
    )
    return [outbox_row(row) for row in rows]


def delivered(db: sqlite3.Connection, moved: Moves, row: OutboxRow, now_ms: int) -> None:
    done = db.execute(
        "UPDATE outbox SET state = 'done' WHERE request = ? AND state = 'ready' AND is_provisional = ?",
        (row.request, row.is_provisional),
    )
    if done.rowcount == 0:
        return
    moved.answers -= 1
    if row.is_provisional:
        note(db, [(row.request, now_ms, "provisional_delivered", None)])
        return
    db.execute(
        "UPDATE requests SET state = 'delivered', finished_at_ms = ?"
        " WHERE seq = ? AND state IN ('answered', 'undelivered')",
        (now_ms, row.request),
    )
    note(db, [(row.request, now_ms, State.DELIVERED, None)])


def not_taken(db: sqlite3.Connection, row: OutboxRow, why: str, not_before_ms: int, now_ms: int) -> None:
    done = db.execute(
        "UPDATE outbox SET not_before_ms = ?, tries = tries + 1"
        " WHERE request = ? AND state = 'ready' AND is_provisional = ?",
        (not_before_ms, row.request, row.is_provisional),
    )
    if done.rowcount and row.tries == 0:
        note(db, [(row.request, now_ms, "not_taken", why)])


def give_up(db: sqlite3.Connection, moved: Moves, now_ms: int) -> int:
    rows = db.execute(
        "SELECT seq, request, is_provisional FROM outbox WHERE state = 'ready' AND give_up_at_ms <= ?", (now_ms,)
    ).fetchall()
    found = [(row["seq"], row["request"]) for row in rows]
    db.executemany("UPDATE outbox SET state = 'given_up' WHERE seq = ?", [(seq,) for seq, _ in found])
    db.executemany(
        "UPDATE requests SET state = 'undelivered', finished_at_ms = ? WHERE seq = ? AND state = 'answered'",
        [(now_ms, request) for _, request in found],
    )
    # One that was delivered before, and asked for once more, stays so.
    terminal = [row["request"] for row in rows if not row["is_provisional"]]
    told = [request for request in terminal if not _is_delivered(db, request)]
    note(db, ((request, now_ms, State.UNDELIVERED, "nobody took the answer") for request in told))
    moved.answers -= len(found)
    return len(found)
