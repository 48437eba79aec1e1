"""A decision is a value that explains itself; it is stored with the request as it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mqrouter.routing.session import Session


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One configured example and how near the question is to it (cosine)."""

    example: str
    route: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a score, before its weight."""

    name: str
    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RouteScore:
    route: str
    score: float
    threshold: float
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """How far a question looks like anything configured: a `score` below `threshold` is out of scope."""

    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What a strategy says: the best routes' scores, best first, and the examples behind the best."""

    ranked: tuple[RouteScore, ...]
    """At least the best two, and the route named in the signals."""
    nearest: tuple[Neighbour, ...] = ()
    scope: Scope | None = None
    """None where the strategy has no opinion apart from its scores."""


class Reason(StrEnum):
    """Why this route, or why none."""

    ABOVE_THRESHOLD = "above_threshold"
    ASKED_FOR = "asked_for"
    BELOW_THRESHOLD = "below_threshold"
    OUT_OF_SCOPE = "out_of_scope"
    SESSION = "session"
    TOO_CLOSE = "too_close"


ABSTAINED = frozenset({Reason.BELOW_THRESHOLD, Reason.OUT_OF_SCOPE, Reason.TOO_CLOSE})


@dataclass(frozen=True, slots=True)
class Decision:
    """`route` is None where the strategy abstained; then `best` says what came nearest."""

    strategy: str
    route: str | None
    reason: Reason
    best: str | None
    score: float
    margin: float
    """Lead of `best` over the best other route; negative where the requester or the session wanted a lesser one."""
    threshold: float
    ranked: tuple[RouteScore, ...]
    nearest: tuple[Neighbour, ...]
    embedded_tokens: int
    is_cut: bool
    scope: Scope | None = None
    inherited_from: str | None = None
    """Id of the session's request whose route this one keeps."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    scores: Scores,
    *,
    strategy: str,
    min_margin: float,
    asked_route: str | None,
    embedded_tokens: int,
    is_cut: bool,
    session: Session | None = None,
    is_referential: bool = False,
    switch_margin: float = 0.0,
) -> Decision:
    """Returns the requester's own route, else the best one above its threshold and clear of the second, else none.

    Within a session a question that means nothing alone keeps the session's route, and another route must lead that
    one by `switch_margin`.
    """
    ranked = scores.ranked
    best, reason, inherited_from = ranked[0], _reason(scores, min_margin), None
    if asked_route is not None:
        best, reason = _entry(ranked, asked_route), Reason.ASKED_FOR
    elif session is not None and _is_kept(_entry(ranked, session.route), best, reason, is_referential, switch_margin):
        best, reason, inherited_from = _entry(ranked, session.route), Reason.SESSION, session.request
    return Decision(
        strategy=strategy,
        route=None if reason in ABSTAINED else best.route,
        reason=reason,
        best=best.route,
        score=best.score,
        margin=_lead(ranked, best),
        threshold=best.threshold,
        ranked=ranked,
        nearest=scores.nearest,
        embedded_tokens=embedded_tokens,
        is_cut=is_cut,
        scope=scores.scope,
        inherited_from=inherited_from,
    )


def _reason(scores: Scores, min_margin: float) -> Reason:
    """Returns what the scores say of the best route: that it is taken, or why none is."""
    best = scores.ranked[0]
    if scores.scope is not None and scores.scope.score < scores.scope.threshold:
        return Reason.OUT_OF_SCOPE
    if best.score < best.threshold:
        return Reason.BELOW_THRESHOLD
    if len(scores.ranked) > 1 and _lead(scores.ranked, best) < min_margin:
        return Reason.TOO_CLOSE
    return Reason.ABOVE_THRESHOLD


def _is_kept(
    sessions: RouteScore, best: RouteScore, reason: Reason, is_referential: bool, switch_margin: float
) -> bool:
    """True where the session's route stays: the question leans on it, or no other leads it by enough."""
    is_near = best.score - sessions.score < switch_margin
    match reason:
        case Reason.ABOVE_THRESHOLD:
            return best is not sessions and is_near
        case Reason.TOO_CLOSE:
            return is_referential or (is_near and sessions.score >= sessions.threshold)
        case _:
            return is_referential


def _entry(ranked: tuple[RouteScore, ...], route: str) -> RouteScore:
    return next(entry for entry in ranked if entry.route == route)


def _lead(ranked: tuple[RouteScore, ...], best: RouteScore) -> float:
    """Returns how far `best` is above the best other route; its own score where there is no other."""
    rival = next((entry for entry in ranked if entry is not best), None)
    return best.score if rival is None else best.score - rival.score
