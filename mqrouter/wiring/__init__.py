"""From settings to what each part takes: translation only, nothing is started here."""

from mqrouter.wiring.broker import home_assistant, link_options, topic_map
from mqrouter.wiring.judging import build_judge, build_strategies, configured_strategies, strategy_options
from mqrouter.wiring.learnt import (
    NEEDS_HEAD,
    auto_tune,
    calibrations_path,
    head_path,
    load_calibrations,
    load_learnt,
    read_calibrations,
    why_head_is_unusable,
    why_no_head,
)
from mqrouter.wiring.limits import request_limits, round_backoff, share_window_ms
from mqrouter.wiring.local_models import (
    chat_fingerprint,
    chat_worker,
    embedder,
    embedder_fingerprint,
    example_vectors,
    keeper,
)
from mqrouter.wiring.outside import span_export, tracing, web_options
from mqrouter.wiring.tiers import (
    attempt_limits,
    breakers,
    capacities,
    local_rules,
    meters,
    trusted_by_both,
    upstream_client,
    warm_rule,
)

__all__ = [
    "NEEDS_HEAD",
    "attempt_limits",
    "auto_tune",
    "breakers",
    "build_judge",
    "build_strategies",
    "calibrations_path",
    "capacities",
    "chat_fingerprint",
    "chat_worker",
    "configured_strategies",
    "embedder",
    "embedder_fingerprint",
    "example_vectors",
    "head_path",
    "home_assistant",
    "keeper",
    "link_options",
    "load_calibrations",
    "load_learnt",
    "local_rules",
    "meters",
    "read_calibrations",
    "request_limits",
    "round_backoff",
    "share_window_ms",
    "span_export",
    "strategy_options",
    "topic_map",
    "tracing",
    "trusted_by_both",
    "upstream_client",
    "warm_rule",
    "web_options",
    "why_head_is_unusable",
    "why_no_head",
]
