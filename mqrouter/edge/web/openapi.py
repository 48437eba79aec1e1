"""The OpenAPI 3.1 document of a route table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from mqrouter import __version__
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.recent import FRESH_S, MAX_FRESH_S
from mqrouter.edge.web.routes import LINES, Route

SHARED = f"Up to {FRESH_S:g} s old, {MAX_FRESH_S:g} s where it takes long."
REFERENCE = "#/components/schemas/{model}"
REFUSALS = {
    400: "it cannot be understood",
    401: "a token is missing, or wrong",
    403: "the token does not allow this, or another site's page asked",
    404: "there is no such thing",
    413: "the body is too large",
    415: "the body is not JSON",
    421: "the gateway is not known by that name",
    429: "too many wrong tokens",
    500: "a fault of mqrouter: its log says more",
    503: "the database cannot do this now, or the gateway is not ready",
}


class ErrorBody(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    """What every answer beyond 399 says."""

    model_config = ConfigDict(title="Error")

    error: ErrorBody


def document(routes: Sequence[Route]) -> dict[str, Any]:
    described = [route for route in routes if route.is_described]
    models = {model for route in described for model in (route.query, route.body, route.answer) if model is not None}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(models | {Error}, key=lambda model: model.__name__)],
        ref_template=REFERENCE,
    )
    definitions: dict[str, Any] = schemas["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, definitions)
    queries = {route.query.__name__ for route in described if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mqrouter",
            "version": __version__,
            "description": "The queue of a gateway, and its steering.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in definitions.items() if name not in queries},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, definitions: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": f"{route.summary} {SHARED}" if route.is_shared else route.summary,
        "x-role": route.role.name.lower(),
        "security": [] if route.role is Role.NOBODY else [{"token": []}],
        "responses": _responses(route),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not None:
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in definitions[route.query.__name__]["properties"].items()
        ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        is_needed = any(field.is_required() for field in route.body.model_fields.values())
        operation["requestBody"] = {"required": is_needed, "content": _json(route.body)}
    return operation


def _responses(route: Route) -> dict[str, Any]:
    fine: dict[str, Any] = {"schema": {"type": "object"}} if route.answer is None else _json(route.answer)[JSON]
    content = {LINES: {"schema": {"type": "string"}}} if route.is_lines else {JSON: fine}
    responses: dict[str, Any] = {"200": {"description": "done", "content": content}}
    for status, description in REFUSALS.items():
        responses[str(status)] = {"description": description, "content": _json(Error)}
    return responses


JSON = "application/json"


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}
