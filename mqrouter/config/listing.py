"""The settings in force, one line each, as TOML and with their origins: never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mqrouter.config import Loaded, Origin
from mqrouter.config.keys import dotted, value_at
from mqrouter.config.toml_positions import KeyPath

_CREDENTIALS = re.compile(r"(://)[^/?#\s\"]+@")  # a password may have an @ in it


@dataclass(frozen=True, slots=True)
class Entry:
    """`value` is None where nothing is set."""

    key: str
    value: str | None
    origin: Origin


def entries(loaded: Loaded) -> Iterator[Entry]:
    plain = loaded.settings.model_dump(mode="json", exclude_none=True)
    for path, origin in _keys(loaded).items():
        try:
            value = toml(value_at(plain, path))
        except LookupError:
            value = None
        yield Entry(dotted(path), value, origin)


def without_credentials(value: str) -> str:
    """Returns the value without the name and password that an address in it may hold."""
    return _CREDENTIALS.sub(r"\1…@", value)


def _keys(loaded: Loaded) -> dict[KeyPath, Origin]:
    """Returns the keys one can write on a line: a dotted key cannot reach into an array."""
    keys: dict[KeyPath, Origin] = {}
    for path, origin in loaded.origins.items():
        depth = next((depth for depth, key in enumerate(path) if isinstance(key, int)), len(path))
        keys.setdefault(path[:depth], origin)
    return keys


def toml(value: object) -> str:
    match value:
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            pairs = ", ".join(f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
    # JSON's numbers, booleans and texts are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
