"""What a tier may still be asked: requests and tokens within a minute, money within a day and a month. Pure.

A call begins while there is room, and holds what it is expected to use until its end is known: so a limit on tokens
or money is passed by one call at most, and by what calls under way use more than expected of them.

Days and months begin at midnight UTC by the gateway's own time (`timeline`): setting the machine's clock neither
gives a budget back nor takes one away.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mqrouter.core.lengths import estimate_tokens
from mqrouter.core.records import Seq

MINUTE_MS = 60_000
DAY_MS = 86_400_000
MILLION = 1_000_000
EPOCH_YEAR = 1970
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class Tokens:
    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class TierLimits:
    """None is no limit. Prices are of a million tokens; budgets are in the same currency."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_per_day: float | None = None
    budget_per_month: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    max_tokens: int = 512

    def cost(self, used: Tokens) -> float:
        return (used.prompt * self.prompt_price + used.completion * self.completion_price) / MILLION

    def expected(self, payload_bytes: int) -> Tokens:
        """Returns what a call with such a question is expected to use: the longest answer it may get."""
        return Tokens(estimate_tokens(payload_bytes), self.max_tokens)


@dataclass(frozen=True, slots=True)
class Over:
    """A tier is at a limit, for the time being: why, and when there will be room, by the gateway's time."""

    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class Level:
    """How much of one limit is used; `limit` is None where it is only counted."""

    name: str
    used: float
    limit: float | None
    resets_at_ms: int | None
    """When the oldest of it, or all of it, is over; None where nothing is used."""


@dataclass(slots=True, eq=False)
class Call:
    """One attempt at a tier, from its lease to its end. `used` is None until something was sent."""

    tier: str
    request: Seq
    lease: int
    request_id: str
    at_ms: int
    expected: Tokens
    used: Tokens | None = None


@dataclass(slots=True, eq=False)
class _Entry:
    at_ms: int
    tokens: int
    is_inside: bool = True
    """False once it has left the minute, or where nothing was sent."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left before a limit is reached; infinite where there is none."""

    requests: float = math.inf
    tokens: float = math.inf
    money: float = math.inf

    def takes(self, expected: Sequence[Tokens], limits: TierLimits) -> int:
        """Returns how many of these calls may begin, from the first on: each while there is room before it."""
        tokens = money = 0.0
        for number, call in enumerate(expected):
            if number >= self.requests or tokens >= self.tokens or money >= self.money:
                return number
            tokens += call.total
            money += limits.cost(call)
        return len(expected)


@dataclass(slots=True)
class Meter:
    """One tier's use, as the database has it."""

    limits: TierLimits
    _entries: deque[_Entry] = field(default_factory=deque)
    _requests: int = 0
    _tokens: int = 0
    _day: int = 0
    _month: range = range(0)
    _spent_day: float = 0.0
    _spent_month: float = 0.0
    _reserved: float = 0.0
    _open: dict[str, tuple[Call, _Entry]] = field(default_factory=dict)

    def load(self, now_ms: int, spent_day: float, spent_month: float, recent: Iterable[tuple[int, int]]) -> None:
        """Begins with what the database knows; `recent` are (begin, tokens) of the calls of the latest minute."""
        self._entries.clear()
        self._open.clear()
        self._requests, self._tokens, self._reserved = 0, 0, 0.0
        self._roll(now_ms)
        self._spent_day, self._spent_month = spent_day, spent_month
        for at_ms, tokens in recent:
            self._add(_Entry(at_ms, tokens))

    def begin(self, call: Call) -> None:
        entry = _Entry(call.at_ms, call.expected.total)
        self._add(entry)
        self._reserved += self.limits.cost(call.expected)
        self._open[call.request_id] = call, entry

    def call_of(self, request_id: str) -> Call | None:
        """Returns the latest call of a request, while it is under way."""
        found = self._open.get(request_id)
        return None if found is None else found[0]

    def end(self, call: Call, now_ms: int) -> None:
        """What was expected gives way to what was used."""
        self._roll(now_ms)
        self._reserved -= self.limits.cost(call.expected)
        if self.call_of(call.request_id) is call:
            entry = self._open.pop(call.request_id)[1]
            self._correct(entry, call.used)
        cost = self.limits.cost(call.used or Tokens())
        self._spent_day += cost
        self._spent_month += cost
        if not self._open:
            self._reserved = 0.0  # no rest of rounding stays

    def allowance(self, now_ms: int) -> Allowance:
        self._roll(now_ms)
        limits = self.limits
        money = min(
            _left(limits.budget_per_day, self._spent_day + self._reserved),
            _left(limits.budget_per_month, self._spent_month + self._reserved),
        )
        tokens = _left(limits.tokens_per_minute, self._tokens)
        return Allowance(_left(limits.requests_per_minute, self._requests), tokens, money)

    def is_over(self, now_ms: int) -> bool:
        left = self.allowance(now_ms)
        return left.requests <= 0 or left.tokens <= 0 or left.money <= 0

    def over(self, now_ms: int) -> Over | None:
        """Returns the limit that the tier is at; of several the one that lasts longest. None where there is room."""
        if not self.is_over(now_ms):
            return None
        at_limit = [level for level in self.levels(now_ms) if level.limit is not None and level.used >= level.limit]
        longest = max(at_limit, key=lambda level: level.resets_at_ms or now_ms)
        what = longest.name.replace("_", " ")
        return Over(f"{what}: {longest.used:.6g} of {longest.limit:.6g} taken", longest.resets_at_ms or now_ms + 1)

    def levels(self, now_ms: int) -> list[Level]:
        """Returns each limit and how much of it is used; money also where it is only counted."""
        self._roll(now_ms)
        limits = self.limits
        day_ends_ms, month_ends_ms = (self._day + 1) * DAY_MS, self._month.stop * DAY_MS
        spent_day, spent_month = self._spent_day + self._reserved, self._spent_month + self._reserved
        found = [
            Level("requests_per_minute", self._requests, limits.requests_per_minute, self._room_at_ms(is_tokens=False)),
            Level("tokens_per_minute", self._tokens, limits.tokens_per_minute, self._room_at_ms(is_tokens=True)),
            Level("budget_per_day", spent_day, limits.budget_per_day, day_ends_ms),
            Level("budget_per_month", spent_month, limits.budget_per_month, month_ends_ms),
        ]
        has_price = limits.prompt_price > 0 or limits.completion_price > 0
        return [level for level in found if level.limit is not None or (has_price and "budget" in level.name)]

    def _room_at_ms(self, *, is_tokens: bool) -> int | None:
        """Returns when so many calls have left the minute that there is room, at the least the oldest of them."""
        limit = self.limits.tokens_per_minute if is_tokens else self.limits.requests_per_minute
        left = self._tokens if is_tokens else self._requests
        for entry in self._entries:
            if not entry.is_inside:
                continue
            left -= entry.tokens if is_tokens else 1
            if limit is None or left < limit:
                return entry.at_ms + MINUTE_MS
        return None

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._requests += 1
        self._tokens += entry.tokens

    def _correct(self, entry: _Entry, used: Tokens | None) -> None:
        if not entry.is_inside:
            return
        tokens = 0 if used is None else used.total
        self._tokens += tokens - entry.tokens
        entry.tokens = tokens
        if used is None:
            entry.is_inside = False
            self._requests -= 1

    def _roll(self, now_ms: int) -> None:
        """What is over is forgotten: calls of the last minute but one, the money of another day or month."""
        while self._entries and self._entries[0].at_ms + MINUTE_MS <= now_ms:
            entry = self._entries.popleft()
            if entry.is_inside:
                entry.is_inside = False
                self._requests -= 1
                self._tokens -= entry.tokens
        if (day := day_of(now_ms)) == self._day:
            return
        self._day, self._spent_day = day, 0.0
        if day not in self._month:
            self._month, self._spent_month = month_of(day), 0.0


def _left(limit: float | None, used: float) -> float:
    return math.inf if limit is None else limit - used


def day_of(now_ms: int) -> int:
    """Returns the number of the day, counted from the first of 1970."""
    return now_ms // DAY_MS


def month_of(day: int) -> range:
    """Returns the days of the month that a day is in."""
    year = EPOCH_YEAR + day // 366
    while _days_before(year + 1) <= day:
        year += 1
    first = _days_before(year)
    for month, days in enumerate(MONTH_DAYS):
        length = days + (month == 1 and _is_leap(year))
        if day < first + length:
            break
        first += length
    return range(first, first + length)


def _days_before(year: int) -> int:
    leap_days = (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400
    return 365 * (year - EPOCH_YEAR) + leap_days - 477  # as many leap days were before 1970


def _is_leap(year: int) -> bool:
    return _days_before(year + 1) - _days_before(year) == 366
