"""Orders of operators, carried out on the rows they name; every request that changes has a line in its history."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from mqrouter.core.admission import Fit, Moves, QueueLimits, fit_of
from mqrouter.core.records import Seq
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.steering import APPLIES, Order, Outcome, Verb
from mqrouter.edge.store import dropping
from mqrouter.edge.store.backlog import last_turn
from mqrouter.edge.store.endings import end
from mqrouter.edge.store.history import note
from mqrouter.edge.store.lines import Lines
from mqrouter.edge.store.outbox import Outbox
from mqrouter.edge.store.rows import stored_request
from mqrouter.errors import ErrorCode

BY_ID = "SELECT * FROM requests WHERE id = ?"
BY_SEQ = "SELECT * FROM requests WHERE seq = ?"
PRIVATE = "it is private, and the tier is not trusted"
FULL = {
    Fit.QUEUE_FULL: "the queue is full: make room, and try again",
    Fit.DEVICE_FULL: "its device has its share of the queue: make room, and try again",
}


def carry_out(
    db: sqlite3.Connection,
    moved: Moves,
    outbox: Outbox,
    order: Order,
    requests: Sequence[Seq | str],
    actor: str,
    now_ms: int,
    *,
    limits: QueueLimits,
    tiers: Collection[str],
) -> list[Outcome]:
    """Returns what was found of each that is there; where the order does not apply to it, it stays as it is.

    What is brought back keeps within the queue's `limits`, and is decided again where none of its tiers is in `tiers`.
    """
    rows = (db.execute(BY_ID if isinstance(name, str) else BY_SEQ, (name,)).fetchone() for name in requests)
    found = [row for row in rows if row is not None]
    if order.verb is Verb.UNDO:
        return [_undo(db, moved, row, limits, tiers, actor, now_ms) for row in found]
    return [_carry_out(db, moved, outbox, order, row, actor, now_ms) for row in found]


def add_lines(db: sqlite3.Connection, lines: Lines, order: Order, requests: Sequence[Seq | str]) -> None:
    """The lanes will ask for the lines that these requests may stand in from now on."""
    for name in requests:
        row = db.execute(BY_ID if isinstance(name, str) else BY_SEQ, (name,)).fetchone()
        if row is not None and order.tier is not None:
            lines.add(order.tier, row["route"])
        elif row is not None and row["todo"] is not None:
            lines.add_waiting(row["todo"], row["tiers"], row["route"])


def preview(db: sqlite3.Connection, order: Order, requests: Sequence[Seq | str]) -> list[Outcome]:
    """Returns what `carry_out` would, and changes nothing."""
    rows = (db.execute(BY_ID if isinstance(name, str) else BY_SEQ, (name,)).fetchone() for name in requests)
    found = [(row, why_not_applicable(order, row)) for row in rows if row is not None]
    return [Outcome(row["id"], State(row["state"]), why is None, why) for row, why in found]


def _carry_out(
    db: sqlite3.Connection, moved: Moves, outbox: Outbox, order: Order, row: sqlite3.Row, actor: str, now_ms: int
) -> Outcome:
    found = State(row["state"])
    if (why_not := why_not_applicable(order, row)) is not None:
        return Outcome(row["id"], found, is_changed=False, why_not=why_not)
    match order.verb:
        case Verb.RETRY:
            retry(db, row["seq"], actor, now_ms)
            return Outcome(row["id"], found, is_changed=True)
        case Verb.DROP:
            dropping.drop(db, moved, row, order.undo_ms, actor, now_ms)
            return Outcome(row["id"], found, is_changed=True)
        case Verb.CANCEL:
            cancel(db, moved, outbox, row, order.message, now_ms)
        case Verb.MOVE:
            _move(db, row["seq"], str(order.tier))
        case Verb.PRIORITY:
            _set_priority(db, moved, row, order.priority)
        case Verb.TTL:
            db.execute("UPDATE requests SET expires_at_ms = ? WHERE seq = ?", (now_ms + order.ttl_ms, row["seq"]))
    note(db, [(row["seq"], now_ms, "ordered", f"{order} by {actor}")])
    return Outcome(row["id"], found, is_changed=True)


def _undo(
    db: sqlite3.Connection,
    moved: Moves,
    row: sqlite3.Row,
    limits: QueueLimits,
    tiers: Collection[str],
    actor: str,
    now_ms: int,
) -> Outcome:
    found = State(row["state"])
    why_not = why_not_applicable(Order(Verb.UNDO), row)
    if why_not is None:
        fit = fit_of(row["bytes"], moved.held(), moved.held_by(row["device"]), limits)
        why_not = None if fit is Fit.ENOUGH else FULL[fit]
    if why_not is None:
        dropping.undo(db, moved, row, tiers, actor, now_ms)
    return Outcome(row["id"], found, why_not is None, why_not)


def why_not_applicable(order: Order, row: sqlite3.Row) -> str | None:
    """Returns why the order cannot change this request, None where it can."""
    if row["state"] not in APPLIES[order.verb]:
        return f"it is {row['state']}"
    if order.verb is Verb.MOVE and row["is_private"] and not order.is_trusted:
        return PRIVATE
    return None


def retry(db: sqlite3.Connection, seq: Seq, actor: str, now_ms: int) -> None:
    """The pending request is due now, with all its tiers and attempts before it."""
    db.execute("UPDATE requests SET not_before_ms = NULL, todo = tiers, attempts = 0, rounds = 0 WHERE seq = ?", (seq,))
    note(db, [(seq, now_ms, "retried", f"by {actor}")])


def cancel(db: sqlite3.Connection, moved: Moves, outbox: Outbox, row: sqlite3.Row, message: str, now_ms: int) -> None:
    """The open request ends, and its sender is told."""
    state = State(row["state"])
    answer = Answer(
        error=ErrorCode.CANCELLED,
        error_message=message,
        route=row["route"],
        latency_ms=now_ms - row["received_at_ms"],
    )
    ended = end(
        db, moved, outbox, stored_request(row), answer, State.CANCELLED, now_ms, is_attempt=state is State.LEASED
    )
    moved.leave(state, row["device"], row["bytes"], ended)


def _move(db: sqlite3.Connection, seq: Seq, tier: str) -> None:
    db.execute(
        "UPDATE requests SET tiers = ?, todo = ?, not_before_ms = NULL, attempts = 0, rounds = 0 WHERE seq = ?",
        (tier, tier, seq),
    )


def _set_priority(db: sqlite3.Connection, moved: Moves, row: sqlite3.Row, priority: int) -> None:
    """At the end of its device's line among those of the new priority."""
    device = row["device"]
    turn = moved.next_turn(device, priority, lambda: last_turn(db, device, priority))
    db.execute("UPDATE requests SET priority = ?, turn = ? WHERE seq = ?", (priority, turn, row["seq"]))
    moved.next_turns[device, priority] = turn + 1
