"""Stand-ins for what lies outside: a clock one moves, a broker, a tier that follows a script, an embedder of words."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.decode import Limits, decode
from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.policy import TierFacts
from mqrouter.core.request import Form, Incoming, OutMessage, Refused, ReplyAddress, Request, RequestId
from mqrouter.core.states import State
from mqrouter.core.steering import Order, Verb
from mqrouter.core.topics import TopicMap, build_topic_map
from mqrouter.edge.store.database import Database, Operation
from mqrouter.edge.store.store import Store
from mqrouter.errors import StoreError
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.routing.registry import Strategies, strategy_names
from mqrouter.routing.semantic import Semantic
from mqrouter.routing.signals import Embedding
from mqrouter.routing.strategy import Options, RouteExamples

T = TypeVar("T")

PREFIX = "mqrouter/farm"
TOPICS = build_topic_map(PREFIX, (), ("#",))
LIMITS = Limits(
    max_payload_bytes=1000, max_json_depth=8, default_ttl_s=3600.0, max_ttl_s=7200.0, strategies=strategy_names()
)
QUEUE = QueueLimits(max_requests=100_000, max_bytes=1 << 30, when_full=WhenFull.REJECT, share_per_device=1.0)
START_MS = 1_700_000_000_000
DIM = 64


class FakeClock:
    """Stands still until moved; the `clock` fixture makes the event loop's timers follow it."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0

    def now_ms(self) -> int:
        return START_MS + round(1000 * self._elapsed_s)

    def monotonic_s(self) -> float:
        return 1000.0 + self._elapsed_s

    def advance(self, seconds: float) -> None:
        self._elapsed_s += seconds


class FakeBroker:
    """Takes what is published while connected; the test says when it is acknowledged."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.is_connected = is_connected
        self.published: list[tuple[int, OutMessage]] = []
        self.acknowledged: list[Incoming] = []

    def acknowledge(self, incoming: Incoming) -> None:
        self.acknowledged.append(incoming)

    def publish(self, message: OutMessage, now_ms: int) -> int | None:
        if not self.is_connected:
            return None
        number = len(self.published) + 1
        self.published.append((number, message))
        return number

    @property
    def bodies(self) -> list[bytes]:
        return [message.payload for _, message in self.published]


Step = str | Done | Exception | asyncio.Event
Script = Sequence[Step] | Exception


class ScriptedTier:
    """Plays one script per call, the last one again and again: text, a Done, an error to raise, an event to wait for.

    A script without a Done ends with finish_reason "stop"; an exception alone is raised before any text.
    """

    def __init__(self, *scripts: Script, probes: Sequence[bool] = (True,)) -> None:
        self._scripts = list(scripts)
        self._probes = list(probes)
        self.calls: list[TierCall] = []
        self.probed = 0
        self.at_once = 0
        self.most_at_once = 0

    def then(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        self.calls.append(call)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for step in [script] if isinstance(script, Exception) else script:
                match step:
                    case str():
                        yield Delta(step)
                    case Done():
                        yield step
                        return
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        raise step
            yield Done("stop", "scripted", 3, 5)
        finally:
            self.at_once -= 1

    async def probe(self) -> bool:
        self.probed += 1
        return self._probes.pop(0) if len(self._probes) > 1 else self._probes[0]


class FakeInHand:
    """What is in hand, as the file that outlives a crash would say."""

    def __init__(self) -> None:
        self.seqs: set[int] = set()

    def take(self, seq: int) -> None:
        self.seqs.add(seq)

    def drop(self, seq: int) -> None:
        self.seqs.discard(seq)


class HashEmbedder:
    """A bag of words: texts that share words are near each other. `error` is raised instead, where set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.texts: list[str] = []

    async def embed(self, text: str) -> Embedding:
        self.texts.append(text)
        if self.error is not None:
            raise self.error
        return Embedding(word_vector(text), len(text.split()), is_cut=False)


def word_vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns (DIM,), float32, unit length."""
    vector = np.zeros(DIM, dtype=np.float32)
    for word in text.lower().split():
        vector[zlib.crc32(word.encode()) % DIM] += 1.0
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm else vector


MAX_ROUNDS, QUIET_ROUNDS = 100, 3


class FlakyDatabase(Database):
    """A real database that can be told to refuse writes, or to let a read wait."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.error: StoreError | None = None
        self.refused = 0
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.reads_waiting = 0
        self.asked = 0
        """How often somebody wanted anything of it."""

    async def write(self, operation: Operation[T], committed: Callable[[], object] | None = None) -> T:
        self.asked += 1
        if self.error is not None:
            self.refused += 1
            raise self.error
        return await super().write(operation, committed)

    async def read(self, operation: Operation[T]) -> T:
        self.asked += 1
        result = await super().read(operation)
        if not self.may_read.is_set():
            self.reads_waiting += 1
            await self.may_read.wait()
        return result


def incoming(
    payload: bytes | str = b"how are the cows?",
    *,
    topic: str | None = f"{PREFIX}/ask/d1",
    mid: int = 1,
    qos: int = 1,
    is_dup: bool = False,
    is_retained: bool = False,
    response_topic: str | None = None,
    correlation: bytes | None = None,
    content_type: str | None = None,
    expiry_s: int | None = None,
) -> Incoming:
    payload = payload.encode() if isinstance(payload, str) else payload
    return Incoming(
        1, mid, qos, is_dup, is_retained, topic, payload, response_topic, correlation, content_type, expiry_s
    )


_numbers = iter(range(1, 1 << 40))


def new_id() -> RequestId:
    return RequestId(f"r{next(_numbers):08d}")


def decoded(
    message: Incoming, *, topics: TopicMap = TOPICS, limits: Limits = LIMITS, now_ms: int = START_MS
) -> Request | Refused:
    return decode(message, topics, limits, new_id(), now_ms)


def request(payload: bytes | str = b"how are the cows?", *, now_ms: int = START_MS, **more: Any) -> Request:
    item = decoded(incoming(payload, **more), now_ms=now_ms)
    assert isinstance(item, Request), item
    return item


def refused(payload: bytes | str = b"", *, now_ms: int = START_MS, **more: Any) -> Refused:
    item = decoded(incoming(payload, **more), now_ms=now_ms)
    assert isinstance(item, Refused), item
    return item


def reply_address(**more: Any) -> ReplyAddress:
    return ReplyAddress(**({"topic": "t", "correlation": None, "client_id": None, "form": Form.TEXT} | more))


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """The condition holds. Time is real here: it bounds a test that hangs."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "what the test waits for did not happen"
        await asyncio.sleep(0)


async def settled(database: FlakyDatabase) -> None:
    """Whatever could go on without the clock, the broker or a tier has gone on: nobody wants the database any more."""

    def nothing(_: sqlite3.Connection) -> None:
        return

    for _ in range(MAX_ROUNDS):
        asked = database.asked
        for _ in range(QUIET_ROUNDS):  # a write and a read each outlast what was asked before them
            await Database.write(database, nothing)
            await Database.read(database, nothing)
            for _ in range(10):
                await asyncio.sleep(0)
        if database.asked == asked:
            return
    raise AssertionError("somebody wants something of the database without end")


EXAMPLES = {
    "weather": ("will it rain today", "how much frost tonight"),
    "cattle": ("how are the cows", "is the cow ill"),
    "code": ("write a script", "fix my program"),
}


def judge(
    *,
    to: Sequence[str] = ("hub", "edge"),
    when_offline: str = "queue",
    abstain: RoutePlan | None = None,
    threshold: float = 0.3,
    tiers: dict[str, TierFacts] | None = None,
) -> Judge:
    """Three routes, all with the same plan; hub is remote and not trusted."""
    routes = {
        name: RouteExamples(texts, np.stack([word_vector(text) for text in texts]), threshold, tuple(to))
        for name, texts in EXAMPLES.items()
    }
    plan = RoutePlan(tuple(to), when_offline, "short")
    facts = {
        "hub": TierFacts("hub", is_local=False, is_trusted=False, context_chars=500),
        "edge": TierFacts("edge", is_local=True, is_trusted=True, context_chars=100),
    }
    return Judge(
        strategy_name="semantic",
        strategy=Semantic(routes, nearest=2),
        min_margin=0.01,
        routes=dict.fromkeys(EXAMPLES, plan),
        abstain=RoutePlan(("edge",), "queue", None) if abstain is None else abstain,
        tiers=facts if tiers is None else tiers,
        prompts={"short": "Be brief."},
        others=Strategies(routes, nearest=2, options=Options(tiers=("edge", "hub"))),
        switch_margin=0.1,
    )


@asynccontextmanager
async def running(*services: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The services run inside the block; one that fails there fails the test."""
    tasks = [asyncio.create_task(service()) for service in services]
    try:
        yield tasks
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def order(store: Store, request_id: str, now_ms: int, order: Order) -> State | None:
    """An operator's order; returns the state it found the request in, None where there is none."""
    outcomes = await store.carry_out(order, [request_id], target=request_id, actor="me", now_ms=now_ms)
    return outcomes[0].found if outcomes else None


async def cancel(store: Store, request_id: str, now_ms: int) -> State | None:
    return await order(store, request_id, now_ms, Order(Verb.CANCEL))


async def retry(store: Store, request_id: str, now_ms: int) -> State | None:
    return await order(store, request_id, now_ms, Order(Verb.RETRY))
