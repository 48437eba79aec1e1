"""Requests: a page of them, one of them, and what was decided of the latest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from multidict import MultiDict, MultiMapping

from mqrouter.core.answer_signals import describe, parse_judged
from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.states import State
from mqrouter.core.steering import APPLIES, Sort, Verb
from mqrouter.edge.web.api import check_may_search
from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.lines import send_lines
from mqrouter.edge.web.models import MAX_PAGE, PageQuery
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages import words
from mqrouter.edge.web.pages.judging import form_of
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.routes import Call, Route, from_query, page

WAITING = (State.RECEIVED, State.PENDING, State.LEASED)
STATES = (("", "without an answer"), ("any", "any"), *((str(state), str(state)) for state in State))
AGES = ((300, "5 minutes"), (3_600, "1 hour"), (21_600, "6 hours"), (86_400, "1 day"), (604_800, "7 days"))
FIELDS = ("state", "route", "tier", "device", "priority", "older_than_s", "newer_than_s", "error", "text")
LESS_USED = ("tier", "priority", "older_than_s", "newer_than_s", "error")
VERB_NAMES = {
    Verb.RETRY: "Retry now",
    Verb.CANCEL: "Cancel",
    Verb.MOVE: "Move to a tier",
    Verb.PRIORITY: "Set priority",
    Verb.TTL: "Set time to live",
    Verb.DROP: "Drop",
    Verb.UNDO: "Bring back",
}
RAW = [
    "id",
    "client_id",
    "topic",
    "reply_topic",
    "correlation",
    "content_type",
    "session",
    "form",
    "bytes",
    "max_bytes",
    "private",
    "confidence",
    "answer_state",
    "answer_is_provisional",
]


SORT_NAMES = {
    Sort.NEWEST: "newest first",
    Sort.OLDEST: "oldest first",
    Sort.PRIORITY: "who is next",
    Sort.EXPIRY: "what expires first",
    Sort.ATTEMPTS: "most tried",
}
CALLED = {"after": "place to go on", "older_than_s": "age", "newer_than_s": "age", "limit": "number of requests"}
POSSIBLE = {
    "state": f"the states are {', '.join(State)}; any shows them all",
    "sort": f"requests are sorted by {', '.join(Sort)}",
    "priority": f"priorities go from 0 to {MAX_PRIORITY}",
    "older_than_s": "give it in seconds",
    "newer_than_s": "give it in seconds",
    "limit": f"a page shows 1 to {MAX_PAGE}",
    "after": "go on from the first page",
}
"""What the fields of a filter can be, for who wrote something else into the address."""
ANY_TEXT = "give a text of at most 500 characters"


def query_of(given: MultiMapping[str], states_unless: Sequence[State] = WAITING) -> PageQuery:
    """Returns what a filter form means, in which nothing chosen is sent as an empty text. Raises ApiError."""
    kept = [(name, text) for name, text in given.items() if name in PageQuery.model_fields and text.strip()]
    states = [text for name, text in kept if name == "state"]
    fields = MultiDict((name, text) for name, text in kept if name != "state")
    if "any" not in states:
        fields.extend(("state", state) for state in states or map(str, states_unless))
    return understood(fields)


def understood(fields: MultiDict[str]) -> PageQuery:
    """Raises ApiError with what can be chosen, in the words of the page."""
    try:
        return from_query(PageQuery, fields)
    except ApiError:
        for name, text in fields.items():
            try:
                from_query(PageQuery, MultiDict([(name, text)]))
            except ApiError as error:
                wrong = f"{words.cell(text)!r} is no {CALLED.get(name, name)}"
                raise ApiError(400, error.code, f"{wrong}: {POSSIBLE.get(name, ANY_TEXT)}") from error
        raise


class Looking:
    def __init__(self, sources: Sources, render: Renderer) -> None:
        self._sources = sources
        self._desk = sources.desk
        self._render = render

    def routes(self) -> list[Route]:
        return [
            page("GET", "/queue", Role.VIEWER, self.queue, "Requests."),
            page("GET", "/queue/export", Role.OPERATOR, self.export, "Requests as lines of JSON."),
            page("GET", "/queue/{id}", Role.VIEWER, self.item, "One request."),
            page("GET", "/decisions", Role.VIEWER, self.decisions, "What was decided of late."),
        ]

    async def queue(self, call: Call) -> web.Response:
        given = call.request.query
        if wanted := given.get("request", "").strip():
            return web.Response(status=303, headers={"Location": f"/queue/{quote(wanted, safe='')}"})
        query = query_of(given)
        check_may_search(call, query)
        rows, after = await self._desk.page(query.selection(), limit=query.limit, sort=query.sort, after=query.after)
        return await self._render.page(
            call.request,
            call.caller,
            "queue.html",
            "Queue",
            rows=rows,
            states=STATES,
            ages=AGES,
            sorts=SORT_NAMES,
            tiers=self._desk.tiers(),
            routes=self._routes(),
            chosen={name: given.get(name, "") for name in (*FIELDS, "sort")},
            is_narrowed=any(given.get(name, "").strip() for name in LESS_USED),
            filter=urlencode([(name, text) for name, text in given.items() if name in FIELDS and text.strip()]),
            verbs=list(Verb),
            verb_names=VERB_NAMES,
            **_pager(call.request, after),
        )

    async def export(self, call: Call) -> web.StreamResponse:
        return await send_lines(call.request, self._desk, query_of(call.request.query).selection())

    async def item(self, call: Call) -> web.Response:
        is_text = call.request.query.get("text") == "1"
        if is_text and call.caller.role < Role.OPERATOR:
            raise ApiError(403, "forbidden", "the texts need the operator's token")
        row = await self._desk.show(call.path["id"], with_text=is_text)
        if row is None:
            raise ApiError(404, "not_found", "there is no such request: it may be deleted by now")
        history = [entry | {"text": _note(entry)} for entry in row["history"]]
        return await self._render.page(
            call.request,
            call.caller,
            "item.html",
            f"Request {row['id']}",
            row=row | {"history": history},
            is_text=is_text,
            verbs=list(Verb),
            verb_names=VERB_NAMES,
            applies=APPLIES,
            judge=form_of(row, self._routes()),
            raw=[(name, words.NOTHING if row.get(name) is None else str(row[name])) for name in RAW],
        )

    async def decisions(self, call: Call) -> web.Response:
        given = call.request.query
        fields = MultiDict((name, text) for name, text in given.items() if name in ("route", "device") and text.strip())
        wanted = understood(fields).selection()
        query = understood(MultiDict((n, t) for n, t in given.items() if n in ("after", "limit")))
        rows, after = await self._desk.decisions(wanted, limit=query.limit, after=query.after)
        return await self._render.page(
            call.request,
            call.caller,
            "decisions.html",
            "Decisions",
            rows=rows,
            routes=self._routes(),
            chosen={name: given.get(name, "") for name in ("route", "device")},
            **_pager(call.request, after),
        )

    def _routes(self) -> list[str]:
        return list(self._desk.routes())


def _pager(request: web.Request, after: int | None) -> dict[str, Any]:
    kept = [(name, text) for name, text in request.query.items() if name not in ("after", "note") and text.strip()]
    more = None if after is None else f"{request.path}?{urlencode([*kept, ('after', after)])}"
    return {"more": more, "first": f"{request.path}?{urlencode(kept)}", "is_later": "after" in request.query}


def _note(entry: dict[str, Any]) -> str:
    return describe(parse_judged(entry["note"])) if entry["event"] == "judged" else entry["note"] or ""
