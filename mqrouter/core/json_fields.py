"""The fields of a JSON request: each reader returns a checked value, or raises RequestError with the sender's code."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from mqrouter.core.request import JsonObject
from mqrouter.errors import ErrorCode, RequestError

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(text: str, max_depth: int) -> JsonObject:
    # Most texts have too few brackets to be too deep: looking at each of their characters takes milliseconds.
    if text.count("{") + text.count("[") > max_depth and _depth(text) > max_depth:
        raise RequestError(ErrorCode.BAD_REQUEST, f"JSON nested deeper than {max_depth} levels")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise RequestError(ErrorCode.BAD_REQUEST, f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(ErrorCode.BAD_REQUEST, "the JSON must be an object with a question")
    return value


def _without_twins(members: list[tuple[str, Any]]) -> JsonObject:
    """The last of two would hold: a mark of privacy must not be lost that way."""
    value = dict(members)
    if len(value) < len(members):
        twin, _ = Counter(name for name, _ in members).most_common(1)[0]
        raise ValueError(f"key {twin[:32]!r} is given twice")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth(text: str) -> int:
    """Returns the deepest nesting of brackets outside strings, without recursion and before parsing."""
    depth = deepest = 0
    in_string = is_escaped = False
    for char in text:
        if in_string:
            if is_escaped:
                is_escaped = False
            elif char == "\\":
                is_escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest


def non_empty(text: str, what: str) -> str:
    if not text.strip(" \t\r\n\0"):
        raise RequestError(ErrorCode.BAD_REQUEST, f"{what} is empty")
    return encodable(text, what)


def encodable(text: str, what: str) -> str:
    """JSON can spell lone surrogates; nothing behind this point could write them."""
    if not text.isascii() and LONE_SURROGATE.search(text):
        raise RequestError(ErrorCode.NOT_UTF8, f"{what} holds half of a surrogate pair")
    return text


def _field(value: JsonObject, name: str, is_valid: Callable[[Any], bool], wanted: str) -> Any:
    found = value.get(name)
    if found is not None and not is_valid(found):
        raise RequestError(ErrorCode.BAD_REQUEST, f"{name} must be {wanted}")
    return found


def string(value: JsonObject, name: str, max_chars: int | None = None) -> str | None:
    wanted = "a string" if max_chars is None else f"a string of at most {max_chars} characters"
    found = _field(value, name, lambda v: isinstance(v, str) and (max_chars is None or 0 < len(v) <= max_chars), wanted)
    return None if found is None else encodable(found, name)


def identifier(value: JsonObject, name: str, max_chars: int) -> str | None:
    found = value.get(name)
    if _is_int(found) and len(str(found)) <= max_chars:
        return str(found)  # counters are common ids on small devices
    return string(value, name, max_chars)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: JsonObject, name: str, least: float) -> float | None:
    found = _field(
        value,
        name,
        lambda v: (_is_int(v) or isinstance(v, float)) and least <= v <= 1e12 and math.isfinite(v),
        f"a number of at least {least:g}",
    )
    return None if found is None else float(found)


def integer(value: JsonObject, name: str, least: int, most: int | None) -> int | None:
    wanted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    found = _field(value, name, lambda v: _is_int(v) and v >= least and (most is None or v <= most), wanted)
    return None if found is None else min(int(found), 2**53)


def boolean(value: JsonObject, name: str) -> bool:
    return bool(_field(value, name, lambda v: isinstance(v, bool), "true or false"))
