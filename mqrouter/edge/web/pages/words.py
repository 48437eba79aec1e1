"""Figures, times and states as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

MAX_CELL = 40
NOTHING = "\N{EN DASH}"

STATES: Mapping[str, tuple[str, str]] = {
    "received": ("○", "wait"),
    "pending": ("◷", "wait"),
    "leased": ("▸", "busy"),
    "answered": ("✓", "good"),
    "delivered": ("✓", "good"),
    "undelivered": ("!", "warn"),
    "expired": ("\N{MULTIPLICATION SIGN}", "bad"),
    "dead": ("\N{MULTIPLICATION SIGN}", "bad"),
    "cancelled": ("⊘", "warn"),
    "dropped": ("▽", "warn"),
    "open": ("✓", "good"),
    "up": ("✓", "good"),
    "down": ("\N{MULTIPLICATION SIGN}", "bad"),
    "paused": ("‖", "warn"),
    "limited": ("◑", "warn"),
    "connected": ("✓", "good"),
    "not connected": ("\N{MULTIPLICATION SIGN}", "bad"),
}
"""A sign, and the kind of colour: never the colour alone."""


def icon(state: str) -> str:
    return STATES.get(state, ("•", "plain"))[0]


def kind(state: str) -> str:
    return STATES.get(state, ("•", "plain"))[1]


def age(seconds: float | None) -> str:
    """Returns a time in its largest unit, a dash for none."""
    if seconds is None:
        return NOTHING
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"


def size(number: float | None) -> str:
    """Returns bytes in their largest unit."""
    if number is None:
        return NOTHING
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number:.0f} bytes"


def counted(number: float, noun: str) -> str:
    """Returns "1 answer", "2 answers"."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def figure(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def moment(at_ms: float) -> datetime:
    """Returns a time of the gateway's own clock, in its own zone."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone()


def clock(at_ms: float) -> str:
    return f"{moment(at_ms):%Y-%m-%d %H:%M:%S}"


def iso(at_ms: float) -> str:
    return moment(at_ms).isoformat(timespec="seconds")


def cell(value: Any, most: int = MAX_CELL) -> str:
    """Returns one line of at most `most` characters: a device may call itself anything."""
    text = NOTHING if value is None or value == "" else plain(str(value))
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """Returns one line of what can be shown; marks that turn the direction of writing are not."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def visible(value: Any) -> Any:
    """Returns the text that a template puts out, of what can be shown; everything else as it is."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(char if char.isprintable() or char in "\t\r\n" else "\N{REPLACEMENT CHARACTER}" for char in value)


def spaced(name: Any) -> str:
    return "" if name is None else str(name).replace("_", " ")
