"""What the numbers of several looks say: rates, the queue's depth over time, and why a request waits."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mqrouter.cli.top.source import WAITING, Overview
from mqrouter.core.waiting import Standing, why_waiting

BARS = "▁▂▃▄▅▆▇█"
POINTS = 60
WINDOW_S = 60.0
STEP_S = 20.0
"""Times below a minute are shown in steps of this."""
SAMPLE = re.compile(r"^mqrouter_(\w+)\{(.*)\}$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
MINUTE, HOUR, DAY = 60, 3_600, 86_400


class History:
    """The latest looks at a running daemon, for what only several of them tell."""

    def __init__(self) -> None:
        self.depths: deque[int] = deque(maxlen=POINTS)
        self._counts: deque[tuple[float, dict[str, int]]] = deque()

    def add(self, overview: Overview) -> None:
        self.depths.append(depth(overview))
        if overview.status is None:
            self._counts.clear()
            return
        counts = {"in": overview.status["accepted"].get("new", 0), "out": overview.status["delivered"]}
        if self._counts and any(counts[name] < before for name, before in self._counts[-1][1].items()):
            self._counts.clear()  # another life of the daemon
        self._counts.append((overview.at_s, counts))
        while self._counts[0][0] < overview.at_s - WINDOW_S and len(self._counts) > 2:
            self._counts.popleft()

    def per_minute(self) -> dict[str, float]:
        """Returns how many questions came in, and answers went out, a minute; empty after a single look."""
        if len(self._counts) < 2:
            return {}
        (began_s, before), (ended_s, now) = self._counts[0], self._counts[-1]
        return {name: 60 * (now[name] - before[name]) / (ended_s - began_s) for name in now}


def depth(overview: Overview) -> int:
    """Returns how many requests have no terminal answer yet."""
    counts = overview.stats.get("requests", {}) if overview.status is None else overview.status["requests"]
    return sum(counts.get(state, 0) for state in WAITING)


def sparkline(values: Iterable[int]) -> str:
    """Returns one character a value, the lowest for 0 and the highest for the greatest."""
    values = list(values)
    most = max(values, default=0)
    return "".join(BARS[0 if most == 0 else round(value / most * (len(BARS) - 1))] for value in values)


def coarse_age(seconds: float | None) -> str:
    """Returns an age that seldom changes: every change is sent over the link."""
    if seconds is None:
        return "-"
    if seconds < MINUTE:
        return "<1m"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)}m"
    return f"{int(seconds // HOUR)}h" if seconds < 2 * DAY else f"{int(seconds // DAY)}d"


def labelled(samples: Mapping[str, float], name: str) -> list[tuple[dict[str, str], float]]:
    """Returns the labels and values of one metric, named without `mqrouter_`."""
    found = []
    for sample, value in samples.items():
        if (parts := SAMPLE.match(sample)) is not None and parts[1] == name:
            found.append((dict(LABEL.findall(parts[2])), value))
    return found


def attempts(samples: Mapping[str, float], tier: str) -> dict[str, int]:
    """Returns how many attempts at a tier came to what, since the start."""
    found: dict[str, int] = {}
    for labels, value in labelled(samples, "attempt_seconds_count"):
        if labels.get("tier") == tier:
            found[labels["outcome"]] = found.get(labels["outcome"], 0) + int(value)
    return found


def tier_state(tier: Mapping[str, Any]) -> str:
    """Returns up, paused, limited, resting or down."""
    if tier["paused_by"]:
        return "paused"
    if tier["usable"]:
        return "up"
    return "limited" if tier["limit"] else "resting" if tier["held_s"] else "down"


def why_not_used(tier: Mapping[str, Any]) -> str:
    """Returns why nothing goes to a tier now; empty where something would."""
    if tier["paused_by"]:
        return f"by {tier['paused_by']}"
    if limit := tier["limit"]:
        return f"for {coarse_age(limit['for_s'])}: {limit['reason']}"
    if tier["held_s"]:
        return f"for {coarse_age(tier['held_s'])}, as it asked for"
    return "" if tier["usable"] else tier["reason"] or "not reachable"


def why(row: Mapping[str, Any], standing: Standing) -> str:
    """Returns why a request has no answer yet, or how it ended."""
    in_s = row["next_attempt_in_s"]
    quiet = {**row, "next_attempt_in_s": None if in_s is None else _coarse_s(in_s)}
    return why_waiting(quiet, standing) or str(row["reason"] or row["detail"] or row["tier"] or "")


def quiet(standing: Standing) -> Standing:
    """Returns the same with times that seldom change."""
    tiers = {
        name: replace(tier, probe_in_s=None, held_s=_coarse_s(tier.held_s), limit_for_s=_coarse_s(tier.limit_for_s))
        for name, tier in standing.tiers.items()
    }
    return replace(standing, tiers=tiers)


def _coarse_s(seconds: float) -> float:
    return STEP_S * math.ceil(seconds / STEP_S) if seconds < MINUTE else MINUTE * math.ceil(seconds / MINUTE)


def joined(counts: Sequence[tuple[str, int]], most: int = 6) -> str:
    """Returns the greatest of the counts, and how many there are beside."""
    ordered = sorted(counts, key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{name} {count}" for name, count in ordered[:most]]
    more = len(ordered) - most
    return " · ".join([*shown, f"{more} more"] if more > 0 else shown) or "none"
