"""What replayed requests cost, and would: stored token counts where there are any, else estimates, times the prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqrouter.edge.store.past import Answered
    from mqrouter.settings import Tier


@dataclass(frozen=True, slots=True)
class Tokens:
    prompt: int
    completion: int | None
    """None where there is no answer to go by."""
    is_stored: bool
    """True where a tier counted them; else they are estimated from characters."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request at the tier that answered it, or was to be asked first, and at the one that would be; None: none."""

    before: str | None
    after: str | None
    tokens: Tokens


def tokens_of(chars: int, answered: Answered | None) -> Tokens:
    """Returns the tokens of a question of so many characters, and of its answer."""
    from mqrouter.routing.signals import estimate_tokens

    if answered is None:
        return Tokens(estimate_tokens(chars), None, False)
    if answered.usage is not None:
        return Tokens(*answered.usage, True)
    return Tokens(estimate_tokens(chars), estimate_tokens(answered.chars), False)


def cost(calls: Sequence[Call], before: Mapping[str, Tier], after: Mapping[str, Tier]) -> dict[str, Any] | None:
    """Returns both sums over the requests whose tiers have prices, JSON-ready; None where no tier has one.

    An answer that nobody has seen counts as long as the others' mean; without others, as the tier's longest. A local
    tier costs nothing unless it has a price.
    """
    if not any(_has_price(tier) for tier in (*before.values(), *after.values())):
        return None
    seen = [call.tokens.completion for call in calls if call.tokens.completion is not None]
    mean = round(sum(seen) / len(seen)) if seen else None
    pairs = [(_of(call.before, call, before, mean), _of(call.after, call, after, mean), call.tokens) for call in calls]
    priced = [(old, new, tokens) for old, new, tokens in pairs if old is not None and new is not None]
    old_sum, new_sum = sum(old for old, _, _ in priced), sum(new for _, new, _ in priced)
    stored = sum(tokens.is_stored for _, _, tokens in priced)
    return {
        "before": old_sum,
        "after": new_sum,
        "difference": new_sum - old_sum,
        "requests": len(priced),
        "by_stored_usage": stored,
        "estimated": len(priced) - stored,
        "without_price": len(calls) - len(priced),
    }


def cost_lines(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"estimated cost of {found['requests']} requests: {found['before']:.6g} before, {found['after']:.6g} after "
        f"({found['difference']:+.6g}); tokens of {found['by_stored_usage']} as the tier counted them, of "
        f"{found['estimated']} estimated"
    ]
    if found["without_price"]:
        lines.append(f"{found['without_price']} requests are left out of it: a tier of theirs has no price")
    return lines


def _of(name: str | None, call: Call, tiers: Mapping[str, Tier], mean: int | None) -> float | None:
    """Returns what a call costs; None where its tier is gone or has no price."""
    if name is None:
        return 0.0
    tier = tiers.get(name)
    if tier is None:
        return None
    if not _has_price(tier):
        return 0.0 if tier.kind == "local" else None
    completion = call.tokens.completion
    if completion is None:
        completion = tier.max_tokens if mean is None else mean
    prompt_price, completion_price = tier.prompt_price_per_million or 0.0, tier.completion_price_per_million or 0.0
    return (call.tokens.prompt * prompt_price + completion * completion_price) / 1e6


def _has_price(tier: Tier) -> bool:
    return tier.prompt_price_per_million is not None or tier.completion_price_per_million is not None
