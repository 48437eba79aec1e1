"""One table of what can be asked for: the server, its checks and its description all read it."""

from __future__ import annotations

import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.guard import Caller
from mqrouter.edge.web.options import Role

LINES = "application/x-ndjson"
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was admitted; `query` and `body` are instances of what its route names, or None."""

    request: web.Request
    caller: Caller
    query: Any
    body: Any

    @property
    def path(self) -> Mapping[str, str]:
        return self.request.match_info


Handler = Callable[[Call], Awaitable[object]]
"""Returns what is sent as JSON, or a response of its own."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    role: Role
    """The least that the caller must be."""
    handler: Handler
    summary: str
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    """Where every field has a default, it may be left out."""
    answer: type[BaseModel] | None = None
    """What it says where all went well; without it any JSON object."""
    is_described: bool = True
    """Whether it stands in the OpenAPI document: a page for people does not."""
    is_page: bool = False
    """Whether it is for people: a browser's session counts, and errors are pages too."""
    is_lines: bool = False
    """Whether the answer is `LINES` instead of one JSON object."""
    is_shared: bool = False
    """Whether its answer depends on nothing but its address and the caller's role, and may be a moment old."""

    @property
    def name(self) -> str:
        """Unique, as in `post_v1_requests_id_cancel`."""
        words = self.path.replace("{", "").replace("}", "").replace(".", "_").strip("/").split("/")
        return "_".join([self.method.lower(), *filter(None, words)])

    async def call(self, request: web.Request, caller: Caller) -> object:
        for value in request.match_info.values():
            _check_text(value)
        query = None if self.query is None else from_query(self.query, request.query)
        body = None if self.body is None else await _from_body(self.body, request)
        return await self.handler(Call(request, caller, query, body))


def page(method: str, path: str, role: Role, handler: Handler, summary: str) -> Route:
    """Returns the route of a page for people."""
    return Route(method, path, role, handler, summary, is_described=False, is_page=True)


def from_query(model: type[ModelT], given: MultiMapping[str]) -> ModelT:
    """Raises ApiError for what is unknown, given twice, or out of range."""
    lists = {name for name, field in model.model_fields.items() if _takes_several(field.annotation)}
    values: dict[str, object] = {}
    for name in dict.fromkeys(given):
        several = given.getall(name)
        if name not in lists and len(several) > 1:
            raise ApiError(400, "bad_request", f"{_shown(name)} is given more than once")
        values[name] = several if name in lists else several[0]
    return _validated(lambda: model.model_validate(values))


def _takes_several(annotation: object) -> bool:
    if isinstance(annotation, types.UnionType):
        return any(map(_takes_several, typing.get_args(annotation)))
    return typing.get_origin(annotation) in (list, tuple)


async def _from_body(model: type[ModelT], request: web.Request) -> ModelT:
    try:
        text = await request.read()
    except web.RequestPayloadError as error:
        raise ApiError(400, "bad_request", "the body is not encoded as it says") from error
    except ConnectionError as error:
        raise ApiError(400, "bad_request", "the connection ended within the body") from error
    if text and request.content_type != "application/json":
        raise ApiError(415, "unsupported_type", "send the body as application/json")
    return _validated(lambda: model.model_validate_json(text or b"{}", strict=True))


def _validated(make: Callable[[], ModelT]) -> ModelT:
    try:
        return make()
    except ValidationError as error:
        found = [
            f"{_shown('.'.join(map(str, detail['loc'])))}: {detail['msg']}" if detail["loc"] else detail["msg"]
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ApiError(400, "bad_request", "; ".join(found[:5])) from error


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "bad_request", "the path is not UTF-8") from None


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name[:64])
