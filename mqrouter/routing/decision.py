"""A decision is a value that explains itself; it is stored with the request as it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One configured example and how near the question is to it (cosine)."""

    example: str
    route: str
    similarity: float


@dataclass(frozen=True, slots=True)
class RouteScore:
    route: str
    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What a strategy says: every route's score, best first, and the examples behind the best."""

    ranked: tuple[RouteScore, ...]
    nearest: tuple[Neighbour, ...] = ()


class Reason(StrEnum):
    """Why this route, or why none."""

    ABOVE_THRESHOLD = "above_threshold"
    ASKED_FOR = "asked_for"
    BELOW_THRESHOLD = "below_threshold"
    TOO_CLOSE = "too_close"


@dataclass(frozen=True, slots=True)
class Decision:
    """`route` is None where the strategy abstained; then `best` says what came nearest."""

    strategy: str
    route: str | None
    reason: Reason
    best: str | None
    score: float
    margin: float
    """Lead of `best` over the best other route; negative where the requester asked for a lesser one."""
    threshold: float
    ranked: tuple[RouteScore, ...]
    nearest: tuple[Neighbour, ...]
    embedded_tokens: int
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


RANKED_IN_EXPLANATION = 3


def decide(
    scores: Scores,
    *,
    strategy: str,
    min_margin: float,
    asked_route: str | None,
    embedded_tokens: int,
    is_cut: bool,
) -> Decision:
    """Returns the requester's own route, else the best one above its threshold and clear of the second, else none."""
    ranked = scores.ranked
    best = ranked[0] if asked_route is None else next(entry for entry in ranked if entry.route == asked_route)
    rival = next((entry for entry in ranked if entry is not best), None)
    margin = best.score if rival is None else best.score - rival.score
    if asked_route is not None:
        route, reason = asked_route, Reason.ASKED_FOR
    elif best.score < best.threshold:
        route, reason = None, Reason.BELOW_THRESHOLD
    elif rival is not None and margin < min_margin:
        route, reason = None, Reason.TOO_CLOSE
    else:
        route, reason = best.route, Reason.ABOVE_THRESHOLD
    return Decision(
        strategy=strategy,
        route=route,
        reason=reason,
        best=best.route,
        score=best.score,
        margin=margin,
        threshold=best.threshold,
        ranked=ranked[:RANKED_IN_EXPLANATION],
        nearest=scores.nearest,
        embedded_tokens=embedded_tokens,
        is_cut=is_cut,
    )
