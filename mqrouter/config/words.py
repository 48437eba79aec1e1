"""What pydantic found wrong, in the words of whoever writes the file: what it is and what is allowed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mqrouter.config.keys import Finding, did_you_mean, has_value, section_at, value_at
from mqrouter.config.toml_positions import KeyPath
from mqrouter.settings import HOURS, URL, LocalTier, OllamaTier, OpenAiTier, Secret

_NAME = 'must start with a letter or digit and hold only letters, digits, "_", "." and "-", not {value}'
_PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9_.-]*$": _NAME,
    HOURS: 'must be two times of day like "06:00-20:00", not {value}',
    URL: "must be an address that begins with http:// or https://, without spaces, not {value}",
}
_TEMPLATES = {
    "int_type": "must be a whole number, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "bool_type": "must be true or false, not {value}",
    "string_type": "must be text in quotes, not {value}",
    "path_type": "must be a path in quotes, not {value}",
    "list_type": "must be an array [ … ], not {value}",
    "dict_type": "must be a table, not {value}",
    "model_type": "must be a table, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "greater_than": "must be greater than {gt:g}, not {value}",
    "greater_than_equal": "must be at least {ge:g}, not {value}",
    "less_than": "must be less than {lt:g}, not {value}",
    "less_than_equal": "must be at most {le:g}, not {value}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entry",
    "value_error": "{error}",
}


_TIERS: tuple[type[BaseModel], ...] = (LocalTier, OpenAiTier, OllamaTier)

# Without the value: whoever wrote the secret itself here does not want it in a log as well.
_SECRET = 'must be a reference to the secret: { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }'

SectionT = TypeVar("SectionT", bound=BaseModel)


def strictly(section: type[SectionT], data: object) -> SectionT:
    """Returns the validated section. Raises ValidationError, also where a value would need converting.

    By way of JSON: there a text stands for a path or an enum, and still "1883" is no number and 1 is not true.
    """
    return section.model_validate_json(as_json(data), strict=True)


def as_json(data: object) -> str:
    return json.dumps(data, default=_as_no_json_type)


def _as_no_json_type(moment: object) -> dict[str, str]:
    """No key of ours is a date, and a table is what no date may be taken for: text."""
    return {"date": str(moment)}


def findings(error: ValidationError, data: dict[str, Any]) -> list[Finding]:
    """Returns one finding per error; `data` is what was validated.

    A value that may be of one kind or another and is neither is one error, which names both.
    """
    found: list[Finding] = []
    of_unions: dict[KeyPath, int] = {}
    for detail in error.errors(include_url=False, include_input=False):
        finding = _finding(detail, data)
        if _is_plain(data, _key_path(detail["loc"])[:-1]):
            place = of_unions.setdefault(finding.path, len(found))
            if place < len(found):
                suffix = f", not {_value(data, finding.path)}"
                message = f"{found[place].message.removesuffix(suffix)}, or {finding.message.removeprefix('must be ')}"
                found[place] = Finding(finding.path, message)
                continue
        found.append(finding)
    return found


def _is_plain(data: dict[str, Any], path: KeyPath) -> bool:
    """True where a value stands that has nothing below it."""
    return bool(path) and has_value(data, path) and not isinstance(value_at(data, path), dict | list)


def _finding(detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    path = _key_path(detail["loc"])
    if _is_plain(data, path[:-1]):
        path = path[:-1]  # the last is pydantic's name for one of the kinds that the value may be of
    special = _SPECIAL.get(detail["type"])
    if special is not None:
        return special(path, detail, data)
    if detail["loc"][-1] == "[key]":
        return Finding(path, "the name " + _NAME.format(value=shown(path[-1])))
    if section_at(path, data) is Secret and detail["type"] == "model_type":
        return Finding(path, _SECRET)
    return Finding(path, _message(detail, _value(data, path)))


def _key_path(loc: tuple[str | int, ...]) -> KeyPath:
    """Takes out what pydantic adds to the path: the kind of a tier, and that a name itself is wrong."""
    if loc[-1] == "[key]":
        return loc[:-1]
    return (*loc[:2], *loc[3:]) if loc[0] == "tiers" and len(loc) > 2 else loc


def _message(detail: ErrorDetails, value: str) -> str:
    context = detail.get("ctx", {})
    template = _PATTERNS.get(context.get("pattern", "")) or _TEMPLATES.get(detail["type"])
    if template is None:
        return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {value}"
    return template.format(value=value, **context)


def _missing(path: KeyPath, detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    section = section_at(path[:-1], data)
    field = None if section is None else section.model_fields.get(str(path[-1]))
    meaning = "" if field is None or not field.description else f" ({field.description})"
    return Finding(path, f"is required{meaning}")


def _unknown(path: KeyPath, detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    name = str(path[-1])
    section = section_at(path[:-1], data)
    known = [] if section is None else list(section.model_fields)
    noun = "table" if len(path) == 1 and isinstance(data.get(name), dict) else "key"
    unset = [key for key in known if not has_value(data, (*path[:-1], key))]
    near = did_you_mean(name, unset) or did_you_mean(name, known)
    return Finding(path, f"unknown {noun}{_other_kind(section, name) or near or _allowed(known)}")


def _other_kind(section: object, name: str) -> str:
    ours = next((tier for tier in _TIERS if tier is section), None)
    having = " or ".join(f'"{_kind(tier)}"' for tier in _TIERS if name in tier.model_fields)
    if ours is None or not having:
        return ""
    return f'; only tiers of kind {having} have it, this one is "{_kind(ours)}"'


def _kind(tier: type[BaseModel]) -> str:
    return str(get_args(tier.model_fields["kind"].annotation)[0])


def _allowed(known: list[str]) -> str:
    return f"; known here: {', '.join(known)}" if known else ""


def _choice(path: KeyPath, detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    """For enums and literals: pydantic writes what it expects as `'a', 'b' or 'c'`."""
    expected = str(detail["ctx"]["expected"]).replace("'", '"').replace("True", "true").replace("False", "false")
    value = value_at(data, path)
    near = did_you_mean(value, expected.split('"')[1::2]) if isinstance(value, str) else ""
    return Finding(path, f"must be {expected}, not {shown(value)}{near}")


def _tag_missing(path: KeyPath, detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    return Finding((*path, "kind"), f"is required: {_kinds()}")


def _tag_invalid(path: KeyPath, detail: ErrorDetails, data: dict[str, Any]) -> Finding:
    value = value_at(data, (*path, "kind"))
    near = did_you_mean(value, tuple(map(_kind, _TIERS))) if isinstance(value, str) else ""
    return Finding((*path, "kind"), f"must be {_kinds()}, not {shown(value)}{near}")


def _kinds() -> str:
    *first, last = (f'"{_kind(tier)}"' for tier in _TIERS)
    return f"{', '.join(first)} or {last}"


_SPECIAL: dict[str, Callable[[KeyPath, ErrorDetails, dict[str, Any]], Finding]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _choice,
    "enum": _choice,
    "union_tag_not_found": _tag_missing,
    "union_tag_invalid": _tag_invalid,
}


def _value(data: dict[str, Any], path: KeyPath) -> str:
    return shown(value_at(data, path)) if has_value(data, path) else "nothing"


def shown(value: object) -> str:
    """Returns a value as a person would name it. Long text is cut: it may be a whole prompt."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return f'the text "{value}"' if len(value) <= 40 else f'the text "{value[:40]}…"'
        case list():
            return "an array"
        case dict():
            return "a table"
        case datetime.datetime() | datetime.date() | datetime.time():
            return "a date or time"
    return f"a {type(value).__name__}"
