"""Orders that come over MQTT: checked, carried out one after the other, on record, and answered on one topic."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from mqrouter.core.commands import Action, Command, CommandTopics, action_of, id_of, read_payload
from mqrouter.core.rate import DeviceRates
from mqrouter.core.request import Incoming, JsonObject, OutMessage
from mqrouter.errors import ErrorCode, RequestError, StoreError, StoreFatalError
from mqrouter.flow.ports import Broker, Clock
from mqrouter.flow.wakeup import Wakeup

log = structlog.get_logger("command")

ACTOR = "mqtt"
MAX_WAITING = 64
PER_MINUTE = 60  # the record of what operators did has an end: nobody is to push it out

OnNames = Callable[[Sequence[str], str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RouteOrders:
    """What is done to routes, on whose order: those there are, those held back, and how that is changed."""

    known: Callable[[], Collection[str]]
    paused: Callable[[], Collection[str]]
    pause: OnNames
    resume: OnNames


class Commands:
    """`pause` and `resume` take tiers and who asked. Where orders are off (`is_on`), each is passed over."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        topics: CommandTopics,
        tiers: Collection[str],
        *,
        is_on: bool,
        pause: OnNames,
        resume: OnNames,
        is_paused: Callable[[str], bool],
        routes: RouteOrders,
        done: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._topics = topics
        self._tiers = tiers
        self._is_on = is_on
        self._verbs = {Action.PAUSE: pause, Action.RESUME: resume}
        self._is_paused = is_paused
        self._routes = routes
        self._done = done
        self._rates = DeviceRates(PER_MINUTE)
        self._inbox: deque[Incoming] = deque()
        self._arrived = Wakeup()

    def take(self, incoming: Incoming) -> bool:
        """Takes what was published below PREFIX/cmd; False for anything else. Cannot fail."""
        if not self._topics.has(incoming.topic):
            return False
        self._broker.acknowledge(incoming)  # an order is for now: it is not done again after a crash
        if incoming.topic == self._topics.result:
            return True  # said by this gateway, and heard with the orders
        if self._is_on and not incoming.is_retained and len(self._inbox) < MAX_WAITING:
            self._inbox.append(incoming)
            self._arrived.give()
        else:
            log.warning("command.passed_over", topic=incoming.topic, is_on=self._is_on, retained=incoming.is_retained)
        return True

    async def run(self) -> None:
        while True:
            await self._arrived.wait()  # no limit: nothing to do until an order arrives
            while self._inbox:
                await self._obey(self._inbox.popleft())

    async def _obey(self, incoming: Incoming) -> None:
        result: JsonObject = {"id": None, "ok": False}
        try:
            value = read_payload(incoming)
            result["id"] = id_of(value)
            command = self._checked(incoming, value)
            result |= {"action": command.action, **await self._carry_out(command), "ok": True}
        except RequestError as error:
            log.warning("command.refused", topic=incoming.topic, code=str(error.code), why=error.message)
            result["error"] = {"code": error.code, "message": error.message}
        except StoreFatalError:
            raise
        except StoreError as error:
            log.error("command.failed", topic=incoming.topic, error=str(error))
            result["error"] = {"code": ErrorCode.INTERNAL, "message": "it could not be written down: try again"}
        self._done()
        payload = json.dumps(result).encode()
        message = OutMessage(self._topics.result, payload, incoming.correlation, "application/json", ())
        self._broker.publish(message, self._clock.now_ms())

    def _checked(self, incoming: Incoming, value: JsonObject) -> Command:
        assert incoming.topic is not None  # `take` saw to that
        target = self._topics.target(incoming.topic)
        if target.tier is not None and target.tier not in self._tiers:
            raise RequestError(ErrorCode.BAD_REQUEST, f"there is no tier {target.tier!r}")
        if target.route is not None and target.route not in self._routes.known():
            raise RequestError(ErrorCode.BAD_REQUEST, f"there is no route {target.route!r}")
        command = Command(action_of(value), target)
        if not self._rates.is_allowed(ACTOR, self._clock.monotonic_s()):
            raise RequestError(ErrorCode.RATE_LIMITED, f"more than {PER_MINUTE} orders a minute")
        return command

    async def _carry_out(self, command: Command) -> dict[str, list[str]]:
        """Returns the tiers or routes that changed: what is so already is no change, and not on record."""
        wanted, tier, route = command.action is Action.PAUSE, command.target.tier, command.target.route
        if route is not None:
            routes = [route] if (route in self._routes.paused()) is not wanted else []
            if routes:
                await (self._routes.pause if wanted else self._routes.resume)(routes, ACTOR)
            return {"routes": routes}
        changed = [name for name in (self._tiers if tier is None else (tier,)) if self._is_paused(name) is not wanted]
        if changed:
            await self._verbs[command.action](changed, ACTOR)
        return {"tiers": changed}
