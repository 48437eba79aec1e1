"""Orders from forms: shown first what would change, then carried out, then back to where they came from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict
from pydantic import ValidationError

from mqrouter.core.steering import Order, Outcome, Selection, Verb
from mqrouter.edge.web import models
from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages.forms import own_path
from mqrouter.edge.web.pages.looking import VERB_NAMES, query_of
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.routes import Call, Route, page

SHOWN = 50
AT_ONCE_S = 5.0
"""Time one form may take: after that it is said that there is more to do."""
HARMLESS = frozenset({Verb.RETRY, Verb.UNDO})
"""Done at once where it is about one request."""
DEFAULTS = {"tier": "", "priority": "5", "ttl_min": "60", "message": ""}


@dataclass(frozen=True, slots=True)
class Meant:
    """The requests an order is about: named, or all that a filter finds."""

    ids: list[str]
    filter: str
    is_all: bool
    after: int | None = None
    """Number to go on after, where a part is done already."""

    @property
    def selection(self) -> Selection:
        """Without a state chosen, those are meant in which the verb changes something."""
        return query_of(MultiDict(parse_qsl(self.filter)), ()).selection()


class Ordering:
    def __init__(self, sources: Sources, render: Renderer) -> None:
        self._desk = sources.desk
        self._render = render

    def routes(self) -> list[Route]:
        return [
            page("POST", "/queue/order", Role.OPERATOR, self.order, "Steer requests."),
            page("POST", "/tiers/order", Role.OPERATOR, self.hold, "Pause and resume tiers and routes."),
        ]

    async def order(self, call: Call) -> web.Response:
        fields = await self._render.tokens.read(call)
        back = own_path(fields.get("back"), "/queue")
        meant = _meant(fields)
        if not meant.ids and not meant.is_all:
            return self._render.after(back, "Nothing was selected: tick requests, or all that match.")
        verb = _verb(fields.get("verb", ""))
        given = DEFAULTS | {name: fields[name] for name in DEFAULTS if name in fields}
        given["tier"] = given["tier"] or next(iter(self._desk.tiers()), "")
        order = self._order(verb, given)
        is_alone = verb in HARMLESS and len(meant.ids) == 1 and not meant.is_all
        if fields.get("step") != "do" and not is_alone:
            return await self._confirmation(call, order, meant, given, back)
        text, left = await self._carry_out(order, meant, call.caller.actor)
        if left is None:
            return self._render.after(back, text)
        return await self._confirmation(call, order, left, given, back, so_far=text)

    async def _confirmation(
        self, call: Call, order: Order, meant: Meant, given: dict[str, str], back: str, *, so_far: str | None = None
    ) -> web.Response:
        """Returns the page that says what would change, with what the verb needs and the button that does it."""
        outcomes, more = await self._preview(order, meant, call.caller.actor)
        return await self._render.page(
            call.request,
            call.caller,
            "order.html",
            VERB_NAMES[order.verb],
            verb=str(order.verb),
            verb_names={str(one): name for one, name in VERB_NAMES.items()},
            given=given,
            tiers=self._desk.tiers(),
            meant=meant,
            so_far=so_far,
            back=back,
            target=str(order) if order.verb in (Verb.MOVE, Verb.PRIORITY, Verb.TTL) else "",
            matched=len(outcomes),
            changed=sum(outcome.is_changed for outcome in outcomes),
            more=more,
            outcomes=outcomes[:SHOWN],
        )

    def _order(self, verb: Verb, given: dict[str, str]) -> Order:
        """Raises ApiError for what cannot be."""
        try:
            match verb:
                case Verb.RETRY | Verb.DROP | Verb.UNDO:
                    return Order(verb)
                case Verb.CANCEL:
                    message = models.CancelArguments(message=given["message"].strip() or None).message
                    return Order(verb) if message is None else Order(verb, message=message)
                case Verb.MOVE:
                    return Order(verb, tier=self._known(given["tier"]))
                case Verb.PRIORITY:
                    return Order(verb, priority=models.PriorityArguments(priority=int(given["priority"])).priority)
                case Verb.TTL:
                    seconds = models.TtlArguments(ttl_s=60 * float(given["ttl_min"])).ttl_s
                    return Order(verb, ttl_ms=int(1000 * seconds))
        except (ValidationError, ValueError) as error:
            raise ApiError(400, "bad_request", f"a value of the form to {verb} is out of range") from error

    def _known(self, tier: str) -> str:
        if tier not in self._desk.tiers():
            raise ApiError(404, "not_found", "there is no such tier: load the page again")
        return tier

    async def _preview(self, order: Order, meant: Meant, actor: str) -> tuple[list[Outcome], bool]:
        if not meant.is_all:
            return await self._desk.order(order, meant.ids, actor, is_dry=True), False
        outcomes, after = await self._desk.order_all(order, meant.selection, actor, is_dry=True, after=meant.after)
        return outcomes, after is not None

    async def _carry_out(self, order: Order, meant: Meant, actor: str) -> tuple[str, Meant | None]:
        """Returns what became of it, as a sentence, and what is left to do."""
        if not meant.is_all:
            return summary(order, await self._desk.order(order, meant.ids, actor)), None
        done: list[Outcome] = []
        after, end_s = meant.after, time.monotonic() + AT_ONCE_S
        while True:
            outcomes, after = await self._desk.order_all(order, meant.selection, actor, is_dry=False, after=after)
            done += outcomes
            if after is None or time.monotonic() > end_s:
                return summary(order, done), None if after is None else replace(meant, after=after)

    async def hold(self, call: Call) -> web.Response:
        """A tier, a route, or with neither named every tier; to resume all is to resume the routes too."""
        fields = await self._render.tokens.read(call)
        back = own_path(fields.get("back"), "/tiers")
        tiers, routes = self._held(fields)
        desk, actor = self._desk, call.caller.actor
        match fields.get("verb"):
            case "pause":
                await desk.pause(tiers, actor)
                await desk.pause_routes(routes, actor)
                return self._render.after(back, f"Paused: {', '.join((*tiers, *routes))}.")
            case "resume":
                if "tier" not in fields and "route" not in fields:
                    routes = sorted(desk.paused_routes())
                await desk.resume(tiers, actor)
                await desk.resume_routes(routes, actor)
                return self._render.after(back, f"Resumed: {', '.join((*tiers, *routes))}.")
        raise ApiError(400, "bad_request", "a tier or a route can be paused and resumed")

    def _held(self, fields: MultiDict[str]) -> tuple[list[str], list[str]]:
        """Returns the tiers and the routes that are meant. Raises ApiError where there is none of that name."""
        if "route" in fields:
            if fields["route"] not in self._desk.routes():
                raise ApiError(404, "not_found", "there is no such route: load the page again")
            return [], [fields["route"]]
        return [self._known(fields["tier"])] if "tier" in fields else list(self._desk.tiers()), []


def summary(order: Order, outcomes: Sequence[Outcome]) -> str:
    changed = sum(outcome.is_changed for outcome in outcomes)
    text = f"{VERB_NAMES[order.verb]}: {changed} of {len(outcomes)} requests changed."
    reasons = Counter(outcome.why_not or "it is over" for outcome in outcomes if not outcome.is_changed)
    if order.verb is Verb.DROP and changed:
        text += " Choose the state dropped to bring them back."
    if reasons:
        text += " The others stay as they are: " + "; ".join(f"{why} ({n})" for why, n in reasons.most_common(3)) + "."
    return text


def _meant(fields: MultiDict[str]) -> Meant:
    ids = [name for name in fields.getall("id", []) if name]
    if len(ids) > models.MAX_IDS:
        raise ApiError(400, "bad_request", f"select {models.MAX_IDS} requests at most, or all that match")
    after = fields.get("after", "")
    return Meant(ids, fields.get("filter", ""), fields.get("all") == "1", int(after) if after.isdecimal() else None)


def _verb(text: str) -> Verb:
    try:
        return Verb(text)
    except ValueError:
        raise ApiError(400, "bad_request", "say what to do with the requests") from None
