"""What each tier was used for: a call is on record before it begins, and what it used in the transaction of its end.

So a crash loses none and none counts twice: what was under way then counts as what it was expected to use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from mqrouter.core.records import Seq, StoredRequest
from mqrouter.core.spending import MINUTE_MS, Allowance, Call, Meter, Tokens, day_of, month_of

KEPT_DAYS = 400


class Accounts:
    """The calls under way at the tiers that have a meter, and the meters themselves, which follow every commit."""

    def __init__(self, meters: Mapping[str, Meter]) -> None:
        self.meters = meters
        self._open: dict[tuple[Seq, int], Call] = {}

    def recover(self, db: sqlite3.Connection, now_ms: int) -> None:
        """Calls that a crash cut off count as expected: nobody knows how far they came."""
        for row in db.execute("SELECT * FROM calls WHERE is_open = 1").fetchall():
            used = Tokens(row["prompt_tokens"], row["completion_tokens"])
            _add(db, row["tier"], day_of(row["at_ms"]), used, row["cost"])
        db.execute("UPDATE calls SET is_open = 0 WHERE is_open = 1")
        for tier in self.meters:
            _forget_calls(db, tier, now_ms)
            db.execute("DELETE FROM spending WHERE tier = ? AND day < ?", (tier, day_of(now_ms) - KEPT_DAYS))

    def load(self, db: sqlite3.Connection, now_ms: int) -> None:
        """The meters show what the database has."""
        self._open.clear()
        day = day_of(now_ms)
        for tier, meter in self.meters.items():
            recent = db.execute(
                "SELECT at_ms, prompt_tokens + completion_tokens FROM calls"
                " WHERE is_open = 0 AND tier = ? AND at_ms > ? ORDER BY at_ms",
                (tier, now_ms - MINUTE_MS),
            ).fetchall()
            month = _spent_since(db, tier, month_of(day).start)
            meter.load(now_ms, _spent_since(db, tier, day), month, [(row[0], row[1]) for row in recent])

    def allowance(self, tier: str, now_ms: int) -> Allowance | None:
        meter = self.meters.get(tier)
        return None if meter is None else meter.allowance(now_ms)

    def affordable(self, db: sqlite3.Connection, tier: str, chosen: Sequence[Seq], allowance: Allowance | None) -> int:
        """Returns how many of the requests, from the first on, the tier may be asked now."""
        if allowance is None:
            return len(chosen)
        limits = self.meters[tier].limits
        sizes = [db.execute("SELECT bytes FROM requests WHERE seq = ?", (seq,)).fetchone()[0] for seq in chosen]
        return allowance.takes([limits.expected(size) for size in sizes], limits)

    def open(self, db: sqlite3.Connection, tier: str, claimed: Sequence[StoredRequest], now_ms: int) -> list[Call]:
        """Puts the calls on record; `begun` follows once they are on disk."""
        if tier not in self.meters:
            return []
        limits = self.meters[tier].limits
        calls = [
            Call(tier, request.seq, request.lease, request.id, now_ms, limits.expected(len(request.payload)))
            for request in claimed
        ]
        db.executemany(
            "INSERT INTO calls (tier, request, lease, at_ms, prompt_tokens, completion_tokens, cost, is_open)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
            [
                (
                    tier,
                    call.request,
                    call.lease,
                    now_ms,
                    call.expected.prompt,
                    call.expected.completion,
                    limits.cost(call.expected),
                )
                for call in calls
            ],
        )
        return calls

    def begun(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._open[call.request, call.lease] = call
            self.meters[call.tier].begin(call)

    def call_of(self, request: StoredRequest, lease: int | None) -> Call | None:
        """Returns the call that this lease of the request stands for, while it is under way."""
        return None if lease is None else self._open.get((request.seq, lease))

    def close(self, db: sqlite3.Connection, call: Call | None, now_ms: int) -> None:
        """Records what a call used, whatever became of its request; `ended` follows once that is on disk."""
        if call is None:
            return
        used = call.used or Tokens()
        cost = self.meters[call.tier].limits.cost(used)
        at = (call.request, call.lease)
        if call.used is None:  # nothing was sent
            db.execute("DELETE FROM calls WHERE is_open = 1 AND request = ? AND lease = ?", at)
        else:
            db.execute(
                "UPDATE calls SET is_open = 0, prompt_tokens = ?, completion_tokens = ?, cost = ?"
                " WHERE is_open = 1 AND request = ? AND lease = ?",
                (used.prompt, used.completion, cost, *at),
            )
            _add(db, call.tier, day_of(now_ms), used, cost)
        _forget_calls(db, call.tier, now_ms)

    def ended(self, call: Call | None, now_ms: int) -> None:
        if call is not None:
            self._open.pop((call.request, call.lease), None)
            self.meters[call.tier].end(call, now_ms)


def _add(db: sqlite3.Connection, tier: str, day: int, used: Tokens, cost: float) -> None:
    db.execute(
        "INSERT INTO spending (tier, day, requests, prompt_tokens, completion_tokens, cost) VALUES (?, ?, 1, ?, ?, ?)"
        " ON CONFLICT (tier, day) DO UPDATE SET requests = requests + 1, cost = cost + excluded.cost,"
        " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
        " completion_tokens = completion_tokens + excluded.completion_tokens",
        (tier, day, used.prompt, used.completion, cost),
    )


def _forget_calls(db: sqlite3.Connection, tier: str, now_ms: int) -> None:
    db.execute("DELETE FROM calls WHERE is_open = 0 AND tier = ? AND at_ms <= ?", (tier, now_ms - MINUTE_MS))


def _spent_since(db: sqlite3.Connection, tier: str, day: int) -> float:
    query = "SELECT coalesce(sum(cost), 0.0) FROM spending WHERE tier = ? AND day >= ?"
    spent: float = db.execute(query, (tier, day)).fetchone()[0]
    return spent
