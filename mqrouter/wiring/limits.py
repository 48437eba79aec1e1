"""What requests may be, for how long answers are shared, and when a round of tiers is tried again."""

from __future__ import annotations

from mqrouter.core.backoff import Backoff
from mqrouter.core.decode import Limits
from mqrouter.routing.registry import strategy_names
from mqrouter.settings import Settings


def request_limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        limits.max_payload_bytes,
        limits.max_json_depth,
        limits.default_ttl_s,
        settings.queue.max_age_s,
        strategy_names(),
    )


def round_backoff(settings: Settings) -> Backoff:
    """The wait once every tier of a request has failed."""
    return Backoff(settings.retry.backoff_min_s, settings.retry.backoff_max_s)


def share_window_ms(settings: Settings) -> int | None:
    share_s = settings.queue.share_answers_s
    return None if share_s is None else int(1000 * share_s)
