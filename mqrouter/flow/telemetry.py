"""What the stages tell of their work, for whoever counts it."""

from __future__ import annotations

from mqrouter.core.spending import Tokens
from mqrouter.flow.ports import Clock, Embedder, Telemetry
from mqrouter.routing.decision import Decision
from mqrouter.routing.signals import Embedding


class NoTelemetry:
    """Nobody counts."""

    def accepted(self, requests: int, took_s: float) -> None: ...

    def embedded(self, took_s: float) -> None: ...

    def decided(self, decision: Decision, took_s: float) -> None: ...

    def waited(self, tier: str, waited_s: float) -> None: ...

    def attempted(self, tier: str, outcome: str, took_s: float) -> None: ...

    def used(self, tier: str, used: Tokens) -> None: ...

    def published(self, took_s: float) -> None: ...

    def delivered(self, tier: str | None, elapsed_s: float) -> None: ...


class TimedEmbedder:
    """As the embedder; the wait for its thread counts."""

    def __init__(self, embedder: Embedder, clock: Clock, telemetry: Telemetry) -> None:
        self._embedder = embedder
        self._clock = clock
        self._telemetry = telemetry

    async def embed(self, text: str) -> Embedding:
        started_s = self._clock.monotonic_s()
        embedding = await self._embedder.embed(text)
        self._telemetry.embedded(self._clock.monotonic_s() - started_s)
        return embedding
