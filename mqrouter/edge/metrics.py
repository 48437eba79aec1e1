"""Prometheus: what the stages tell is counted here, and shown with what is read from the running parts.

Names begin with `mqrouter_`, units are seconds and bytes, and counters begin at zero with the process. Labels are
states, codes, and the names of routes and tiers: never a device, an id or a text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from mqrouter.core.spending import Meter, Tokens
from mqrouter.routing.decision import Decision

NO_NAME = "_none"
"""Route of a question that none claimed, tier of an answer that none gave: no configured name begins so."""
LOW_MARGIN = 0.05
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MARGINS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


class Metrics:
    """Hears what the stages did (flow's `Telemetry`), and keeps it in a registry of its own.

    `meters` know what calls at their tiers cost.
    """

    def __init__(self, meters: Mapping[str, Meter]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time beside each series would double what is scraped
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        self._meters = meters

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"mqrouter_{name}", text, labels, registry=registry, buckets=buckets)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"mqrouter_{name}", text, labels, registry=registry)

        self._accept = histogram("accept_seconds", "One commit of incoming questions, to their PUBACKs.", SECONDS)
        self._batch = histogram(
            "accept_batch_requests", "Questions in one commit.", (1, 2, 5, 10, 20, 50, 100, 200, 512)
        )
        self._embed = histogram("embed_seconds", "Embedding one question, the wait for its turn included.", SECONDS)
        self._decide = histogram("decide_seconds", "Deciding one question, embedding included.", SECONDS)
        self._wait = histogram("queue_wait_seconds", "From arrival to a question's first tier.", LONG_SECONDS, "tier")
        self._attempt = histogram(
            "attempt_seconds", "One attempt at a tier, by what it came to.", ANSWER_SECONDS, "tier", "outcome"
        )
        self._publish = histogram("publish_seconds", "From publishing an answer to the broker's PUBACK.", SECONDS)
        self._total = histogram(
            "request_seconds",
            "From a question's arrival to its delivered answer, by who answered.",
            LONG_SECONDS,
            "tier",
        )
        self._score = histogram("route_score", "Score of the best route.", SHARES, "route")
        self._margin = histogram("route_margin", "Lead of the best route over the second.", MARGINS)
        self._decisions = counter("decisions", "Decisions by the route taken and the reason.", "route", "reason")
        self._low_margin = counter(
            "decisions_low_margin", f"Decisions whose best route led by less than {LOW_MARGIN:g}.", "route"
        )
        self._tokens = counter(
            "tier_tokens", "Tokens of calls at a tier; kind is prompt or completion.", "tier", "kind"
        )
        self._cost = counter("tier_cost", "What calls at a tier cost, in the currency of its prices.", "tier")
        self._lag = histogram("loop_lag_seconds", "How late the event loop was, 20 times a second.", LAG_SECONDS)

    def accepted(self, requests: int, took_s: float) -> None:
        self._accept.observe(took_s)
        self._batch.observe(requests)

    def embedded(self, took_s: float) -> None:
        self._embed.observe(took_s)

    def decided(self, decision: Decision, took_s: float) -> None:
        best = decision.best or NO_NAME
        self._decide.observe(took_s)
        self._decisions.labels(decision.route or NO_NAME, str(decision.reason)).inc()
        self._score.labels(best).observe(decision.score)
        self._margin.observe(decision.margin)
        if decision.margin < LOW_MARGIN:
            self._low_margin.labels(best).inc()

    def waited(self, tier: str, waited_s: float) -> None:
        self._wait.labels(tier).observe(waited_s)

    def attempted(self, tier: str, outcome: str, took_s: float) -> None:
        self._attempt.labels(tier, outcome).observe(took_s)

    def used(self, tier: str, used: Tokens) -> None:
        self._tokens.labels(tier, "prompt").inc(used.prompt)
        self._tokens.labels(tier, "completion").inc(used.completion)
        if (meter := self._meters.get(tier)) is not None:
            self._cost.labels(tier).inc(meter.limits.cost(used))

    def published(self, took_s: float) -> None:
        self._publish.observe(took_s)

    def delivered(self, tier: str | None, elapsed_s: float) -> None:
        self._total.labels(tier or NO_NAME).observe(elapsed_s)

    def answered_within(self) -> dict[str, dict[float, float]]:
        """Returns, by tier, how many answers took at most so many seconds since the start; infinity counts all."""
        found: dict[str, dict[float, float]] = {}
        for family in self._attempt.collect():
            for sample in family.samples:
                if sample.name.endswith("_bucket") and sample.labels["outcome"] == "answered":
                    found.setdefault(sample.labels["tier"], {})[float(sample.labels["le"])] = sample.value
        return found

    def decided_routes(self) -> dict[str, float]:
        """Returns how many questions went to each route since the start."""
        found: dict[str, float] = {}
        for family in self._decisions.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["route"]] = found.get(sample.labels["route"], 0.0) + sample.value
        return found

    def lagged(self, lag_s: float) -> None:
        """The event loop was so late."""
        self._lag.observe(lag_s)


class Exposition:
    """What Prometheus is answered. `refresh` brings `gauges` up to date; it is waited for at every scrape."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, metrics: Metrics, gauges: Collector, refresh: Callable[[], Awaitable[None]]) -> None:
        self._registry = metrics.registry
        self._registry.register(gauges)
        self._refresh = refresh

    async def content(self) -> bytes:
        """Returns every metric as of now, in Prometheus' text format."""
        await self._refresh()
        return generate_latest(self._registry)
