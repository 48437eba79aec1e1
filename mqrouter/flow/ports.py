"""The edges as the stages know them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Protocol, Self

from mqrouter.core.backoff import Backoff
from mqrouter.core.discovery import Announced
from mqrouter.core.disk_space import DiskSpace, Thresholds
from mqrouter.core.events import TierCall, TierEvent
from mqrouter.core.feedback import Feedback
from mqrouter.core.records import Accepted, OutboxRow, PastTurn, Pause, Seq, StoredRequest
from mqrouter.core.request import Answer, Incoming, JsonObject, OutMessage, Question, Refused, Request, RequestId
from mqrouter.core.retry import Waiting
from mqrouter.core.spending import Tokens
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Outcome, Selection, Sort
from mqrouter.core.timeline import Anchor
from mqrouter.core.traces import Span
from mqrouter.routing.decision import Decision
from mqrouter.routing.session import Session
from mqrouter.routing.signals import Embedding


class Clock(Protocol):
    def now_ms(self) -> int:
        """The gateway's own time, milliseconds since about 1970: it never jumps, and goes on across restarts."""
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


class Announcer(Protocol):
    def announce(self, message: OutMessage) -> bool:
        """Sends at QoS 0; False where it was dropped: while disconnected, or while the connection takes no more."""
        ...


class Retainer(Protocol):
    def retain(self, message: OutMessage) -> bool:
        """Sends at QoS 1, to be kept by the broker; False where it was not sent: try again."""
        ...


class DiscoveryRecord(Protocol):
    """What Home Assistant has been told, across lives."""

    def read(self) -> Announced | None: ...

    def write(self, announced: Announced) -> None: ...

    def forget(self) -> None: ...


class Saying(Protocol):
    """An answer under way, as far as its device asked to hear of it; nothing more is said once it is left."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, text: str) -> None: ...

    def end(self) -> None:
        """The answer is whole: what still waits is said."""
        ...


class Progress(Protocol):
    def begin(self, request: StoredRequest, question: Question) -> Saying: ...


class Telemetry(Protocol):
    """Hears what the stages did, and counts it; it does not fail, and holds nobody up. Times in seconds."""

    def accepted(self, requests: int, took_s: float) -> None:
        """So many were written in one transaction and acknowledged."""
        ...

    def embedded(self, took_s: float) -> None: ...

    def decided(self, decision: Decision, took_s: float) -> None: ...

    def waited(self, tier: str, waited_s: float) -> None:
        """A request is at a tier for the first time, so long after it came in."""
        ...

    def attempted(self, tier: str, outcome: str, took_s: float) -> None: ...

    def used(self, tier: str, used: Tokens) -> None:
        """A call has ended that was sent to the tier."""
        ...

    def published(self, took_s: float) -> None:
        """The broker acknowledged an answer, so long after it was sent."""
        ...

    def delivered(self, tier: str | None, elapsed_s: float) -> None:
        """Somebody has the answer of a request that came in so long ago; `tier` is who gave it."""
        ...


class SpanSink(Protocol):
    def record(self, span: Span) -> None:
        """Takes the span, or drops it; returns at once either way."""
        ...


class InHand(Protocol):
    """Says which request is being worked on in this process, so that it is known after a crash."""

    def take(self, seq: Seq) -> None: ...

    def drop(self, seq: Seq) -> None: ...


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


class WarmableTier(Protocol):
    async def warm(self) -> None:
        """The model is loaded, and stays so for a while; writes no answer. Raises what `stream` raises."""
        ...


class DatabaseSize(Protocol):
    """Bytes in use, bytes that are not, and whether those can be given back one by one."""

    @property
    def used(self) -> int: ...

    @property
    def unused(self) -> int: ...

    @property
    def can_shrink(self) -> bool: ...


class Space(Protocol):
    """The room the database takes."""

    async def size(self) -> DatabaseSize: ...

    async def shrink(self, pages: int) -> None: ...

    async def checkpoint(self) -> None: ...


class Disk(Protocol):
    @property
    def thresholds(self) -> Thresholds: ...

    @property
    def ballast_bytes(self) -> int: ...

    def space(self) -> DiskSpace: ...

    def release_ballast(self) -> bool:
        """Returns whether there was any."""
        ...

    def keep_ballast(self) -> bool: ...


class Store(Protocol):
    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def dropped(self) -> int:
        """Requests dropped at the queue's limits, since the start."""
        ...

    @property
    def todo_lists(self) -> Collection[str]: ...

    @property
    def paused_routes(self) -> Mapping[str, Pause]: ...

    @property
    def brought_back(self) -> int:
        """Returns how many dropped requests were, since the start."""
        ...

    async def accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]: ...

    async def hold(self, tier: str, until_ms: int) -> None: ...

    async def set_anchor(self, anchor: Anchor) -> None: ...

    async def forget_packets(self, less: int) -> None: ...

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

    async def latest_of_session(self, request: StoredRequest, not_before_ms: int) -> Session | None: ...

    async def turns_of_session(self, request: StoredRequest, limit: int) -> list[PastTurn]: ...

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
        judged: str | None = None,
    ) -> bool: ...

    async def finish(
        self, request: StoredRequest, answer: Answer, state: State, now_ms: int, *, lease: int | None = None
    ) -> bool: ...

    async def answer_provisionally(
        self, request: StoredRequest, answer: Answer, waiting: Waiting, now_ms: int
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

    async def end_dropped(self, now_ms: int, limit: int = 200) -> int: ...

    async def give_up_answers(self, now_ms: int) -> int: ...

    async def purge(self, finished_before_ms: int, refused_before_ms: int, limit: int = 500) -> int: ...


class FeedbackStore(Protocol):
    async def record_feedback(self, found: Sequence[Feedback], now_ms: int) -> list[RequestId | None]: ...


class Recording(FeedbackStore, Protocol):
    async def record_action(self, action: str, target: str, actor: str, now_ms: int) -> None: ...


class Steering(Protocol):
    """What operators change."""

    async def carry_out(
        self, order: Order, requests: Sequence[Seq | str], *, target: str, actor: str, now_ms: int
    ) -> list[Outcome]: ...

    async def pause(self, tier: str, actor: str, now_ms: int) -> None: ...

    async def resume(self, tier: str, actor: str, now_ms: int) -> None: ...

    @property
    def paused_routes(self) -> Mapping[str, Pause]: ...

    async def pause_route(self, route: str, actor: str, now_ms: int) -> None: ...

    async def resume_route(self, route: str, actor: str, now_ms: int) -> None: ...


class Looking(Protocol):
    """What operators see, read beside the writer; `next` numbers are None where nothing is left to look at."""

    async def page(
        self, wanted: Selection, *, limit: int, sort: Sort, after: Seq | None
    ) -> tuple[list[JsonObject], Seq | None]: ...

    async def decisions(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[JsonObject], Seq | None]: ...

    async def export(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[JsonObject], Seq | None]: ...

    async def find(self, wanted: Selection, *, limit: int, after: Seq | None) -> tuple[list[Seq], Seq | None]: ...

    async def preview(self, order: Order, requests: Sequence[Seq | str]) -> list[Outcome]: ...

    async def show(self, request_id: str, *, with_text: bool) -> JsonObject | None: ...

    async def actions(self, limit: int) -> list[JsonObject]: ...

    async def stats(self) -> JsonObject: ...


class Importing(Protocol):
    async def accept(self, items: Sequence[Request | Refused], now_ms: int) -> list[Accepted]: ...

    async def record_action(self, action: str, target: str, actor: str, now_ms: int) -> None: ...
