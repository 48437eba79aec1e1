"""Verdicts on answers, from the page of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from mqrouter.core.feedback import MAX_NOTE_CHARS, Verdict, why_not_judged
from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.pages.forms import own_path
from mqrouter.edge.web.pages.render import Renderer
from mqrouter.edge.web.pages.sources import Sources
from mqrouter.edge.web.pages.words import spaced
from mqrouter.edge.web.routes import Call, Route, page
from mqrouter.errors import RequestError


class Judging:
    def __init__(self, sources: Sources, render: Renderer) -> None:
        self._feedback = sources.feedback
        self._render = render

    def routes(self) -> list[Route]:
        return [page("POST", "/queue/{id}/verdict", Role.OPERATOR, self.judge, "Judge an answer.")]

    async def judge(self, call: Call) -> web.Response:
        """What cannot be taken is said where the form is, which nobody has to find again."""
        fields = await self._render.tokens.read(call)
        back = own_path(fields.get("back"), "/queue")
        given = {name: fields.get(name, "").strip() for name in ("verdict", "route", "note")}
        try:
            options = {"id": call.path["id"]} | {name: text for name, text in given.items() if text}
            done = await self._feedback(options, call.caller.actor)
        except RequestError as error:
            return self._render.after(back, f"No verdict was taken: {error.message}.")
        if done["request"] is None:
            raise ApiError(404, "not_found", "there is no such request: it may be deleted by now")
        return self._render.after(back, _taken(done))


def form_of(row: Mapping[str, Any], routes: list[str]) -> dict[str, Any]:
    """Returns what the form offers for a request as it is shown; `why_not_answer`: only its route can be judged."""
    return {
        "verdicts": [(str(one), spaced(one), why_not_judged(one, row) is None) for one in Verdict],
        "routes": [name for name in routes if name != row["route"]],
        "why_not_answer": why_not_judged(Verdict.BAD, row),
        "max_chars": MAX_NOTE_CHARS,
    }


def _taken(done: Mapping[str, Any]) -> str:
    text = f"Verdict: {spaced(done['verdict'])}"
    if done["route"]:
        return f"{text}, right is {done['route']}."
    if done["verdict"] == Verdict.WRONG_ROUTE:
        return f"{text}. Without the right one nothing is learnt from it."
    return f"{text}."
