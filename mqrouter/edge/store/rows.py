"""From SQLite's rows to values."""

from __future__ import annotations

import json
import sqlite3

from mqrouter.core.privacy import NOT_PRIVATE, Mark, PrivateBy, private_by
from mqrouter.core.records import OutboxRow, StoredRequest, split_tiers
from mqrouter.core.request import Form, OutMessage, ReplyAddress
from mqrouter.core.states import State


def stored_request(row: sqlite3.Row) -> StoredRequest:
    return StoredRequest(
        seq=row["seq"],
        id=row["id"],
        topic=row["topic"],
        device=row["device"],
        session=row["session"],
        payload=row["payload"],
        content_type=row["content_type"],
        reply=ReplyAddress(
            row["reply_topic"],
            row["correlation"],
            row["client_id"],
            Form(row["form"]),
            row["max_bytes"],
            row["traceparent"],
        ),
        is_private=bool(row["is_private"]),
        priority=row["priority"],
        turn=row["turn"],
        received_at_ms=row["received_at_ms"],
        expires_at_ms=row["expires_at_ms"],
        client_gave_expiry=bool(row["client_expiry"]),
        route=row["route"],
        strategy=row["strategy"],
        confidence=row["confidence"],
        tiers=split_tiers(row["tiers"]),
        todo=split_tiers(row["todo"]),
        attempts=row["attempts"],
        rounds=row["rounds"],
        lease=row["lease"],
        crashes=row["crashes"],
        private_by=_private_by(row["is_private"], row["private_by"]),
    )


def _private_by(is_private: int, names: str | None) -> PrivateBy:
    """Rows of an earlier version, and those not decided yet, say only whether their sender marked them."""
    if names is None:
        return PrivateBy((Mark.REQUEST,)) if is_private else NOT_PRIVATE
    return private_by(names.split())


def outbox_row(row: sqlite3.Row) -> OutboxRow:
    return OutboxRow(
        seq=row["seq"],
        request=row["request"],
        message=OutMessage(
            topic=row["topic"],
            payload=row["payload"],
            correlation=row["correlation"],
            content_type=row["content_type"],
            user_properties=tuple((name, value) for name, value in json.loads(row["user_properties"])),
            expires_at_ms=row["message_expires_at_ms"],
        ),
        tries=row["tries"],
        request_id=row["id"],
        device=row["device"],
        route=row["route"],
        tier=row["tier"],
        model=row["model"],
        state=State(row["request_state"]),
        reason=row["reason"],
        attempts=row["attempts"],
        received_at_ms=row["received_at_ms"],
        is_provisional=bool(row["is_provisional"]),
        is_private=bool(row["is_private"]),
    )
