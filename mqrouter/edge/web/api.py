"""What /v1 offers, in terms of what operators can ask for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from mqrouter.core.records import Seq
from mqrouter.core.request import Kept
from mqrouter.core.steering import Order, Outcome, Selection, Sort, Verb
from mqrouter.edge.web import models
from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.lines import Shelf, send_lines
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.routes import Call, Handler, Route


class Desk(Shelf, Protocol):
    """What operators can ask for. `actor` is who asks, for the record."""

    async def page(
        self, wanted: Selection, *, limit: int, sort: Sort, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]: ...

    async def show(self, request_id: str, *, with_text: bool) -> dict[str, Any] | None: ...

    async def actions(self, limit: int) -> list[dict[str, Any]]: ...

    async def stats(self) -> dict[str, Any]: ...

    def tiers(self) -> Sequence[str]: ...

    def routes(self) -> Sequence[str]: ...

    def paused_routes(self) -> Mapping[str, object]: ...

    async def pause_routes(self, routes: Sequence[str], actor: str) -> None: ...

    async def resume_routes(self, routes: Sequence[str], actor: str) -> None: ...

    async def order(self, order: Order, ids: Sequence[str], actor: str, *, is_dry: bool = False) -> list[Outcome]: ...

    async def order_all(
        self, order: Order, wanted: Selection, actor: str, *, is_dry: bool, after: Seq | None
    ) -> tuple[list[Outcome], Seq | None]: ...

    async def pause(self, tiers: Sequence[str], actor: str) -> None: ...

    async def resume(self, tiers: Sequence[str], actor: str) -> None: ...


BringIn = Callable[[Sequence[Kept], str], Awaitable[dict[str, int]]]
"""Asks what devices published again; returns how many became what."""
Errand = Callable[[Mapping[str, str], str], Awaitable[dict[str, Any]]]
"""Further things to be done on order, by name: its options, and who asks."""


def routes(
    desk: Desk,
    *,
    status: Callable[[], dict[str, Any]],
    why_not_ready: Callable[[], Sequence[str]],
    errands: Mapping[str, Errand],
    bring_in: BringIn,
) -> list[Route]:
    """Returns everything the API offers; `why_not_ready` is empty where questions are taken and decided."""
    api = _Api(desk, status, why_not_ready, errands, bring_in)
    view, operate = Role.VIEWER, Role.OPERATOR
    return [
        Route("GET", "/livez", Role.NOBODY, api.livez, "Whether the process lives."),
        Route("GET", "/readyz", Role.NOBODY, api.readyz, "Whether questions are taken. Tiers may be down: they queue."),
        Route("GET", "/v1/status", view, api.status, "Broker, tiers, queue and limits."),
        Route(
            "GET",
            "/v1/requests",
            view,
            api.page,
            "Requests by what is known of them, a page at a time.",
            query=models.PageQuery,
            answer=models.Requests,
            is_shared=True,
        ),
        Route(
            "GET",
            "/v1/export",
            operate,
            api.export,
            "Requests whole, with their texts, oldest first: a JSON object a line, as `import` takes them.",
            query=models.ExportQuery,
            is_lines=True,
        ),
        Route(
            "GET",
            "/v1/requests/{id}",
            view,
            api.show,
            "All about one request.",
            query=models.ShowQuery,
            is_shared=True,
        ),
        Route(
            "GET",
            "/v1/stats",
            view,
            api.stats,
            "How many, by state and route.",
            answer=models.StatsAnswer,
            is_shared=True,
        ),
        Route("GET", "/v1/requests/{id}/decision", view, api.decision, "Why it goes where it goes."),
        Route(
            "GET",
            "/v1/actions",
            view,
            api.actions,
            "What operators did, newest first.",
            query=models.ActionsQuery,
            answer=models.Actions,
        ),
        *api.verb_routes(),
        Route(
            "POST",
            "/v1/requests/{id}/feedback",
            operate,
            api.feedback,
            "Say whether an answer was good, or took the wrong route.",
            body=models.FeedbackBody,
            answer=models.FeedbackDone,
        ),
        Route("POST", "/v1/pause", operate, api.pause_all, "Hold every tier back.", answer=models.Held),
        Route("POST", "/v1/resume", operate, api.resume_all, "Let every tier and route go on.", answer=models.Held),
        Route("POST", "/v1/tiers/{id}/pause", operate, api.pause, "Hold a tier back.", answer=models.Held),
        Route("POST", "/v1/tiers/{id}/resume", operate, api.resume, "Let a tier work again.", answer=models.Held),
        Route(
            "POST",
            "/v1/routes/{id}/pause",
            operate,
            api.pause_route,
            "Hold a route back: its questions wait, and nobody is asked for them.",
            answer=models.Held,
        ),
        Route("POST", "/v1/routes/{id}/resume", operate, api.resume_route, "Let a route go on.", answer=models.Held),
        Route(
            "POST",
            "/v1/import",
            operate,
            api.bring_in,
            "Ask what devices published again.",
            body=models.ImportBody,
            answer=models.ImportDone,
        ),
        Route(
            "POST",
            "/v1/orders/{name}",
            operate,
            api.errand,
            f"One of {', '.join(errands)}.",
            query=models.OrderQuery,
        ),
    ]


def metrics_route(content: Callable[[], Awaitable[bytes]], content_type: str) -> Route:
    """For Prometheus, in its own text format, and for who is logged in with a browser."""

    async def metrics(_call: Call) -> web.Response:
        return web.Response(body=await content(), headers={"Content-Type": content_type})

    return Route("GET", "/metrics", Role.VIEWER, metrics, "Metrics for Prometheus.", is_described=False, is_page=True)


def check_may_search(call: Call, query: models.PageQuery) -> None:
    """Raises ApiError where a viewer looks for a text: guess by guess, what is found tells all of it."""
    if query.text is not None and call.caller.role < Role.OPERATOR:
        raise ApiError(403, "forbidden", "to look for a text needs the operator's token, as the texts do")


class _Api:
    def __init__(
        self,
        desk: Desk,
        status: Callable[[], dict[str, Any]],
        why_not_ready: Callable[[], Sequence[str]],
        errands: Mapping[str, Errand],
        bring_in: BringIn,
    ) -> None:
        self._desk = desk
        self._status = status
        self._why_not_ready = why_not_ready
        self._errands = errands
        self._bring_in = bring_in

    async def livez(self, _call: Call) -> object:
        return {"alive": True}

    async def readyz(self, _call: Call) -> object:
        reasons = list(self._why_not_ready())
        body = {"ready": not reasons, "reasons": reasons}
        return web.json_response(body, status=503 if reasons else 200)

    async def status(self, _call: Call) -> object:
        return self._status()

    async def stats(self, _call: Call) -> object:
        return await self._desk.stats()

    async def page(self, call: Call) -> object:
        query: models.PageQuery = call.query
        check_may_search(call, query)
        rows, after = await self._desk.page(query.selection(), limit=query.limit, sort=query.sort, after=query.after)
        return {"requests": rows, "next": after}

    async def export(self, call: Call) -> object:
        return await send_lines(call.request, self._desk, call.query.selection())

    async def show(self, call: Call) -> object:
        if call.query.text and call.caller.role < Role.OPERATOR:
            raise ApiError(403, "forbidden", "the texts need the operator's token")
        return await self._shown(call, with_text=call.query.text)

    async def decision(self, call: Call) -> object:
        return {"decision": (await self._shown(call, with_text=False))["decision"]}

    async def _shown(self, call: Call, *, with_text: bool) -> dict[str, Any]:
        found = await self._desk.show(call.path["id"], with_text=with_text)
        if found is None:
            raise ApiError(404, "not_found", "there is no such request")
        return found

    async def actions(self, call: Call) -> object:
        return {"actions": await self._desk.actions(call.query.limit)}

    # --- verbs --------------------------------------------------------------------------------------

    def verb_routes(self) -> list[Route]:
        found: list[Route] = []
        for verb, (one, several, summary) in VERBS.items():
            path = f"/v1/requests/{{id}}/{verb}"
            found += [
                Route("POST", path, Role.OPERATOR, self._on_one(verb), summary, body=one, answer=models.Ordered),
                Route(
                    "POST",
                    f"/v1/bulk/{verb}",
                    Role.OPERATOR,
                    self._on_several(verb),
                    f"{summary[:-1]}, for several at once.",
                    body=several,
                    answer=models.BulkDone,
                ),
            ]
        return found

    def _on_one(self, verb: Verb) -> Handler:
        async def handle(call: Call) -> object:
            outcomes = await self._desk.order(self._order(verb, call.body), [call.path["id"]], call.caller.actor)
            if not outcomes:
                raise ApiError(404, "not_found", "there is no such request")
            return asdict(outcomes[0])

        return handle

    def _on_several(self, verb: Verb) -> Handler:
        async def handle(call: Call) -> object:
            body: models.Bulk = call.body
            order, actor, after = self._order(verb, body), call.caller.actor, None
            if body.ids is not None:
                outcomes = await self._desk.order(order, body.ids, actor, is_dry=body.dry_run)
            else:
                outcomes, after = await self._desk.order_all(
                    order, body.selection(), actor, is_dry=body.dry_run, after=body.after
                )
            return {
                "dry_run": body.dry_run,
                "matched": len(outcomes),
                "changed": sum(outcome.is_changed for outcome in outcomes),
                "next": after,
                "outcomes": [asdict(outcome) for outcome in outcomes],
            }

        return handle

    def _order(self, verb: Verb, body: Any) -> Order:
        match verb:
            case Verb.RETRY | Verb.DROP | Verb.UNDO:
                return Order(verb)
            case Verb.CANCEL:
                return Order(verb) if body.message is None else Order(verb, message=body.message)
            case Verb.MOVE:
                self._known(body.tier)
                return Order(verb, tier=body.tier)
            case Verb.PRIORITY:
                return Order(verb, priority=body.priority)
            case Verb.TTL:
                return Order(verb, ttl_ms=int(1000 * body.ttl_s))

    async def feedback(self, call: Call) -> object:
        words = {"id": call.path["id"], **call.body.model_dump(mode="json", exclude_none=True)}
        done = await self._errands["feedback"](words, call.caller.actor)
        if done["request"] is None:
            raise ApiError(404, "not_found", "there is no such request")
        return done

    # --- tiers --------------------------------------------------------------------------------------

    async def pause(self, call: Call) -> object:
        return await self._pause([self._known(call.path["id"])], call)

    async def pause_all(self, call: Call) -> object:
        return await self._pause(self._desk.tiers(), call)

    async def resume(self, call: Call) -> object:
        tier = self._known(call.path["id"])
        await self._desk.resume([tier], call.caller.actor)
        return {"tiers": [tier], "routes": []}

    async def resume_all(self, call: Call) -> object:
        tiers, routes = list(self._desk.tiers()), sorted(self._desk.paused_routes())
        await self._desk.resume(tiers, call.caller.actor)
        await self._desk.resume_routes(routes, call.caller.actor)
        return {"tiers": tiers, "routes": routes}

    async def pause_route(self, call: Call) -> object:
        route = self._known_route(call.path["id"])
        await self._desk.pause_routes([route], call.caller.actor)
        return {"tiers": [], "routes": [route]}

    async def resume_route(self, call: Call) -> object:
        route = self._known_route(call.path["id"])
        await self._desk.resume_routes([route], call.caller.actor)
        return {"tiers": [], "routes": [route]}

    async def _pause(self, tiers: Sequence[str], call: Call) -> object:
        await self._desk.pause(tiers, call.caller.actor)
        return {"tiers": list(tiers), "routes": []}

    def _known(self, tier: str) -> str:
        if tier not in self._desk.tiers():
            raise ApiError(404, "not_found", f"there is no such tier; there are {', '.join(self._desk.tiers())}")
        return tier

    def _known_route(self, route: str) -> str:
        if route not in (known := self._desk.routes()):
            raise ApiError(404, "not_found", f"there is no such route; there are {', '.join(known) or 'none'}")
        return route

    async def bring_in(self, call: Call) -> object:
        body: models.ImportBody = call.body
        return {"counts": await self._bring_in([entry.kept() for entry in body.requests], call.caller.actor)}

    async def errand(self, call: Call) -> object:
        errand = self._errands.get(call.path["name"])
        if errand is None:
            raise ApiError(404, "not_found", "there is no such order")
        options = {name: str(value) for name, value in call.query if value is not None}
        return await errand(options, call.caller.actor)


VERBS: dict[Verb, tuple[type[models.Model] | None, type[models.Bulk], str]] = {
    Verb.RETRY: (None, models.BulkRetry, "Try a pending request at once, with all its tiers."),
    Verb.CANCEL: (models.CancelArguments, models.BulkCancel, "End a request; who asked is told."),
    Verb.MOVE: (models.MoveArguments, models.BulkMove, "Let a pending request wait for one tier and no other."),
    Verb.PRIORITY: (models.PriorityArguments, models.BulkPriority, "Give a waiting request another priority."),
    Verb.TTL: (models.TtlArguments, models.BulkTtl, "Let a request expire at another time."),
    Verb.DROP: (None, models.BulkDrop, "Take a waiting request out of the queue; it ends as cancelled unless undone."),
    Verb.UNDO: (None, models.BulkUndo, "Bring a dropped request back to its old place, within queue.undo_s."),
}
