"""Key paths of the configuration: how they are written, which exist at a place, and what was found there."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from mqrouter.config.toml_positions import KeyPath
from mqrouter.settings import Secret, Settings

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a key; `see` names a second place that belongs to it."""

    path: KeyPath
    message: str
    see: KeyPath | None = None


def dotted(path: KeyPath) -> str:
    """Returns the path as one would write it: `routes."my route".to[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" if text else _quoted(key)
    return text


def _quoted(key: str) -> str:
    if _BARE.fullmatch(key):
        return key
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "…"?`, or nothing where no known name is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f'; did you mean "{lowered[near[0]]}"?' if near else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def value_at(data: object, path: KeyPath) -> object:
    """Returns what stands at `path`. Raises LookupError where nothing does."""
    for key in path:
        match data:
            case dict():
                data = data[key]
            case list() if isinstance(key, int):
                data = data[key]
            case _:
                raise KeyError(key)
    return data


def has_value(data: object, path: KeyPath) -> bool:
    try:
        value_at(data, path)
    except LookupError:
        return False
    return True


def section_at(path: KeyPath, data: object) -> type[BaseModel] | None:
    """Returns the section whose keys stand at `path`, or None where names are free or there is none."""
    found = type_at(path, data)
    return found if _is_section(found) else None


def type_at(path: KeyPath, data: object) -> Any:
    """Returns the type of the value at `path`, or None. `data` decides between the kinds of tier."""
    found: Any = Settings
    for depth, key in enumerate(path, start=1):
        found = _chosen(_step(found, key), path[:depth], data)
    return found


def _step(annotation: Any, key: str | int) -> Any:
    if _is_section(annotation):
        field = annotation.model_fields.get(key)
        return None if field is None else field.annotation
    arguments = get_args(annotation)
    return arguments[-1] if get_origin(annotation) in (dict, list) else None


def _chosen(annotation: Any, path: KeyPath, data: object) -> Any:
    """Takes an annotation apart until one type is left: Annotated, `| None`, and the tiers' union."""
    if get_origin(annotation) is Annotated:
        return _chosen(get_args(annotation)[0], path, data)
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    return next((kind for kind in kinds if len(kinds) == 1 or _is_kind(kind, path, data)), None)


def _is_kind(section: Any, path: KeyPath, data: object) -> bool:
    try:
        kind = value_at(data, (*path, "kind"))
    except LookupError:
        return False
    return _is_section(section) and kind in get_args(section.model_fields["kind"].annotation)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Yields every value that one key sets, with its path. A reference to a secret is one value."""
    children = _children(value)
    if not children:
        yield path, value
    for key, child in children:
        yield from leaves(child, (*path, key))


def _children(value: object) -> list[tuple[str | int, object]]:
    if isinstance(value, BaseModel) and not isinstance(value, Secret):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        return list(enumerate(value))
    return []
