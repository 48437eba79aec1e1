"""The tiers: their clients, what they may take and cost, and what may be seen by them."""

from __future__ import annotations

from collections.abc import Mapping

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.load import Capacity
from mqrouter.core.policy import TierFacts
from mqrouter.core.spending import Meter, TierLimits
from mqrouter.core.warmth import WarmRule, parse_hours
from mqrouter.edge.upstream import OllamaOptions, OllamaWire, OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.flow.attempt import AttemptLimits
from mqrouter.flow.local_answer import LocalRules
from mqrouter.settings import LocalTier, OllamaTier, Settings, Tier, UpstreamTier
from mqrouter.wiring.limits import request_limits, round_backoff
from mqrouter.wiring.secrets import secret


def breakers(settings: Settings) -> dict[str, Breaker]:
    retry = settings.retry
    probes = Backoff(retry.probe_min_s, retry.probe_max_s)
    return {name: Breaker(retry.breaker_failures, probes) for name in settings.tiers}


def meters(settings: Settings) -> dict[str, Meter]:
    """Returns a meter for each tier that has a limit or a price: the use of the others is not counted."""
    found = {name: tier_limits(tier) for name, tier in settings.tiers.items()}
    return {name: Meter(limits) for name, limits in found.items() if limits != TierLimits(max_tokens=limits.max_tokens)}


def tier_limits(tier: Tier) -> TierLimits:
    return TierLimits(
        requests_per_minute=tier.requests_per_minute,
        tokens_per_minute=tier.tokens_per_minute,
        budget_per_day=tier.budget_per_day,
        budget_per_month=tier.budget_per_month,
        prompt_price=tier.prompt_price_per_million or 0.0,
        completion_price=tier.completion_price_per_million or 0.0,
        max_tokens=tier.max_tokens,
    )


def attempt_limits(settings: Settings, tier: Tier) -> AttemptLimits:
    return AttemptLimits(
        total_timeout_s=tier.total_timeout_s,
        is_local=isinstance(tier, LocalTier),
        logs_text=settings.log.include_text,
        max_attempts=settings.retry.max_attempts,
        backoff=round_backoff(settings),
        request=request_limits(settings),
        local=local_rules(tier) if isinstance(tier, LocalTier) else LocalRules(),
    )


def local_rules(tier: LocalTier) -> LocalRules:
    return LocalRules(tuple(tier.refusal_phrases), tier.min_confidence, tier.ttl_share)


def capacities(settings: Settings) -> dict[str, Capacity]:
    """Returns what the tiers take; only the wait for a local one has a limit of its own."""
    return {
        name: Capacity(tier.concurrency, tier.max_wait_s if isinstance(tier, LocalTier) else None)
        for name, tier in settings.tiers.items()
    }


def upstream_client(name: str, tier: UpstreamTier) -> UpstreamClient:
    """Raises ConfigError where the key's reference leads nowhere."""
    options = UpstreamOptions(
        name=name,
        url=tier.url,
        model=tier.model,
        api_key=secret(tier.api_key, f"tiers.{name}.api_key"),
        max_tokens=tier.max_tokens,
        temperature=tier.temperature,
        concurrency=tier.concurrency,
        connect_timeout_s=tier.connect_timeout_s,
        first_token_timeout_s=tier.first_token_timeout_s,
        idle_timeout_s=tier.idle_timeout_s,
        ca_file=tier.ca_file,
    )
    if isinstance(tier, OllamaTier):
        own = OllamaOptions(tier.keep_alive_s, tier.context_tokens, tier.think)
        return UpstreamClient(options, OllamaWire(options, own))
    return UpstreamClient(options, OpenAiWire(options))


def warm_rule(tier: Tier) -> WarmRule | None:
    """Returns when the tier's model is kept loaded; None where that is off."""
    if not isinstance(tier, UpstreamTier) or tier.keep_warm_s is None:
        return None
    return WarmRule(tier.keep_warm_s, None if tier.keep_warm_hours is None else parse_hours(tier.keep_warm_hours))


def tier_facts(tiers: Mapping[str, Tier]) -> dict[str, TierFacts]:
    return {
        name: TierFacts(
            name,
            is_local=isinstance(tier, LocalTier),
            is_trusted=tier.trusted,
            context_chars=tier.context_chars,
            redacts=not isinstance(tier, LocalTier) and tier.redact,
        )
        for name, tier in tiers.items()
    }


def trusted_by_both(running: Mapping[str, Tier], wanted: Mapping[str, Tier]) -> dict[str, Tier]:
    """Returns the running tiers, of which one is only trusted, or sent what is redacted, where both say so."""
    found: dict[str, Tier] = {}
    for name, tier in running.items():
        other = wanted.get(name)
        if isinstance(tier, LocalTier):
            found[name] = tier
        else:
            is_trusted = tier.trusted and other is not None and other.trusted
            is_redacting = tier.redact and other is not None and not isinstance(other, LocalTier) and other.redact
            found[name] = tier.model_copy(update={"trusted": is_trusted, "redact": is_redacting})
    return found
