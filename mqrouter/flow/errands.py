"""What operators order of the gateway as a whole, each with a line in the record of actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from mqrouter.core import feedback
from mqrouter.core.request import JsonObject
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.desk import Desk
from mqrouter.flow.ports import Clock, Recording
from mqrouter.flow.room import Room

Errand = Callable[[Mapping[str, str], str], Awaitable[JsonObject]]
"""Takes its options, and who ordered it."""


class Errands:
    """`routes` returns those there are now."""

    def __init__(
        self, room: Room, store: Recording, desk: Desk, clock: Clock, routes: Callable[[], Collection[str]]
    ) -> None:
        self._room = room
        self._store = store
        self._desk = desk
        self._clock = clock
        self._routes = routes

    def by_name(self) -> dict[str, Errand]:
        return {"purge": self._purge, "vacuum": self._vacuum, "feedback": self._feedback}

    async def _purge(self, options: Mapping[str, str], actor: str) -> JsonObject:
        older_than_s = float(options.get("older_than_s", 0))
        done = await self._room.purge(int(1000 * older_than_s))
        await self._record("purge", f"{done['purged']} finished more than {older_than_s:g} s ago", actor)
        return done

    async def _vacuum(self, _options: Mapping[str, str], actor: str) -> JsonObject:
        done = await self._room.vacuum()
        if done["is_done"]:
            await self._record("vacuum", "database", actor)
        return done

    async def _feedback(self, options: Mapping[str, str], actor: str) -> JsonObject:
        """Raises RequestError where it cannot be understood, or there is no answer to judge."""
        request_id = options.get("id", "")
        found = feedback.checked(
            request_id,
            options.get("verdict"),
            options.get("route"),
            options.get("note"),
            self._routes(),
            source=feedback.Source.OPERATOR,
            device=None,
        )
        shown = await self._desk.show(request_id, with_text=False)
        if shown is not None and (why_not := feedback.why_not_judged(found.verdict, shown)) is not None:
            raise RequestError(ErrorCode.BAD_REQUEST, why_not)
        (known,) = await self._store.record_feedback([found], self._clock.now_ms())
        if known is not None:
            await self._record("feedback", f"{known} {found.verdict}", actor)
        return {"request": known, "verdict": str(found.verdict), "route": found.right_route}

    async def _record(self, action: str, target: str, actor: str) -> None:
        await self._store.record_action(action, target, actor, self._clock.now_ms())
