"""What the stages do to the database, one method each; every method is one transaction or one read."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mqrouter.core.backoff import Backoff
from mqrouter.core.codec import encode_answer
from mqrouter.core.records import Accepted, OutboxRow, Seq, StoredRequest, join_tiers
from mqrouter.core.request import Answer, JsonObject, OutMessage, Refused, Request
from mqrouter.core.retry import Waiting
from mqrouter.core.states import ACTIVE, State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.rows import outbox_row, stored_request
from mqrouter.errors import ErrorCode

T = TypeVar("T")
_Change = Callable[[sqlite3.Connection, Counter[str]], T]

MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things are kept, in milliseconds."""

    answer_grace_ms: int
    """An answer is offered at least this long, even where its request has expired."""
    dedupe_window_ms: int
    """A finished request is answered from its row this long; after that the same id is another question's."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found at start."""

    released: int
    dead: int


class Store:
    """`counts` holds the number of requests in each active state, true after every committed write."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self.counts: Counter[str] = Counter()
        self.todo_lists: set[str] = set()
        """Every tier list a pending row may carry: what the lanes ask for."""
        self.partial_lists: set[str] = set()
        """Those among them that rows in the middle of a round carry."""
        self._last_outbox_seq: Seq = 0

    # --- start --------------------------------------------------------------------------------------

    async def recover(self, now_ms: int) -> Recovery:
        """Makes every lease of an earlier life void, buries rows that killed it too often, counts what is there."""

        def recover(db: sqlite3.Connection) -> Recovery:
            leased = db.execute("SELECT seq, crashes FROM requests WHERE state = 'leased'").fetchall()
            poisoned = [row["seq"] for row in leased if row["crashes"] + 1 >= MAX_CRASHES]
            db.execute("UPDATE requests SET state = 'pending', crashes = crashes + 1 WHERE state = 'leased'")
            _note(
                db, ((row["seq"], now_ms, State.PENDING, "recovered: the daemon stopped meanwhile") for row in leased)
            )
            for seq in poisoned:
                answer = Answer(error=ErrorCode.INTERNAL, error_message="answering this stopped the daemon three times")
                self._finish(db, _stored(db, seq), answer, State.DEAD, now_ms, Counter())
            return Recovery(len(leased) - len(poisoned), len(poisoned))

        recovery = await self._database.write(recover)
        self.counts, self.todo_lists, self.partial_lists = await self._database.read(_inventory)
        return recovery

    # --- accept -------------------------------------------------------------------------------------

    async def accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]:
        """Writes everything that came in, in one transaction; returns what became of each, in order."""

        def accept(db: sqlite3.Connection, moved: Counter[str]) -> list[Accepted]:
            return [self._accept_one(db, item, now_ms, moved) for item in items]

        return await self._write(accept)

    def _accept_one(
        self, db: sqlite3.Connection, item: Request | Refused, now_ms: int, moved: Counter[str]
    ) -> Accepted:
        if item.incoming.is_dup and _is_redelivery(db, item):
            return Accepted.ABSORBED
        if isinstance(item, Refused):
            if _is_known(db, item):
                return self._accept_again(db, item, now_ms, moved)  # no limit stands against what is accepted already
            self._insert_refused(db, item, now_ms)
            return Accepted.REFUSED
        seq = _insert_request(db, item)
        if seq is not None:
            _remember_packet(db, item, seq)
            _note(db, [(seq, now_ms, State.RECEIVED, None)])
            moved[State.RECEIVED] += 1
            return Accepted.NEW
        return self._accept_again(db, item, now_ms, moved)

    def _accept_again(
        self, db: sqlite3.Connection, item: Request | Refused, now_ms: int, moved: Counter[str]
    ) -> Accepted:
        known = db.execute(
            "SELECT seq, payload_hash, reason, finished_at_ms FROM requests WHERE dedupe_key = ?", (item.dedupe_key,)
        ).fetchone()
        if isinstance(item, Request) and self._may_be_asked_again(db, known, item, now_ms):
            db.execute("UPDATE requests SET dedupe_key = NULL WHERE seq = ?", (known["seq"],))
            return self._accept_one(db, item, now_ms, moved)
        if known["payload_hash"] == item.payload_hash:
            db.execute(  # a new number: it is read after everything already published
                "UPDATE outbox SET state = 'ready', not_before_ms = NULL, give_up_at_ms = max(give_up_at_ms, ?),"
                " seq = ? WHERE request = ? AND (state <> 'ready' OR not_before_ms IS NOT NULL)",
                (now_ms + self._policy.answer_grace_ms, self._next_outbox_seq(db), known["seq"]),
            )
            _note(db, [(known["seq"], now_ms, "duplicate_absorbed", None)])
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
        self._insert_refused(db, refused, now_ms)
        return Accepted.REUSED

    def _may_be_asked_again(self, db: sqlite3.Connection, known: sqlite3.Row, item: Request, now_ms: int) -> bool:
        """True where the id is free again: its window is over, or its sender got an error that says `retryable`."""
        if known["finished_at_ms"] is not None and known["finished_at_ms"] + self._policy.dedupe_window_ms <= now_ms:
            return True
        if known["reason"] is None or known["payload_hash"] != item.payload_hash:
            return False
        answer = db.execute("SELECT state FROM outbox WHERE request = ?", (known["seq"],)).fetchone()
        return ErrorCode(known["reason"]).is_retryable and (answer is None or answer["state"] != "ready")

    def _insert_refused(self, db: sqlite3.Connection, item: Refused, now_ms: int) -> None:
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
                item.incoming.payload[:_KEPT_OF_REFUSED],
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
        _remember_packet(db, item, seq)
        _note(db, [(seq, now_ms, State.DEAD, f"{item.code}: {item.message}")])
        if reply is not None:
            answer = Answer(error=item.code, error_message=item.message)
            self._post(db, seq, encode_answer(answer, reply, item.id, None), now_ms + self._policy.answer_grace_ms)

    # --- decide -------------------------------------------------------------------------------------

    async def next_received(self, limit: int, busy: Collection[Seq]) -> list[StoredRequest]:
        """Returns undecided requests, most urgent first, less those already `busy`."""

        def read(db: sqlite3.Connection) -> list[StoredRequest]:
            rows = db.execute(
                "SELECT * FROM requests WHERE state = 'received' ORDER BY priority DESC, seq LIMIT ?",
                (limit + len(busy),),
            )
            return [stored_request(row) for row in rows if row["seq"] not in busy][:limit]

        return await self._database.read(read)

    async def queue_for_tiers(
        self,
        request: StoredRequest,
        tiers: tuple[str, ...],
        *,
        route: str | None,
        confidence: float,
        decision: JsonObject,
        now_ms: int,
    ) -> None:
        """The request is pending: any of `tiers`, in this order, may take it."""
        joined = join_tiers(tiers)

        def queue(db: sqlite3.Connection, moved: Counter[str]) -> None:
            done = db.execute(
                "UPDATE requests SET state = 'pending', route = ?, confidence = ?, decision = ?,"
                " tiers = ?, todo = ? WHERE seq = ? AND state = 'received'",
                (route, confidence, json.dumps(decision), joined, joined, request.seq),
            )
            if done.rowcount:
                _note(db, [(request.seq, now_ms, State.PENDING, joined)])
                moved[State.RECEIVED] -= 1
                moved[State.PENDING] += 1

        self.todo_lists.add(joined)
        await self._write(queue)

    async def record_decision(self, request: StoredRequest, decision: JsonObject) -> None:
        """Keeps the explanation of a decision that ended without a tier."""

        def record(db: sqlite3.Connection) -> None:
            db.execute("UPDATE requests SET decision = ? WHERE seq = ?", (json.dumps(decision), request.seq))

        await self._database.write(record)

    # --- forward ------------------------------------------------------------------------------------

    async def claim(self, tier: str, todo_lists: Collection[str], limit: int, now_ms: int) -> list[StoredRequest]:
        """Leases up to `limit` due requests that carry one of `todo_lists`, most urgent first."""

        def claim(db: sqlite3.Connection, moved: Counter[str]) -> list[StoredRequest]:
            due: list[tuple[int, Seq]] = []
            for todo in todo_lists:  # one index range each: a joint query would have to sort them all
                due += db.execute(
                    "SELECT -priority, seq FROM requests WHERE state = 'pending' AND not_before_ms IS NULL"
                    " AND todo = ? AND expires_at_ms > ? ORDER BY priority DESC, seq LIMIT ?",
                    (todo, now_ms, limit),
                ).fetchall()
            chosen = [seq for _, seq in sorted(map(tuple, due))[:limit]]
            db.executemany(
                "UPDATE requests SET state = 'leased', lease = lease + 1, tier = ? WHERE seq = ?",
                [(tier, seq) for seq in chosen],
            )
            _note(db, ((seq, now_ms, State.LEASED, tier) for seq in chosen))
            moved[State.PENDING] -= len(chosen)
            moved[State.LEASED] += len(chosen)
            return [_stored(db, seq) for seq in chosen]

        return await self._write(claim)

    async def release(
        self,
        request: StoredRequest,
        waiting: Waiting,
        *,
        note: str,
        now_ms: int,
        is_counted: bool,
        not_before_ms: int | None = None,
    ) -> bool:
        """Gives a lease back; False where it was no longer held. With `not_before_ms` a round of tiers is over."""
        tiers, todo = join_tiers(waiting.tiers), join_tiers(waiting.todo)

        def release(db: sqlite3.Connection, moved: Counter[str]) -> bool:
            done = db.execute(
                "UPDATE requests SET state = 'pending', tiers = ?, todo = ?, not_before_ms = ?,"
                " attempts = attempts + ?, rounds = rounds + ?, tier = NULL"
                " WHERE seq = ? AND state = 'leased' AND lease = ?",
                (tiers, todo, not_before_ms, is_counted, not_before_ms is not None, request.seq, request.lease),
            )
            if done.rowcount == 0:
                return False
            _note(db, [(request.seq, now_ms, State.PENDING, note)])
            moved[State.LEASED] -= 1
            moved[State.PENDING] += 1
            return True

        self.todo_lists.add(todo)
        if todo != tiers:
            self.partial_lists.add(todo)
        return await self._write(release)

    async def restart_rounds(self, todo: str, now_ms: int, backoff: Backoff) -> int:
        """Rows that have only `todo` left in their round wait, and then try all their tiers again."""

        def restart(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE requests SET todo = tiers, rounds = rounds + 1,"
                " not_before_ms = ? + CAST(min(?, ? * (1 << min(rounds, 20))) AS INTEGER)"
                " WHERE state = 'pending' AND not_before_ms IS NULL AND todo = ? AND todo <> tiers",
                (now_ms, 1000 * backoff.max_s, 1000 * backoff.min_s, todo),
            ).rowcount

        self.partial_lists.discard(todo)
        return await self._database.write(restart)

    async def finish(
        self, request: StoredRequest, answer: Answer, state: State, now_ms: int, *, lease: int | None = None
    ) -> bool:
        """Writes the terminal answer and the new state together; False where the request had ended meanwhile.

        With `lease` the request must still be held under it: a late answer of a lost lease changes nothing.
        """

        def finish(db: sqlite3.Connection, moved: Counter[str]) -> bool:
            row = db.execute("SELECT state, lease FROM requests WHERE seq = ?", (request.seq,)).fetchone()
            if row is None or row["state"] not in ACTIVE:
                return False
            if lease is not None and (row["state"] != State.LEASED or row["lease"] != lease):
                return False
            self._finish(db, request, answer, state, now_ms, moved, old=State(row["state"]))
            return True

        return await self._write(finish)

    async def release_leases(self, now_ms: int) -> int:
        """Gives every lease back at an ordered stop, when no attempt is running any more."""

        def release(db: sqlite3.Connection, moved: Counter[str]) -> int:
            rows = db.execute("SELECT seq FROM requests WHERE state = 'leased'").fetchall()
            db.execute("UPDATE requests SET state = 'pending', tier = NULL WHERE state = 'leased'")
            _note(db, ((row["seq"], now_ms, State.PENDING, "the daemon stopped") for row in rows))
            moved[State.LEASED] -= len(rows)
            moved[State.PENDING] += len(rows)
            return len(rows)

        return await self._write(release)

    async def cancel(self, request_id: str, answer: Answer, now_ms: int) -> State | None:
        """Ends an active request; returns the state it was found in, None where there is no such request."""

        def cancel(db: sqlite3.Connection, moved: Counter[str]) -> State | None:
            row = db.execute("SELECT * FROM requests WHERE id = ?", (request_id,)).fetchone()
            if row is None:
                return None
            state = State(row["state"])
            if state in ACTIVE:
                self._finish(db, stored_request(row), answer, State.CANCELLED, now_ms, moved, old=state)
            return state

        return await self._write(cancel)

    def _finish(
        self,
        db: sqlite3.Connection,
        request: StoredRequest,
        answer: Answer,
        state: State,
        now_ms: int,
        moved: Counter[str],
        *,
        old: State | None = None,
    ) -> None:
        expiry_ms = request.expires_at_ms if request.client_gave_expiry and request.expires_at_ms > now_ms else None
        message = encode_answer(answer, request.reply, request.id, expiry_ms)
        db.execute(
            "UPDATE requests SET state = ?, reason = ?, detail = ?, tier = ?, model = ?, finished_at_ms = ?,"
            " attempts = attempts + ? WHERE seq = ?",
            (
                state,
                answer.error,
                answer.error_message or None,
                answer.tier,
                answer.model,
                None if state is State.ANSWERED else now_ms,
                old is State.LEASED,
                request.seq,
            ),
        )
        self._post(db, request.seq, message, max(request.expires_at_ms, now_ms + self._policy.answer_grace_ms))
        _note(db, [(request.seq, now_ms, state, answer.error_message or answer.tier)])
        if old is not None:
            moved[old] -= 1

    def _post(self, db: sqlite3.Connection, request: Seq, message: OutMessage, give_up_at_ms: int) -> None:
        db.execute(
            "INSERT INTO outbox (seq, request, topic, payload, correlation, content_type, user_properties,"
            " message_expires_at_ms, give_up_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._next_outbox_seq(db),
                request,
                message.topic,
                message.payload,
                message.correlation,
                message.content_type,
                json.dumps(message.user_properties),
                message.expires_at_ms,
                give_up_at_ms,
            ),
        )

    def _next_outbox_seq(self, db: sqlite3.Connection) -> Seq:
        """Returns a number above every one given out since the start: `outbox_after` is asked with the last one seen.

        SQLite alone would give the numbers of purged rows out again.
        """
        last: Seq | None = db.execute("SELECT max(seq) FROM outbox").fetchone()[0]
        self._last_outbox_seq = max(self._last_outbox_seq, last or 0) + 1
        return self._last_outbox_seq

    # --- deliver ------------------------------------------------------------------------------------

    async def outbox_after(self, after: Seq, limit: int) -> list[OutboxRow]:
        """Returns answers ready to be published, in the order they were written, from after row `after`."""

        def read(db: sqlite3.Connection) -> list[OutboxRow]:
            rows = db.execute(
                "SELECT outbox.*, id, device, route, tier, model, requests.state AS request_state, reason, attempts,"
                " received_at_ms FROM outbox JOIN requests ON requests.seq = request"
                " WHERE outbox.state = 'ready' AND outbox.not_before_ms IS NULL AND outbox.seq > ?"
                " ORDER BY outbox.seq LIMIT ?",
                (after, limit),
            )
            return [outbox_row(row) for row in rows]

        return await self._database.read(read)

    async def delivered(self, row: OutboxRow, now_ms: int) -> None:
        """The broker acknowledged the answer. Nothing changes where it was given up meanwhile."""

        def deliver(db: sqlite3.Connection) -> None:
            done = db.execute("UPDATE outbox SET state = 'done' WHERE request = ? AND state = 'ready'", (row.request,))
            if done.rowcount == 0:
                return
            db.execute(
                "UPDATE requests SET state = 'delivered', finished_at_ms = ? WHERE seq = ? AND state = 'answered'",
                (now_ms, row.request),
            )
            _note(db, [(row.request, now_ms, State.DELIVERED, None)])

        await self._database.write(deliver)

    async def not_taken(self, row: OutboxRow, not_before_ms: int, now_ms: int) -> None:
        """Nobody was subscribed, or the broker refused: the answer waits and is offered again."""

        def wait(db: sqlite3.Connection) -> None:
            done = db.execute(
                "UPDATE outbox SET not_before_ms = ?, tries = tries + 1 WHERE request = ? AND state = 'ready'",
                (not_before_ms, row.request),
            )
            if done.rowcount and row.tries == 0:
                _note(db, [(row.request, now_ms, "not_taken", "no subscriber on the answer topic")])

        await self._database.write(wait)

    # --- upkeep -------------------------------------------------------------------------------------

    async def next_due_ms(self) -> int | None:
        """Returns when the next row comes due, expires or is given up, or None."""

        def read(db: sqlite3.Connection) -> int | None:
            times = [db.execute(query).fetchone()[0] for query in _NEXT_TIMES]
            return min((time for time in times if time is not None), default=None)

        return await self._database.read(read)

    async def wake_due(self, now_ms: int) -> tuple[int, int]:
        """Makes rows due whose wait is over; returns how many requests and how many answers."""

        def wake(db: sqlite3.Connection) -> tuple[int, int]:
            requests = db.execute(
                "UPDATE requests SET not_before_ms = NULL"
                " WHERE state = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= ?",
                (now_ms,),
            ).rowcount
            answers = db.execute(
                "SELECT seq FROM outbox WHERE state = 'ready' AND not_before_ms IS NOT NULL AND not_before_ms <= ?",
                (now_ms,),
            ).fetchall()
            db.executemany(
                "UPDATE outbox SET not_before_ms = NULL, seq = ? WHERE seq = ?",
                [(self._next_outbox_seq(db), row["seq"]) for row in answers],
            )
            return requests, len(answers)

        return await self._database.write(wake)

    async def expired(self, now_ms: int, limit: int = 200) -> list[StoredRequest]:
        def read(db: sqlite3.Connection) -> list[StoredRequest]:
            rows = db.execute(
                "SELECT * FROM requests WHERE state IN ('received', 'pending') AND expires_at_ms <= ?"
                " ORDER BY expires_at_ms LIMIT ?",
                (now_ms, limit),
            )
            return [stored_request(row) for row in rows]

        return await self._database.read(read)

    async def give_up_answers(self, now_ms: int) -> int:
        """Answers nobody took in time are given up; their requests end undelivered."""

        def give_up(db: sqlite3.Connection) -> int:
            rows = db.execute("SELECT seq, request FROM outbox WHERE state = 'ready' AND give_up_at_ms <= ?", (now_ms,))
            found = [(row["seq"], row["request"]) for row in rows]
            db.executemany("UPDATE outbox SET state = 'given_up' WHERE seq = ?", [(seq,) for seq, _ in found])
            db.executemany(
                "UPDATE requests SET state = 'undelivered', finished_at_ms = ? WHERE seq = ? AND state = 'answered'",
                [(now_ms, request) for _, request in found],
            )
            _note(db, ((request, now_ms, State.UNDELIVERED, "nobody took the answer") for _, request in found))
            return len(found)

        return await self._database.write(give_up)

    async def purge(self, finished_before_ms: int, limit: int = 500) -> int:
        """Deletes finished requests older than the given time, with their answers and history."""

        def purge(db: sqlite3.Connection) -> int:
            return db.execute(
                "DELETE FROM requests WHERE seq IN (SELECT seq FROM requests WHERE finished_at_ms < ?"
                " AND NOT EXISTS (SELECT 1 FROM outbox WHERE request = requests.seq AND outbox.state = 'ready')"
                " LIMIT ?)",
                (finished_before_ms, limit),
            ).rowcount

        return await self._database.write(purge)

    # --- plumbing -----------------------------------------------------------------------------------

    async def _write(self, change: _Change[T]) -> T:
        """Runs a change that moves requests between states, and counts the moves once they are on disk."""
        moved: Counter[str] = Counter()

        def write(db: sqlite3.Connection) -> T:
            moved.clear()  # a batch that failed is run again
            return change(db, moved)

        return await self._database.write(write, committed=lambda: self.counts.update(moved))


_KEPT_OF_REFUSED = 4096  # of a refused payload: enough to see what it was
_NEXT_TIMES = (
    "SELECT min(not_before_ms) FROM requests WHERE state = 'pending' AND not_before_ms IS NOT NULL",
    "SELECT min(not_before_ms) FROM outbox WHERE state = 'ready' AND not_before_ms IS NOT NULL",
    "SELECT min(expires_at_ms) FROM requests WHERE state IN ('received', 'pending')",
    "SELECT min(give_up_at_ms) FROM outbox WHERE state = 'ready'",
)


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


def _is_redelivery(db: sqlite3.Connection, item: Request | Refused) -> bool:
    """True where the packet was accepted in an earlier connection and only its PUBACK was lost."""
    known = db.execute("SELECT topic, payload_hash FROM packets WHERE mid = ?", (item.incoming.mid,)).fetchone()
    return known is not None and (known["topic"], known["payload_hash"]) == (item.incoming.topic, item.payload_hash)


def _is_known(db: sqlite3.Connection, item: Refused) -> bool:
    """True where the very same question has been accepted."""
    known = db.execute(
        "SELECT 1 FROM requests WHERE dedupe_key = ? AND payload_hash = ?", (item.dedupe_key, item.payload_hash)
    ).fetchone()
    return known is not None


def _remember_packet(db: sqlite3.Connection, item: Request | Refused, seq: Seq) -> None:
    if item.incoming.qos > 0:
        db.execute(
            "INSERT OR REPLACE INTO packets (mid, request, topic, payload_hash) VALUES (?, ?, ?, ?)",
            (item.incoming.mid, seq, item.incoming.topic, item.payload_hash),
        )


def _note(db: sqlite3.Connection, notes: Iterable[tuple[Seq, int, str, str | None]]) -> None:
    db.executemany("INSERT INTO history (request, at_ms, event, note) VALUES (?, ?, ?, ?)", notes)


def _stored(db: sqlite3.Connection, seq: Seq) -> StoredRequest:
    return stored_request(db.execute("SELECT * FROM requests WHERE seq = ?", (seq,)).fetchone())


def _inventory(db: sqlite3.Connection) -> tuple[Counter[str], set[str], set[str]]:
    counts: Counter[str] = Counter(
        {
            str(state): db.execute(f"SELECT count(*) FROM requests WHERE state = '{state}'").fetchone()[0]
            for state in ACTIVE
        }
    )
    lists = db.execute(
        "SELECT DISTINCT todo, todo <> tiers AS is_partial FROM requests WHERE state = 'pending'"
    ).fetchall()
    return counts, {row["todo"] for row in lists}, {row["todo"] for row in lists if row["is_partial"]}
