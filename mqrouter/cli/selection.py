"""The options that say which requests are meant, for every command that looks at or changes several."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mqrouter.core.steering import Selection

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def age(text: str) -> float:
    """Returns the seconds of a length of time: 90s, 30min, 12h, 7d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)
    if found is None or found[2] not in UNITS_S:
        raise click.BadParameter(f"{text!r} is no length of time: write it as 90s, 30min, 12h or 7d")
    return float(found[1]) * UNITS_S[found[2]]


OPTIONS = (
    click.option("--state", multiple=True, metavar="STATE", help="Only these; may be repeated."),
    click.option("--route", help="Only this route."),
    click.option("--tier", help="Only what this tier works on, has answered, or may still be asked."),
    click.option("--device", help="Only this device."),
    click.option("--priority", "of_priority", type=click.IntRange(0, 9), help="Only this priority."),
    click.option("--older-than", type=age, metavar="AGE", help="Only what came in before that, as 12h."),
    click.option("--newer-than", type=age, metavar="AGE", help="Only what came in since, as 30min."),
    click.option("--error", metavar="TEXT", help="Only what ended or failed with this in its reason."),
    click.option("--text", metavar="TEXT", help="Only questions with this in them, upper or lower case."),
)
ABOUT_ERRORS = (
    "--error looks at how requests ended and at what failed attempts said; what waits for a tier that is down was not"
    " tried yet: --tier NAME finds it"
)
NAMES = {"of_priority": "priority", "older_than": "older_than_s", "newer_than": "newer_than_s"}


def selection_options(command: CommandT) -> CommandT:
    """Gives the command the options of a filter; `filter_of` takes them out of its arguments."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def filter_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the filter as the API takes it: what was given, and nothing else."""
    from mqrouter.core.states import State

    if unknown := set(given["state"]) - set(State):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; states are {', '.join(State)}", param_hint="--state")
    found = {NAMES.get(name, name): value for name, value in given.items()}
    return {name: list(value) if name == "state" else value for name, value in found.items() if value not in (None, ())}


def selection_of(wanted: Mapping[str, Any]) -> Selection:
    """Returns the same for a look into the database."""
    from mqrouter.core.steering import Selection

    return Selection(states=tuple(wanted.get("state", ())), **{k: v for k, v in wanted.items() if k != "state"})
