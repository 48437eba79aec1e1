"""What becomes of what came in: a new row, a stored answer once more, or a refusal."""

from __future__ import annotations

import sqlite3
from collections import Counter

from mqrouter.core.encode import encode_answer
from mqrouter.core.records import Accepted, Seq
from mqrouter.core.request import Answer, Refused, Request
from mqrouter.core.states import State
from mqrouter.edge.store.history import note
from mqrouter.edge.store.outbox import Outbox, is_ready
from mqrouter.errors import ErrorCode

KEPT_OF_REFUSED = 4096  # of a refused payload: enough to see what it was


class Acceptance:
    """Its methods run inside a transaction."""

    def __init__(self, outbox: Outbox, dedupe_window_ms: int) -> None:
        self._outbox = outbox
        self._dedupe_window_ms = dedupe_window_ms

    def accept(self, db: sqlite3.Connection, moved: Counter[str], item: Request | Refused, now_ms: int) -> Accepted:
        if item.incoming.is_dup and _is_redelivery(db, item):
            return Accepted.ABSORBED
        if isinstance(item, Refused):
            if _is_known(db, item):
                return self._accept_again(db, moved, item, now_ms)  # no limit stands against what is accepted already
            self._refuse(db, item, now_ms)
            return Accepted.REFUSED
        seq = _insert_request(db, item)
        if seq is not None:
            _remember_packet(db, item, seq)
            note(db, [(seq, now_ms, State.RECEIVED, None)])
            moved[State.RECEIVED] += 1
            return Accepted.NEW
        return self._accept_again(db, moved, item, now_ms)

    def _accept_again(
        self, db: sqlite3.Connection, moved: Counter[str], item: Request | Refused, now_ms: int
    ) -> Accepted:
        known = db.execute(
            "SELECT seq, payload_hash, reason, finished_at_ms FROM requests WHERE dedupe_key = ?", (item.dedupe_key,)
        ).fetchone()
        if isinstance(item, Request) and self._may_be_asked_again(db, known, item, now_ms):
            db.execute("UPDATE requests SET dedupe_key = NULL WHERE seq = ?", (known["seq"],))
            return self.accept(db, moved, item, now_ms)
        if known["payload_hash"] == item.payload_hash:
            self._outbox.offer_again(db, known["seq"], now_ms)
            note(db, [(known["seq"], now_ms, "duplicate_absorbed", None)])
            return Accepted.ABSORBED
        refused = Refused(
            item.id,
            item.incoming,
            ErrorCode.CORRELATION_REUSED,
            "this correlation or id belongs to another question",
            item.device,
            item.reply,
            item.payload_hash,
            item.received_at_ms,
        )
        self._refuse(db, refused, now_ms)
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

    def _refuse(self, db: sqlite3.Connection, item: Refused, now_ms: int) -> None:
        seq = _insert_refused(db, item, now_ms)
        _remember_packet(db, item, seq)
        note(db, [(seq, now_ms, State.DEAD, f"{item.code}: {item.message}")])
        if item.reply is not None:
            answer = Answer(error=item.code, error_message=item.message)
            self._outbox.post(db, seq, encode_answer(answer, item.reply, item.id, None), now_ms)


def _insert_request(db: sqlite3.Connection, item: Request) -> Seq | None:
    """Returns the new row's number, or None where the dedupe key is taken."""
    row = db.execute(
        "INSERT INTO requests (id, state, topic, device, payload, content_type, payload_hash, dedupe_key,"
        " reply_topic, correlation, client_id, form, max_bytes, priority, is_private, received_at_ms, expires_at_ms,"
        " client_expiry) VALUES (?, 'received', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING RETURNING seq",
        (
            item.id,
            item.incoming.topic,
            item.device,
            item.incoming.payload,
            item.incoming.content_type,
            item.payload_hash,
            item.dedupe_key,
            item.reply.topic,
            item.reply.correlation,
            item.reply.client_id,
            item.reply.form,
            item.reply.max_bytes,
            item.question.priority,
            item.question.is_private,
            item.received_at_ms,
            item.expires_at_ms,
            item.client_gave_expiry,
        ),
    ).fetchone()
    return None if row is None else int(row["seq"])


def _insert_refused(db: sqlite3.Connection, item: Refused, now_ms: int) -> Seq:
    reply = item.reply
    seq = db.execute(
        "INSERT INTO requests (id, state, reason, detail, topic, device, payload, content_type, payload_hash,"
        " reply_topic, correlation, client_id, form, max_bytes, received_at_ms, expires_at_ms, finished_at_ms)"
        " VALUES (?, 'dead', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
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
        ),
    ).lastrowid
    assert seq is not None
    return seq


def _is_known(db: sqlite3.Connection, item: Refused) -> bool:
    """True where the very same question has been accepted."""
    known = db.execute(
        "SELECT 1 FROM requests WHERE dedupe_key = ? AND payload_hash = ?", (item.dedupe_key, item.payload_hash)
    ).fetchone()
    return known is not None


def _is_redelivery(db: sqlite3.Connection, item: Request | Refused) -> bool:
    """True where the packet was accepted in an earlier connection and only its PUBACK was lost."""
    known = db.execute("SELECT topic, payload_hash FROM packets WHERE mid = ?", (item.incoming.mid,)).fetchone()
    return known is not None and (known["topic"], known["payload_hash"]) == (item.incoming.topic, item.payload_hash)


def forget_packets(db: sqlite3.Connection) -> None:
    """The broker began a new session: its packet identifiers mean other messages now."""
    db.execute("DELETE FROM packets")


def _remember_packet(db: sqlite3.Connection, item: Request | Refused, seq: Seq) -> None:
    if item.incoming.qos > 0:
        db.execute(
            "INSERT OR REPLACE INTO packets (mid, request, topic, payload_hash) VALUES (?, ?, ?, ?)",
            (item.incoming.mid, seq, item.incoming.topic, item.payload_hash),
        )
