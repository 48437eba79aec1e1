"""What the database says became of each request, and whether that can be true."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mqrouter.core.states import OPEN, TERMINAL, State, may_move
from mqrouter.edge.store.reading import open_read_only

OF_THE_ANSWER = frozenset({State.DELIVERED, State.UNDELIVERED})
STATES = frozenset(State)
FIRST = frozenset({State.RECEIVED, State.DEAD})
WITH_REASON = frozenset({State.DEAD, State.EXPIRED, State.CANCELLED})

Key = tuple[str | None, bytes | None]
"""Where an answer goes: reply topic, correlation."""
SALVAGED = "salvaged"


@dataclass(frozen=True)
class StoredAnswer:
    topic: str
    correlation: bytes | None
    payload: bytes
    state: str
    is_provisional: bool = False

    @property
    def is_error(self) -> bool:
        if self.payload.startswith(b"{"):
            return "error" in json.loads(self.payload)
        return self.payload.startswith(b"error ")


@dataclass(frozen=True)
class Row:
    """One request, its history and its answer."""

    id: str
    client_id: str | None
    state: State
    reason: str | None
    topic: str | None
    reply_topic: str | None
    correlation: bytes | None
    payload: bytes
    events: tuple[str, ...]
    answer: StoredAnswer | None

    @property
    def key(self) -> Key:
        return self.reply_topic, self.correlation

    def faults(self, *, may_be_open: bool) -> Iterator[str]:
        """Yields why this row's state is not an explained one."""
        if self.state not in TERMINAL and not (may_be_open and self.state in OPEN | {State.ANSWERED}):
            yield f"is still {self.state}"
        if self.state in WITH_REASON and self.reason is None:
            yield f"is {self.state} without a reason"
        if (why := _why_not_a_life(self.events, self.state)) is not None:
            yield f"{why}: {' '.join(self.events)}, now {self.state}"
        yield from self._faults_of_the_answer()

    def _faults_of_the_answer(self) -> Iterator[str]:
        if self.answer is None:
            if self.state not in OPEN and self.reply_topic is not None and SALVAGED not in self.events:
                yield f"is {self.state} and has no answer"
            return
        if self.state in OPEN and not self.answer.is_provisional:
            yield f"is {self.state} and has an answer already"
        if self.state not in OPEN and self.answer.is_provisional:
            yield f"is {self.state} and has a provisional answer only"
        if (self.answer.topic, self.answer.correlation) != self.key:
            yield f"has an answer for {self.answer.topic} {self.answer.correlation!r}, asked {self.key}"
        if self.answer.is_error is not (self.reason is not None):
            yield f"has the reason {self.reason} and the answer {self.answer.payload[:80]!r}"
        if self.state is State.ANSWERED and self.answer.state != "ready":
            yield f"is {self.state} and its answer is {self.answer.state}"


def _why_not_a_life(events: tuple[str, ...], now: State) -> str | None:
    """Returns why no request can have gone through these moves in this order, or None."""
    state: State | None = None
    is_known = SALVAGED not in events  # what came before was lost with a damaged database
    if not is_known:
        events = events[len(events) - events[::-1].index(SALVAGED) :]
    for event in events:
        if event not in STATES:
            continue
        new = State(event)
        if state is None:
            if is_known and new not in FIRST:
                return f"began as {new}"
        elif state in TERMINAL and new in OF_THE_ANSWER:
            continue  # its answer was offered, maybe once more
        elif not may_move(state, new):
            return f"moved from {state} to {new}"
        state = new
    return None if state == now else f"its history ends with {state}"


@dataclass(frozen=True)
class Ledger:
    rows: tuple[Row, ...]
    damage: str | None
    """What SQLite's own check found."""


def read_ledger(path: Path) -> Ledger:
    """Returns everything in the database; nothing where there is none yet."""
    if not path.exists():
        return Ledger((), None)
    with open_read_only(path) as db:
        return Ledger(tuple(_rows(db)), _damage(db))


def _damage(db: sqlite3.Connection) -> str | None:
    found = [row[0] for row in db.execute("PRAGMA integrity_check")]
    found += [f"{row[0]} row {row[1]} refers to nothing" for row in db.execute("PRAGMA foreign_key_check")]
    return None if found == ["ok"] else "; ".join(map(str, found))


def _rows(db: sqlite3.Connection) -> Iterator[Row]:
    events: dict[int, list[str]] = {}
    for entry in db.execute("SELECT request, event FROM history ORDER BY seq"):
        events.setdefault(entry["request"], []).append(entry["event"])
    answers = {
        row["request"]: StoredAnswer(
            row["topic"], row["correlation"], row["payload"], row["state"], bool(row["is_provisional"])
        )
        for row in db.execute("SELECT request, topic, correlation, payload, state, is_provisional FROM outbox")
    }
    for row in db.execute("SELECT * FROM requests ORDER BY seq"):
        yield Row(
            id=row["id"],
            client_id=row["client_id"],
            state=State(row["state"]),
            reason=row["reason"],
            topic=row["topic"],
            reply_topic=row["reply_topic"],
            correlation=row["correlation"],
            payload=row["payload"],
            events=tuple(events.get(row["seq"], ())),
            answer=answers.get(row["seq"]),
        )
