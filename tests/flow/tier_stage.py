"""An upstream tier and one on this device, as lanes over a real store."""

from __future__ import annotations

import json
from typing import Any

from fakes import LIMITS, TOPICS, FakeClock, FlakyDatabase, ScriptedTier, judge, request, running, settled, until

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.events import TierCall
from mqrouter.core.request import OutMessage
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import UnreachableError
from mqrouter.flow.attempt import AttemptLimits, Attempts
from mqrouter.flow.forward import Lane
from mqrouter.flow.judge import Judge
from mqrouter.flow.progress import Progress
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

DOWN = UnreachableError("refused")


class Announced:
    """What was said at QoS 0."""

    def __init__(self) -> None:
        self.messages: list[OutMessage] = []

    def announce(self, message: OutMessage) -> bool:
        self.messages.append(message)
        return True

    @property
    def told(self) -> list[tuple[int, int, str]]:
        """(attempt, number, text) of each."""
        bodies = [json.loads(message.payload) for message in self.messages]
        return [(body["attempt"], body["seq"], body["text"]) for body in bodies]


class Stage:
    """`hub` upstream and not trusted, `edge` on this device."""

    def __init__(self, store: Store, database: FlakyDatabase, clock: FakeClock) -> None:
        self.store, self.database, self.clock = store, database, clock
        self.board = TierBoard({n: Breaker(3, Backoff(1.0, 60.0)) for n in ("hub", "edge")}, clock, lambda: 0.5)
        self.judge: Judge = judge()
        self.announced = Announced()

    def lane(self, name: str, client: ScriptedTier, *, logs_text: bool = False) -> Lane:
        limits = AttemptLimits(
            total_timeout_s=60.0,
            is_local=name == "edge",
            logs_text=logs_text,
            max_attempts=4,
            backoff=Backoff(2.0, 300.0),
            request=LIMITS,
        )
        attempts = Attempts(
            name,
            client,
            limits,
            self.store,
            self.board,
            self.clock,
            lambda: 0.5,
            judge=lambda: self.judge,
            answered=Wakeup(),
            progress=Progress(self.announced, TOPICS, 0.25),
        )
        return Lane(name, client, attempts, self.store, self.board, self.clock, concurrency=1)

    async def ask(self, question: str, *tiers: str, device: str = "d1", **fields: Any) -> None:
        payload = json.dumps({"question": question, "id": question, **fields})
        item = request(payload, topic=f"mqrouter/farm/ask/{device}/7", now_ms=self.clock.now_ms())
        await self.store.accept([item], self.clock.now_ms())
        (row,) = await self.store.next_received(1, ())
        await self.store.queue_for_tiers(
            row, tiers, route="cattle", confidence=0.5, decision={}, now_ms=self.clock.now_ms()
        )
        self.board.wake_for(tiers)

    async def answered(self, question: str, *tiers: str, **fields: Any) -> None:
        await self.ask(question, *tiers, **fields)
        await until(lambda: self.store.counts.total() == 0)

    async def answers(self) -> list[dict[str, Any]]:
        return [json.loads(row.message.payload) for row in await self.store.outbox_after(0, 100)]

    async def rows(self, columns: str) -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM requests ORDER BY seq"
        return await self.database.read(lambda db: [tuple(row) for row in db.execute(query)])

    async def idle(self) -> None:
        await settled(self.database)


def told(call: TierCall) -> list[str]:
    """What the tier was sent, less the system message."""
    return [message.content for message in call.messages if message.role != "system"]


async def with_provisional(stage: Stage, **fields: Any) -> None:
    async with running(
        stage.lane("hub", ScriptedTier(DOWN, probes=[False])).run, stage.lane("edge", ScriptedTier(["Maybe."])).run
    ):
        await stage.ask("a?", "hub", "edge", accept_provisional=True, **fields)
        await until(lambda: stage.store.counts[State.PENDING] == 1 and stage.store.counts[State.LEASED] == 0)
        while not await stage.answers():
            await stage.idle()
