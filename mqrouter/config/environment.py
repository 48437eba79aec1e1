"""Environment variables that set a key: MQROUTER_MQTT__HOST is mqtt.host."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mqrouter.config.keys import section_at, type_at, value_at
from mqrouter.config.sources import Variable
from mqrouter.config.toml_positions import KeyPath
from mqrouter.config.words import as_json
from mqrouter.errors import Problem
from mqrouter.settings import Secret, Settings

PREFIX = "MQROUTER_"
FILE_VARIABLE = "MQROUTER_CONFIG"
INCLUDE_VARIABLE = "MQROUTER_INCLUDE"


def variables(environ: Mapping[str, str], data: dict[str, Any]) -> Iterator[Variable]:
    """Yields the variables that set a key, outer keys first. `data` knows the names of tiers and routes."""
    for name in sorted(environ):
        if _is_override(name):
            path = _path(name, data)
            yield Variable(name, path, _value(name, environ[name], path, data))


def _is_override(name: str) -> bool:
    """A variable without a double underscore is ours only where it names a whole section: others keep keys there."""
    rest = name.removeprefix(PREFIX)
    return rest != name and ("__" in rest or rest.lower() in Settings.model_fields)


def _path(name: str, data: dict[str, Any]) -> KeyPath:
    path: KeyPath = ()
    for level in name.removeprefix(PREFIX).split("__"):
        path = (*path, _key(level, _names_at(path, data)))
    return path


def _key(level: str, names: Iterable[str]) -> str:
    """Variables are upper case and know no dash: FIELD_OFFICE may mean the tier field-office."""
    return next((name for name in names if _as_level(name) == level.upper()), level.lower())


def _as_level(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")


def _names_at(path: KeyPath, data: dict[str, Any]) -> list[str]:
    section = section_at(path, data)
    if section is not None:
        return list(section.model_fields)
    try:
        names = value_at(data, path)
    except LookupError:
        return []
    return list(names) if isinstance(names, dict) else []


def _value(name: str, text: str, path: KeyPath, data: dict[str, Any]) -> Any:
    """Returns the text read as TOML where the key takes that, else as it is: the protocol 5 is a text.

    A secret given in its variable becomes a reference to that variable.
    """
    value, expected = _toml_value(text), type_at(path, data)
    if expected is None or _fits(expected, value):
        return value
    if expected is Secret and not isinstance(value, dict):
        return {"env": name}
    return text if _fits(expected, text) else value


def _fits(expected: Any, value: object) -> bool:
    try:
        TypeAdapter(expected).validate_json(as_json(value), strict=True)
    except ValidationError:
        return False
    return True


def _toml_value(text: str) -> Any:
    """Returns `text` as a TOML value, or as it is where it is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def misspelt(environ: Mapping[str, str], data: dict[str, Any]) -> list[Problem]:
    """Returns a problem for each MQROUTER_MQTT_HOST: silently without effect, it would be searched for long."""
    referenced = set(_secret_variables(data))
    return [
        Problem(name, f"sets nothing; did you mean {meant}?", file="environment")
        for name, meant in _single_underscores()
        if name in environ and name not in referenced
    ]


def _single_underscores() -> Iterator[tuple[str, str]]:
    for section in Settings.model_fields:
        for key in _names_at((section,), {}):
            yield f"{PREFIX}{section}_{key}".upper(), f"{PREFIX}{section}__{key}".upper()


def _secret_variables(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("env"), str):
            yield value["env"]
        for child in value.values():
            yield from _secret_variables(child)
