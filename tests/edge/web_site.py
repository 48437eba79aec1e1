"""The API as it is served, over real sockets, on a real store: what its tests start from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from fakes import LIMITS, START_MS, TOPICS, FakeClock, request
from pydantic import SecretStr

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.request import RequestId
from mqrouter.core.timeline import Anchor, Clocks
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.store import Store
from mqrouter.edge.web import api
from mqrouter.edge.web.options import TcpOptions, WebOptions
from mqrouter.edge.web.server import Site, WebServer
from mqrouter.flow.bring_in import BringIn
from mqrouter.flow.desk import Desk
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

VIEWER, OPERATOR = "viewer-token-0123456789", "operator-token-0123456789"
TOKENS = TcpOptions("127.0.0.1", 0, SecretStr(VIEWER), SecretStr(OPERATOR), ("gateway.lan",))
NO_TOKENS = TcpOptions("127.0.0.1", 0)
CLOCKS = Clocks(START_MS, START_MS, "boot")


@dataclass
class Api:
    """`as_viewer` and `as_operator` are headers."""

    server: WebServer
    store: Store
    clock: FakeClock
    board: TierBoard
    path: Path
    session: aiohttp.ClientSession
    local: aiohttp.ClientSession
    """Over the unix socket."""
    reasons: list[str] = field(default_factory=list)
    asked: list[tuple[Mapping[str, str], str]] = field(default_factory=list)
    is_broken: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = OPERATOR,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        """Returns the status and the JSON over TCP."""
        given = ({} if token is None else {"Authorization": f"Bearer {token}"}) | dict(headers or {})
        async with self.session.request(method, self.url + path, headers=given, **more) as response:
            return response.status, await response.json()

    async def queue(self, *names: str, tiers: tuple[str, ...] = ("hub", "edge"), route: str = "frost") -> list[str]:
        """Pending requests of these devices; returns their ids."""
        items = [request(f'{{"question": "what says {name}?"}}', topic=f"mqrouter/farm/ask/{name}") for name in names]
        await self.store.accept(items, START_MS)
        for row in await self.store.next_received(len(names), ()):
            await self.store.queue_for_tiers(
                row,
                tiers,
                route=route,
                confidence=0.9,
                decision={"route": route, "tiers": list(tiers)},
                now_ms=START_MS,
            )
        return [item.id for item in items]

    async def fails(self, number: int, why: str) -> None:
        """The first pending requests were tried by their tier, in vain."""
        from mqrouter.core.retry import Waiting

        for row in await self.store.claim("hub", ["hub>edge"], number, START_MS):
            waiting = Waiting(row.tiers, row.tiers)
            await self.store.release(
                row, waiting, note=f"hub: {why}", now_ms=START_MS, is_counted=True, not_before_ms=START_MS + 60_000
            )


@asynccontextmanager
async def serving(
    store: Store,
    folder: Path,
    clock: FakeClock,
    tcp: TcpOptions | None = TOKENS,
    build: Callable[[Desk, TierBoard], Site] | None = None,
) -> AsyncIterator[Api]:
    """`build` makes the pages that are served too."""
    await store.set_anchor(Anchor(START_MS, CLOCKS))
    await store.recover(START_MS, ("hub", "edge"))
    breakers = {name: Breaker(5, Backoff(1.0, 60.0)) for name in ("hub", "edge")}
    board = TierBoard(breakers, clock, lambda: 0.5)
    path = folder / "control.sock"
    async with Reader(folder / "mqrouter.db", lambda: CLOCKS) as reader:
        desk = Desk(
            store,
            reader,
            board,
            clock,
            trusted=["edge"],
            max_ttl_ms=7 * 86_400_000,
            answered=Wakeup(),
            accepted=Wakeup(),
            routes=lambda: ["frost", "talk"],
        )
        found: list[Api] = []

        def status() -> dict[str, Any]:
            if found[0].is_broken:
                raise RuntimeError("secret inside")
            return {"version": "1", "requests": dict(store.counts)}

        async def errand(options: Mapping[str, str], actor: str) -> dict[str, Any]:
            float(options.get("older_than_s", 0))
            found[0].asked.append((options, actor))
            return {"is_done": True}

        numbers = count()
        bring_in = BringIn(
            store,
            clock,
            TOPICS,
            LIMITS,
            new_id=lambda: RequestId(f"imported-{next(numbers)}"),
            accepted=Wakeup(),
            answered=Wakeup(),
        ).bring_in
        routes = api.routes(
            desk, status=status, why_not_ready=lambda: found[0].reasons, errands={"purge": errand}, bring_in=bring_in
        )
        async with (
            WebServer(
                WebOptions(path, tcp), routes, clock.monotonic_s, None if build is None else build(desk, board)
            ) as server,
            aiohttp.ClientSession() as session,
            aiohttp.ClientSession("http://mqrouter", connector=aiohttp.UnixConnector(str(path))) as local,
        ):
            found.append(Api(server, store, clock, board, path, session, local))
            yield found[0]
