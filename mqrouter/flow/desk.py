"""The operators' desk: what they look at and order, one implementation for commands, API and pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from mqrouter.core.records import Pause, Seq
from mqrouter.core.request import JsonObject
from mqrouter.core.steering import MAX_ORDERED, Order, Outcome, Selection, Sort, Verb, meant_by
from mqrouter.core.waiting import Standing, explained
from mqrouter.flow.ports import Clock, Looking, Steering
from mqrouter.flow.tiers import TierBoard
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("desk")


class Desk:
    """`trusted` are the tiers that may see private requests; a time to live is cut to `max_ttl_ms`.

    What was dropped can be brought back for `undo_ms`.
    """

    def __init__(
        self,
        store: Steering,
        reader: Looking,
        board: TierBoard,
        clock: Clock,
        *,
        trusted: Collection[str],
        max_ttl_ms: int,
        answered: Wakeup,
        accepted: Wakeup,
        undo_ms: int = 86_400_000,
        routes: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store = store
        self._reader = reader
        self._board = board
        self._clock = clock
        self._trusted = frozenset(trusted)
        self._max_ttl_ms = max_ttl_ms
        self._answered = answered
        self._accepted = accepted
        self._undo_ms = undo_ms
        self._routes = routes

    # --- looking ------------------------------------------------------------------------------------

    async def page(
        self, wanted: Selection, *, limit: int, sort: Sort, after: Seq | None
    ) -> tuple[list[JsonObject], Seq | None]:
        """Returns requests, and the number to go on after: None where nothing is left to look at."""
        rows, following = await self._reader.page(wanted, limit=limit, sort=sort, after=after)
        standing = self.standing()
        return [explained(row, standing) for row in rows], following

    async def decisions(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[JsonObject], Seq | None]:
        """Returns requests, newest first, with what was decided of each, and the number to go on after."""
        return await self._reader.decisions(wanted, limit=limit, after=after)

    async def export(self, wanted: Selection, *, limit: int, after: Seq | None) -> tuple[list[JsonObject], Seq | None]:
        """Returns requests, oldest first, whole with their texts, and the number to go on after."""
        return await self._reader.export(wanted, limit=limit, after=after)

    async def show(self, request_id: str, *, with_text: bool) -> JsonObject | None:
        """Returns everything about one request, found by its id or by the requester's own; None where there is none."""
        found = await self._reader.show(request_id, with_text=with_text)
        return None if found is None else explained(found, self.standing())

    def standing(self) -> Standing:
        """Returns what requests may wait for."""
        return Standing(
            self._board.standing(), {name: pause.actor for name, pause in self._store.paused_routes.items()}
        )

    async def actions(self, limit: int) -> list[JsonObject]:
        return await self._reader.actions(limit)

    async def stats(self) -> JsonObject:
        return await self._reader.stats()

    def tiers(self) -> Sequence[str]:
        return list(self._board.breakers)

    # --- steering -----------------------------------------------------------------------------------

    async def order(self, order: Order, ids: Sequence[str], actor: str, *, is_dry: bool = False) -> list[Outcome]:
        """Carries an order out on the requests of these ids; returns what became of those that are there."""
        return await self._carry_out(order, ids, ", ".join(ids)[:200], actor, is_dry=is_dry)

    async def order_all(
        self, order: Order, wanted: Selection, actor: str, *, is_dry: bool, after: Seq | None
    ) -> tuple[list[Outcome], Seq | None]:
        """The same on the oldest that match, with the number to go on after: None where all are done.

        Without states in `wanted`, those are meant in which the order changes something; not what was dropped.
        """
        if not wanted.states:
            wanted = replace(wanted, states=tuple(sorted(meant_by(order.verb))))
        seqs, following = await self._reader.find(wanted, limit=MAX_ORDERED, after=after)
        return await self._carry_out(order, seqs, str(wanted), actor, is_dry=is_dry), following

    async def _carry_out(
        self, order: Order, requests: Sequence[Seq | str], target: str, actor: str, *, is_dry: bool
    ) -> list[Outcome]:
        order = self._within_limits(order)
        if is_dry or not requests:
            return await self._reader.preview(order, requests)
        done = await self._store.carry_out(order, requests, target=target, actor=actor, now_ms=self._clock.now_ms())
        if changed := sum(outcome.is_changed for outcome in done):
            log.warning("desk.order_carried_out", order=str(order.verb), requests=changed, actor=actor)
        if order.verb is Verb.CANCEL:
            self._answered.give()
        elif order.verb is Verb.RETRY:
            self._board.look_again()
        else:
            self._board.wake_all()
        if order.verb is Verb.UNDO:
            self._accepted.give()  # one may have to be decided
        return done

    def _within_limits(self, order: Order) -> Order:
        if order.verb is Verb.MOVE:
            return replace(order, is_trusted=order.tier in self._trusted)
        return replace(order, ttl_ms=min(order.ttl_ms, self._max_ttl_ms), undo_ms=self._undo_ms)

    async def pause(self, tiers: Sequence[str], actor: str) -> None:
        """Nothing new goes to these tiers until `resume`, also after a restart."""
        for tier in tiers:
            now_ms = self._clock.now_ms()
            await self._store.pause(tier, actor, now_ms)
            self._board.pause(tier, Pause(now_ms, actor))
            log.warning("desk.tier_paused", tier=tier, actor=actor)

    def routes(self) -> Sequence[str]:
        """Returns those that there are, and those that are still held back."""
        return list(dict.fromkeys([*self._routes(), *self._store.paused_routes]))

    def paused_routes(self) -> Mapping[str, Pause]:
        return self._store.paused_routes

    async def pause_routes(self, routes: Sequence[str], actor: str) -> None:
        """Nobody works on their questions until `resume_routes`, also after a restart: they wait, or expire."""
        for route in routes:
            await self._store.pause_route(route, actor, self._clock.now_ms())
            log.warning("desk.route_paused", route=route, actor=actor)

    async def resume_routes(self, routes: Sequence[str], actor: str) -> None:
        for route in routes:
            await self._store.resume_route(route, actor, self._clock.now_ms())
            log.warning("desk.route_resumed", route=route, actor=actor)
        self._board.wake_all()

    async def resume(self, tiers: Sequence[str], actor: str) -> None:
        for tier in tiers:
            await self._store.resume(tier, actor, self._clock.now_ms())
            self._board.resume(tier)
            log.warning("desk.tier_resumed", tier=tier, actor=actor)
