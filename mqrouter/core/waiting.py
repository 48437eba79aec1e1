"""Why a request waits right now: what holds back its route and its tiers, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mqrouter.core.records import split_tiers
from mqrouter.core.states import State


@dataclass(frozen=True, slots=True)
class TierStanding:
    """How a tier stands; times in seconds."""

    is_up: bool = True
    paused_by: str | None = None
    is_open: bool = False
    """Its breaker is: nobody asks it until a probe succeeds."""
    reason: str | None = None
    probe_in_s: float | None = None
    held_s: float = 0.0
    limit: str | None = None
    limit_for_s: float = 0.0
    in_flight: int = 0

    def why_not(self) -> str | None:
        """Returns what keeps it from taking questions; None where it takes them."""
        if self.paused_by is not None:
            return f"is paused by {self.paused_by}"
        if self.is_open:
            when = "" if self.probe_in_s is None else f", looked at again in {span(self.probe_in_s)}"
            return f"is down{f' ({self.reason})' if self.reason else ''}{when}"
        if self.limit is not None:
            return f"is at its limit for {span(self.limit_for_s)}: {self.limit}"
        if self.held_s > 0:
            return f"asked to be left alone for {span(self.held_s)}"
        return None if self.is_up else "is not usable"


@dataclass(frozen=True, slots=True)
class Standing:
    """What requests may wait for; without `is_live` as far as the database tells, of a daemon that is down."""

    tiers: Mapping[str, TierStanding]
    paused_routes: Mapping[str, str] = field(default_factory=dict)
    """Who paused each."""
    is_live: bool = True


def explained(row: Mapping[str, Any], standing: Standing) -> dict[str, Any]:
    """Returns a request as it is listed, with `waits_because`: None where it does not wait.

    `waits_is_current` is false where that is what was known when the daemon ended.
    """
    why = why_waiting(row, standing)
    return {**row, "waits_because": why, "waits_is_current": None if why is None else standing.is_live}


def why_waiting(row: Mapping[str, Any], standing: Standing) -> str | None:
    """Returns why a request waits; `row` is one as it is listed."""
    match row["state"]:
        case State.RECEIVED:
            return "is being decided" if standing.is_live else "was not decided yet"
        case State.LEASED:
            return f"{row['tier']} {'is' if standing.is_live else 'was'} working on it"
        case State.DROPPED:
            return f"dropped: ends in {span(row['dropped_for_s'])} unless undone"
        case State.PENDING:
            return _why_pending(row, standing)
    return None


def _why_pending(row: Mapping[str, Any], standing: Standing) -> str:
    if (actor := standing.paused_routes.get(row["route"])) is not None:
        return f"route {row['route']} is paused by {actor}"
    tiers = split_tiers(row["waiting_for"])
    if (in_s := row["next_attempt_in_s"]) is not None:
        tried = f" after attempt {row['attempts']}" if row["attempts"] else ""
        return f"next try in {span(in_s)}{tried}{_failure(row)}"
    why_not = {tier: _why_not(tier, standing) for tier in tiers}
    if all(why_not.values()):
        return "; ".join(f"{tier} {why}" for tier, why in why_not.items())
    if row["is_suspect"]:
        return "it was in hand when the daemon was killed: such requests are tried one at a time"
    if not standing.is_live:
        return f"the daemon is not running{_failure(row)}"
    first = next(tier for tier, why in why_not.items() if not why)
    in_flight = standing.tiers[first].in_flight
    others = "behind others" if not in_flight else f"behind others: {first} works on {in_flight}"
    return f"its turn comes at {first}, {others}{_struck(why_not, first)}"


def _struck(why_not: Mapping[str, str | None], first: str) -> str:
    before = _until(why_not.items(), first)
    return f" ({'; '.join(before)})" if before else ""


def _until(items: Iterable[tuple[str, str | None]], first: str) -> list[str]:
    found: list[str] = []
    for tier, why in items:
        if tier == first:
            break
        found.append(f"{tier} {why}")
    return found


def _why_not(tier: str, standing: Standing) -> str | None:
    if (known := standing.tiers.get(tier)) is not None:
        return known.why_not()
    return "is not configured any more" if standing.is_live else None


def _failure(row: Mapping[str, Any]) -> str:
    return f": {row['last_failure']}" if row["last_failure"] else ""


def span(seconds: float) -> str:
    """Returns a length of time in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def standing_of_status(status: Mapping[str, Any]) -> Standing:
    """Returns what the daemon's own account of itself says."""
    return Standing(
        {
            name: TierStanding(
                is_up=tier["usable"],
                paused_by=tier["paused_by"],
                is_open=tier["breaker"] == "open",
                reason=tier["reason"],
                probe_in_s=tier["probe_in_s"],
                held_s=tier["held_s"],
                limit=None if tier["limit"] is None else tier["limit"]["reason"],
                limit_for_s=0.0 if tier["limit"] is None else tier["limit"]["for_s"],
                in_flight=tier["in_flight"],
            )
            for name, tier in status["tiers"].items()
        },
        {name: pause["paused_by"] for name, pause in status["paused_routes"].items()},
    )
