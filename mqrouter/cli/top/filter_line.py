"""The filter of the queue as one line: `state:pending route:frost older-than:2h spots`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import click

from mqrouter.cli.selection import age
from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.states import State

HELP = 'state:pending route:frost tier:hub device:d1 priority:9 older-than:2h newer-than:1h error:"HTTP 503" words'
EVERY_STATE = "all"


class FilterError(ValueError):
    """Says what is wrong with the line."""


def parse(line: str) -> dict[str, Any]:
    """Returns the filter as the API takes it; words without a name are looked for in the question."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise FilterError(f"{error}: close the quotation") from error
    found: dict[str, Any] = {}
    texts = []
    for word in words:
        name, colon, value = word.partition(":")
        if not colon:
            texts.append(word)
        elif name not in READ:
            raise FilterError(f"{name} is not known: there are {', '.join(READ)}")
        elif not value:
            raise FilterError(f"{name}: says nothing")
        else:
            key, read = READ[name]
            if key in found:
                raise FilterError(f"{name} is given twice")
            found[key] = read(value)
    return found | ({"text": " ".join(texts)} if texts else {})


def _states(value: str) -> list[str]:
    if value == EVERY_STATE:
        return [str(state) for state in State]
    names = value.split(",")
    if unknown := set(names) - set(State):
        raise FilterError(f"{', '.join(sorted(unknown))}; states are {', '.join(State)}, {EVERY_STATE}")
    return names


def _seconds(value: str) -> float:
    try:
        return age(value)
    except click.BadParameter as error:
        raise FilterError(error.message) from error


def _priority(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= MAX_PRIORITY):
        raise FilterError(f"priority is 0 to {MAX_PRIORITY}")
    return int(value)


READ: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "state": ("state", _states),
    "route": ("route", str),
    "tier": ("tier", str),
    "device": ("device", str),
    "priority": ("priority", _priority),
    "older-than": ("older_than_s", _seconds),
    "newer-than": ("newer_than_s", _seconds),
    "error": ("error", str),
}
