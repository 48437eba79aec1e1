"""What follows a failed attempt: the next tier, a wait, or the end. Rules only; the lane carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mqrouter.core.backoff import Backoff


class Failure(StrEnum):
    """How an attempt failed, as far as the next step depends on it."""

    UNREACHABLE = "unreachable"  # nobody answered: costs no attempt, the breaker keeps others away
    TRANSIENT = "transient"  # may work later
    REFUSED = "refused"  # this tier will never take this request
    WITHHELD = "withheld"  # it may not see this request, and was not asked: costs no attempt
    UNFIT = "unfit"  # it answered, and the answer is not fit to send
    LESSER = "lesser"  # the same, but sent where nobody does better: the others are asked first


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a request may go: `tiers` are all that are left, `todo` those not yet tried in this round."""

    tiers: tuple[str, ...]
    todo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoOn:
    """Release the request to `waiting`; with `wait_s` not before that many seconds have passed."""

    waiting: Waiting
    is_counted: bool
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No tier is left: answer `upstream_failed`, or `private_unanswerable` where the last one may not see it."""


def after_failure(
    waiting: Waiting,
    tier: str,
    failure: Failure,
    *,
    attempts: int,
    max_attempts: int,
    rounds: int,
    backoff: Backoff,
    chance: float,
    retry_after_s: float | None = None,
) -> GoOn | GiveUp:
    """Returns the next step after `tier` failed; `attempts` and `rounds` count what came before this one."""
    if failure is Failure.UNREACHABLE:
        return GoOn(waiting, is_counted=False)  # the breaker is open: the next tier that is up takes it
    is_counted = failure is not Failure.WITHHELD
    if is_counted and attempts + 1 >= max_attempts:
        return GiveUp()
    is_final = failure in (Failure.REFUSED, Failure.UNFIT, Failure.WITHHELD)
    tiers = _less(waiting.tiers, tier) if is_final else waiting.tiers
    if not tiers:
        return GiveUp()
    todo = _less(waiting.todo, tier)
    if todo:
        return GoOn(Waiting(tiers, todo), is_counted)
    wait_s = backoff.delay_s(rounds + 1, chance)
    if tiers == (tier,) and retry_after_s is not None:  # with others left, the hold on this tier is enough
        wait_s = max(wait_s, retry_after_s)
    return GoOn(Waiting(tiers, tiers), is_counted, wait_s=wait_s)


def _less(tiers: tuple[str, ...], tier: str) -> tuple[str, ...]:
    return tuple(name for name in tiers if name != tier)
