"""What becomes of what came in: a new row, a stored answer once more, or a refusal."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence, Set
from typing import NamedTuple, TypeGuard

from mqrouter.core.admission import Ended, Fit, Moves, QueueLimits
from mqrouter.core.encode import encode_answer
from mqrouter.core.records import Accepted, Seq
from mqrouter.core.request import Answer, Refused, Request, refusal
from mqrouter.core.states import State
from mqrouter.edge.store.backlog import last_turn
from mqrouter.edge.store.eviction import Eviction
from mqrouter.edge.store.history import note
from mqrouter.edge.store.many import insert, run_for
from mqrouter.edge.store.numbers import Numbers
from mqrouter.edge.store.outbox import Outbox, is_ready
from mqrouter.errors import ErrorCode

KEPT_OF_REFUSED = 4096  # of a refused payload: enough to see what it was
NEW_REQUESTS = (
    "INSERT INTO requests (seq, id, state, topic, device, payload, content_type, payload_hash, dedupe_key,"
    " reply_topic, correlation, client_id, form, max_bytes, priority, is_private, received_at_ms, expires_at_ms,"
    " client_expiry, turn, bytes, session, traceparent)"
)
TAKEN_KEYS = "SELECT dedupe_key FROM requests WHERE dedupe_key IN {values}"
PACKETS = "INSERT OR REPLACE INTO packets (mid, request, topic, payload_hash)"


class _New(NamedTuple):
    """A request with its number and its turn."""

    seq: Seq
    item: Request
    turn: int


class Acceptance:
    """Its methods run inside a transaction."""

    def __init__(self, outbox: Outbox, limits: QueueLimits, dedupe_window_ms: int) -> None:
        self._outbox = outbox
        self._eviction = Eviction(outbox, limits)
        self._numbers = Numbers("requests")
        self._dedupe_window_ms = dedupe_window_ms

    def accept(
        self, db: sqlite3.Connection, moved: Moves, items: Sequence[Request | Refused], now_ms: int
    ) -> list[Accepted]:
        """Returns what became of each, in order.

        New ones that nothing stands against go in together, one statement for each table: after each statement the
        thread has to wait for the interpreter again.
        """
        taken = _taken_keys(db, items)
        results: list[Accepted] = []
        new: list[_New] = []
        for item in items:
            if self._is_plain(item, moved, taken):
                new.append(self._enter(db, moved, item))
                results.append(Accepted.NEW)
            else:
                _insert_new(db, new, now_ms)
                new = []
                results.append(self._accept(db, moved, item, now_ms))
            taken.add(item.dedupe_key)
        _insert_new(db, new, now_ms)
        return results

    def _is_plain(self, item: Request | Refused, moved: Moves, taken: Set[bytes | None]) -> TypeGuard[Request]:
        return (
            isinstance(item, Request)
            and not item.incoming.is_dup
            and (item.dedupe_key is None or item.dedupe_key not in taken)
            and self._eviction.fit(moved, item) is Fit.ENOUGH
        )

    def _enter(self, db: sqlite3.Connection, moved: Moves, item: Request) -> _New:
        turn = _turn(db, moved, item)
        moved.enter(item.device, item.question.priority, len(item.incoming.payload), turn)
        return _New(self._numbers.next(db), item, turn)

    def _accept(self, db: sqlite3.Connection, moved: Moves, item: Request | Refused, now_ms: int) -> Accepted:
        if item.incoming.is_dup and _is_redelivery(db, item):
            return Accepted.ABSORBED
        if isinstance(item, Refused):
            if _is_known(db, item):
                return self._accept_again(db, moved, item, now_ms)  # no limit stands against what is accepted already
            self._refuse(db, moved, item, now_ms)
            return Accepted.REFUSED
        if _taken_keys(db, [item]):
            return self._accept_again(db, moved, item, now_ms)
        if self._eviction.fit(moved, item) is not Fit.ENOUGH:
            why_full = self._eviction.make_room(db, moved, item, now_ms)
            if why_full is not None:
                self._refuse(db, moved, refusal(item, ErrorCode.QUEUE_FULL, why_full), now_ms)
                return Accepted.REFUSED
        _insert_new(db, [self._enter(db, moved, item)], now_ms)
        return Accepted.NEW

    def _accept_again(self, db: sqlite3.Connection, moved: Moves, item: Request | Refused, now_ms: int) -> Accepted:
        known = db.execute(
            "SELECT seq, payload_hash, reason, finished_at_ms FROM requests WHERE dedupe_key = ?", (item.dedupe_key,)
        ).fetchone()
        if isinstance(item, Request) and self._may_be_asked_again(db, known, item, now_ms):
            db.execute("UPDATE requests SET dedupe_key = NULL WHERE seq = ?", (known["seq"],))
            return self._accept(db, moved, item, now_ms)
        if known["payload_hash"] == item.payload_hash:
            self._outbox.offer_again(db, moved, known["seq"], now_ms)
            note(db, [(known["seq"], now_ms, "duplicate_absorbed", None)])
            return Accepted.ABSORBED
        reused = refusal(item, ErrorCode.CORRELATION_REUSED, "this correlation or id belongs to another question")
        self._refuse(db, moved, reused, now_ms)
        return Accepted.REUSED

    def _may_be_asked_again(self, db: sqlite3.Connection, known: sqlite3.Row, item: Request, now_ms: int) -> bool:
        """True where the id is free again: its window is over, or its sender got an error that says `retryable`."""
        if is_ready(db, known["seq"]):
            return False  # its answer is still on the way, and would be taken for the new question's
        if known["finished_at_ms"] is not None and known["finished_at_ms"] + self._dedupe_window_ms <= now_ms:
            return True
        if known["reason"] is None or known["payload_hash"] != item.payload_hash:
            return False
        return ErrorCode(known["reason"]).is_retryable

    def _refuse(self, db: sqlite3.Connection, moved: Moves, item: Refused, now_ms: int) -> None:
        seq = self._numbers.next(db)
        _insert_refused(db, seq, item, now_ms)
        moved.ended[Ended.of(item.code)] += 1
        insert(db, PACKETS, _packet(item, seq))
        note(db, [(seq, now_ms, State.DEAD, f"{item.code}: {item.message}")])
        if item.reply is not None:
            answer = Answer(error=item.code, error_message=item.message)
            self._outbox.post(db, moved, seq, encode_answer(answer, item.reply, item.id, None), now_ms)


def _turn(db: sqlite3.Connection, moved: Moves, item: Request) -> int:
    device, priority = item.device, item.question.priority
    return moved.next_turn(device, priority, lambda: last_turn(db, device, priority))


def _insert_new(db: sqlite3.Connection, new: Sequence[_New], now_ms: int) -> None:
    """None of their keys is taken."""
    insert(db, NEW_REQUESTS, [_row(entry) for entry in new])
    insert(db, PACKETS, [packet for entry in new for packet in _packet(entry.item, entry.seq)])
    note(db, [(entry.seq, now_ms, State.RECEIVED, None) for entry in new])


def _row(new: _New) -> tuple[object, ...]:
    item, reply, question = new.item, new.item.reply, new.item.question
    return (
        new.seq,
        item.id,
        State.RECEIVED,
        item.incoming.topic,
        item.device,
        item.incoming.payload,
        item.incoming.content_type,
        item.payload_hash,
        item.dedupe_key,
        reply.topic,
        reply.correlation,
        reply.client_id,
        reply.form,
        reply.max_bytes,
        question.priority,
        question.is_private,
        item.received_at_ms,
        item.expires_at_ms,
        item.client_gave_expiry,
        new.turn,
        len(item.incoming.payload),
        question.session,
        reply.traceparent,
    )


def _insert_refused(db: sqlite3.Connection, seq: Seq, item: Refused, now_ms: int) -> None:
    reply = item.reply
    db.execute(
        "INSERT INTO requests (seq, id, state, reason, detail, topic, device, payload, content_type, payload_hash,"
        " reply_topic, correlation, client_id, form, max_bytes, received_at_ms, expires_at_ms, finished_at_ms,"
        " traceparent)"
        " VALUES (?, ?, 'dead', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            seq,
            item.id,
            item.code,
            item.message,
            item.incoming.topic,
            item.device,
            item.incoming.payload[:KEPT_OF_REFUSED],
            item.incoming.content_type,
            item.payload_hash,
            reply.topic if reply else None,
            reply.correlation if reply else None,
            reply.client_id if reply else None,
            reply.form if reply else None,
            reply.max_bytes if reply else None,
            item.received_at_ms,
            item.received_at_ms,
            now_ms,
            reply.traceparent if reply else None,
        ),
    )


def _taken_keys(db: sqlite3.Connection, items: Sequence[Request | Refused]) -> set[bytes | None]:
    """Returns those of their keys that stand for a request already."""
    keys = [item.dedupe_key for item in items if item.dedupe_key is not None]
    return {row[0] for row in run_for(db, TAKEN_KEYS, keys)}


def _is_known(db: sqlite3.Connection, item: Refused) -> bool:
    """True where the very same question has been accepted."""
    known = db.execute(
        "SELECT 1 FROM requests WHERE dedupe_key = ? AND payload_hash = ?", (item.dedupe_key, item.payload_hash)
    ).fetchone()
    return known is not None


def _is_redelivery(db: sqlite3.Connection, item: Request | Refused) -> bool:
    """True where the packet was accepted in an earlier connection and only its PUBACK was lost."""
    known = db.execute(
        "SELECT packets.topic, packets.payload_hash, reply_topic, correlation FROM packets"
        " JOIN requests ON seq = request WHERE mid = ?",
        (item.incoming.mid,),
    ).fetchone()
    address = (item.reply.topic, item.reply.correlation) if item.reply else (None, None)
    return known is not None and tuple(known) == (item.incoming.topic, item.payload_hash, *address)


def forget_packets(db: sqlite3.Connection, less: int) -> None:
    """Packet identifiers come round: one of long ago means another message now."""
    db.execute("DELETE FROM packets WHERE mid NOT IN (SELECT mid FROM packets ORDER BY request DESC LIMIT ?)", (less,))


def _packet(item: Request | Refused, seq: Seq) -> list[tuple[object, ...]]:
    """Returns its row of the packets table, if it has one."""
    incoming = item.incoming
    return [(incoming.mid, seq, incoming.topic, item.payload_hash)] if incoming.qos > 0 and incoming.mid > 0 else []
