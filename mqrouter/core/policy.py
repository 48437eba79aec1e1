"""What no score may override: privacy and size decide which tiers are left, with a reason for each struck out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mqrouter.core.lengths import buffered
from mqrouter.core.spending import Over
from mqrouter.errors import ErrorCode

NOT_TRUSTED = "private: the tier is not trusted"


@dataclass(frozen=True, slots=True)
class TierFacts:
    """What the rules need to know of one tier."""

    name: str
    is_local: bool
    is_trusted: bool
    context_chars: int
    redacts: bool = False
    """May see what is private by nothing but data found in it, once that is replaced."""


@dataclass(frozen=True, slots=True)
class Struck:
    tier: str
    reason: str
    until_ms: int | None = None
    """By the gateway's time, where the tier stays in the plan and is at a limit for so long; None: for good."""


@dataclass(frozen=True, slots=True)
class TierPlan:
    """Tiers in order of preference, those struck out and why, and the code of the refusal where none is left."""

    tiers: tuple[str, ...]
    struck: tuple[Struck, ...]
    refusal: ErrorCode | None = None
    refusal_message: str = ""


def plan_tiers(
    wanted: Sequence[str],
    facts: dict[str, TierFacts],
    *,
    is_private: bool,
    chars: int,
    fall_back_locally: bool,
    is_redactable: bool = False,
) -> TierPlan:
    """Returns the wanted tiers less those a rule strikes out; none wanted is `no_route`.

    With `fall_back_locally` the tiers of this device stand behind the others, for when none of those is up.
    """
    if fall_back_locally and wanted:
        wanted = [*wanted, *(name for name, tier in facts.items() if tier.is_local and name not in wanted)]
    struck: list[Struck] = []
    left: list[str] = []
    for name in wanted:
        tier = facts[name]
        is_open = tier.is_trusted or (is_redactable and tier.redacts)
        reason = _why_struck(tier, is_private and not is_open, chars)
        if reason is None:
            left.append(name)
        else:
            struck.append(Struck(name, reason))
    if left:
        return TierPlan(tuple(left), tuple(struck))
    is_withheld = all(entry.reason == NOT_TRUSTED for entry in struck)
    code, message = _refusal(wanted, is_withheld, chars)
    return TierPlan((), tuple(struck), code, message)


def struck_for_now(plan: TierPlan, over: Mapping[str, Over]) -> TierPlan:
    """Returns the plan with the tiers that are at a limit of their own named as struck out until there is room.

    They keep their place: a request that waits may take them once that is over.
    """
    found = (Struck(name, over[name].reason, over[name].until_ms) for name in plan.tiers if name in over)
    return replace(plan, struck=(*plan.struck, *found))


def _why_struck(tier: TierFacts, is_withheld: bool, chars: int) -> str | None:
    if is_withheld:
        return NOT_TRUSTED
    if buffered(chars) > tier.context_chars:
        needed = f"{buffered(chars)} with the 30 % buffer"
        return f"too long: {chars} characters, {needed}, the tier takes {tier.context_chars}"
    return None


def _refusal(wanted: Sequence[str], is_withheld: bool, chars: int) -> tuple[ErrorCode, str]:
    if not wanted:
        return ErrorCode.NO_ROUTE, "no route claims this question"
    if is_withheld:
        return ErrorCode.PRIVATE_UNANSWERABLE, "none of its route's tiers is trusted"
    return ErrorCode.TOO_LARGE, f"{chars} characters are more than any tier of the route takes"
