"""The edges as the stages know them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Protocol

from mqrouter.core.backoff import Backoff
from mqrouter.core.events import TierCall, TierEvent
from mqrouter.core.records import Accepted, OutboxRow, Seq, StoredRequest
from mqrouter.core.request import Answer, Incoming, JsonObject, OutMessage, Refused, Request
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.routing.signals import Embedding


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970; never jumps while the process lives."""
        ...

    def monotonic_s(self) -> float: ...


class Chance(Protocol):
    def __call__(self) -> float:
        """Returns a number uniform in [0, 1)."""
        ...


class Broker(Protocol):
    @property
    def is_connected(self) -> bool: ...

    def acknowledge(self, incoming: Incoming) -> None:
        """Sends the PUBACK, if the connection that brought the message still stands."""
        ...

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        """Sends at QoS 1 and returns the packet's number, unique while it is in flight.

        None while disconnected, and while the broker takes no more before it has acknowledged some.
        """
        ...


class Embedder(Protocol):
    async def embed(self, text: str) -> Embedding: ...


class TierClient(Protocol):
    def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """Yields the answer as it comes, and Done at its true end.

        Raises UnreachableError, TransientError, PermanentError, CredentialsError or ModelError.
        """
        ...

    async def probe(self) -> bool:
        """True where the tier would take a request now; costs it no generation."""
        ...


class Store(Protocol):
    @property
    def counts(self) -> dict[str, int]: ...

    @property
    def todo_lists(self) -> Collection[str]: ...

    async def accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]: ...

    async def forget_packets(self) -> None: ...

    async def next_received(self, limit: int, busy: Collection[Seq]) -> list[StoredRequest]: ...

    async def queue_for_tiers(
        self,
        request: StoredRequest,
        tiers: tuple[str, ...],
        *,
        route: str | None,
        confidence: float,
        decision: JsonObject,
        now_ms: int,
    ) -> None: ...

    async def record_decision(self, request: StoredRequest, decision: JsonObject) -> None: ...

    async def claim(self, tier: str, todo_lists: Collection[str], limit: int, now_ms: int) -> list[StoredRequest]: ...

    async def release(
        self,
        request: StoredRequest,
        waiting: Waiting,
        *,
        note: str,
        now_ms: int,
        is_counted: bool,
        not_before_ms: int | None = None,
    ) -> bool: ...

    async def finish(
        self, request: StoredRequest, answer: Answer, state: State, now_ms: int, *, lease: int | None = None
    ) -> bool: ...

    @property
    def partial_lists(self) -> Collection[str]: ...

    async def restart_rounds(self, todo: str, now_ms: int, backoff: Backoff) -> int: ...

    async def waiting_for(self, todo: str, routes: Collection[str | None], limit: int = 200) -> list[StoredRequest]: ...

    async def release_leases(self, now_ms: int) -> int: ...

    async def outbox_after(self, after: Seq, limit: int) -> list[OutboxRow]: ...

    async def delivered(self, row: OutboxRow, now_ms: int) -> None: ...

    async def not_taken(self, row: OutboxRow, why: str, not_before_ms: int, now_ms: int) -> None: ...

    async def next_due_ms(self) -> int | None: ...

    async def wake_due(self, now_ms: int) -> tuple[int, int]: ...

    async def expired(self, now_ms: int, limit: int = 200) -> list[StoredRequest]: ...

    async def give_up_answers(self, now_ms: int) -> int: ...

    async def purge(self, finished_before_ms: int, refused_before_ms: int, limit: int = 500) -> int: ...
