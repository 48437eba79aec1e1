"""One look as text and as JSON: what `--once` prints, and what the panes are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mqrouter.cli.status import breaker_word
from mqrouter.cli.tables import format_bytes, format_table, printable
from mqrouter.cli.top.figures import (
    History,
    attempts,
    coarse_age,
    depth,
    joined,
    labelled,
    quiet,
    sparkline,
    tier_state,
    why,
    why_not_used,
)
from mqrouter.cli.top.source import WAITING, Overview, Page
from mqrouter.core.states import State
from mqrouter.core.waiting import Standing

MB = 1e6
NO_ROUTE = "(no route)"
QUIET_LAG_MS = 20
QUEUE_HEADERS = ("ID", "STATE", "AGE", "PRI", "DEVICE", "ROUTE", "TRIES", "WHY")
TIER_HEADERS = ("TIER", "STATE", "BREAKER", "BUSY", "ATTEMPTS", "LATENCY", "MODEL", "WHY")
ID_CHARS = 8


def as_text(overview: Overview, page: Page) -> str:
    standing = quiet(overview.standing)
    lines = [headline(overview), *(f"  {name:<9} {text}" for name, text in facts(overview, History()))]
    if rows := [*tier_cells(overview), *paused_route_cells(overview)]:
        lines += ["", format_table(TIER_HEADERS, rows, max_width=None)]
    if page.rows:
        lines += ["", format_table(QUEUE_HEADERS, [request_cells(row, standing, is_whole=True) for row in page.rows])]
        lines += [] if page.next is None else ["there may be more: mqrouter queue list"]
    return "\n".join(lines)


def as_json(overview: Overview, page: Page) -> dict[str, Any]:
    samples = overview.samples
    return {
        "running": overview.is_running,
        "trouble": overview.trouble,
        "status": overview.status,
        "stats": overview.stats,
        "memory_bytes": samples.get("process_resident_memory_bytes"),
        "power_watts": _by_sensor(samples, "power_watts"),
        "temperature_celsius": _by_sensor(samples, "temperature_celsius"),
        "queue": page.rows,
    }


def known_tiers(overview: Overview) -> Mapping[str, Mapping[str, Any]]:
    return {} if overview.status is None else overview.status["tiers"]


def headline(overview: Overview) -> str:
    """Returns one line: whose gateway, and whether it works."""
    if (status := overview.status) is None:
        return f"THE DAEMON IS NOT RUNNING; {overview.trouble or 'this is read from its database'}"
    broker = "broker connected" if status["broker"]["connected"] else "NO BROKER"
    ready = "ready" if status["ready"] else "starting"
    trouble = f"; DEGRADED: {', '.join(status['degraded'])}" if status["degraded"] else ""
    return f"{status['gateway']}: {ready}, {broker}, {depth(overview)} waiting{trouble}"


def facts(overview: Overview, history: History) -> list[tuple[str, str]]:
    """Returns names and texts; what there is nothing to say of is left out."""
    found = [*_of_link(overview.status), ("queue", _queue(overview))]
    if len(history.depths) > 1:
        found.append(("depth", f"{sparkline(history.depths)} most {max(history.depths)}"))
    if rates := history.per_minute():
        found.append(
            ("rate", f"{_significant(rates['in'])} questions in, {_significant(rates['out'])} answers out, a minute")
        )
    found += _waiting(overview)
    return found + _of_machine(overview)


def _of_link(status: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if status is None:
        return []
    broker = status["broker"]
    link = f"connected, MQTT {broker['protocol']}" if broker["connected"] else f"not connected: {broker['error']}"
    found = [
        ("daemon", f"mqrouter {status['version']}, process {status['pid']}, up {coarse_age(status['uptime_s'])}"),
        ("broker", f"{broker['address']}: {link}"),
    ]
    if status["restart_needed"]:
        found.append(("RESTART", f"needed for what changed in {', '.join(status['restart_needed'])}"))
    return found


def _queue(overview: Overview) -> str:
    counts = overview.stats.get("requests", {}) if overview.status is None else overview.status["requests"]
    states = ", ".join(f"{counts.get(state, 0)} {state}" for state in WAITING)
    if dropped := counts.get(State.DROPPED, 0):
        states += f", {dropped} dropped"
    oldest = overview.stats.get("oldest_waiting_s")
    aged = f"; the oldest for {coarse_age(oldest)}" if oldest is not None and depth(overview) else ""
    if overview.status is None:
        return f"{states}{aged}"
    held = overview.status["queue"]
    room = f"{format_bytes(held['bytes'])} of {format_bytes(held['max_bytes'])}"
    return f"{states}{aged}; {held['requests']} of {held['max_requests']}, {room}"


def _waiting(overview: Overview) -> list[tuple[str, str]]:
    tiers = [(" > ".join(entry["tiers"]), entry["requests"]) for entry in overview.stats.get("waiting", ())]
    routes: dict[str, int] = {}
    for entry in overview.stats.get("routes", ()):
        if entry["state"] in WAITING:
            name = entry["route"] or NO_ROUTE
            routes[name] = routes.get(name, 0) + entry["requests"]
    found = [("for tiers", joined(tiers))] if tiers else []
    return [*found, ("by route", joined(list(routes.items())))] if routes else found


def _of_machine(overview: Overview) -> list[tuple[str, str]]:
    samples, status = overview.samples, overview.status
    if status is None:
        return []
    memory = [f"router {samples.get('process_resident_memory_bytes', 0) / MB:.0f} MB"]
    for name, tier in status["tiers"].items():
        if (worker := tier.get("worker")) is not None:
            held = worker["resident_mb"]
            memory.append(f"model of {name} {worker['state']}{'' if held is None else f' {held:.0f} MB'}")
    found = [("memory", f"{', '.join(memory)}; disk {format_bytes(status['disk']['free_bytes'])} free")]
    watts = [f"{printable(name)} {value:.1f} W" for name, value in _by_sensor(samples, "power_watts").items()]
    degrees = [
        f"{printable(name)} {value:.0f} °C" for name, value in _by_sensor(samples, "temperature_celsius").items()
    ]
    found += [("power", ", ".join(watts))] if watts else []
    found += [("heat", ", ".join(degrees))] if degrees else []
    lag_ms = status["loop_lag_ms"]["p99"]
    return found if lag_ms < QUIET_LAG_MS else [*found, ("loop lag", f"p99 {lag_ms:.0f} ms")]


def tier_cells(overview: Overview) -> list[tuple[str, ...]]:
    """Returns a row for each tier, as in TIER_HEADERS."""
    found: list[tuple[str, ...]] = []
    for name, tier in known_tiers(overview).items():
        outcomes = attempts(overview.samples, name)
        tried = f"{outcomes.get('answered', 0)} of {sum(outcomes.values())} ok" if outcomes else "none yet"
        latency = "-" if tier["latency_ms"] is None else f"{_significant(tier['latency_ms'])} ms"
        state = tier_state(tier)
        found.append(
            (name, state, breaker_word(tier), str(tier["in_flight"]), tried, latency, tier["model"], why_not_used(tier))
        )
    return found


def paused_route_cells(overview: Overview) -> list[tuple[str, ...]]:
    """Returns a row for each route that is held back, as in TIER_HEADERS."""
    routes = {} if overview.status is None else overview.status["paused_routes"]
    return [
        (f"route {name}", "paused", "", "", "", "", "", f"by {pause['paused_by']}, for {coarse_age(pause['for_s'])}")
        for name, pause in routes.items()
    ]


def request_cells(row: Mapping[str, Any], standing: Standing, *, is_whole: bool = False) -> tuple[str, ...]:
    """Returns a request as in QUEUE_HEADERS; its id is shortened unless `is_whole`."""
    return (
        row["id"] if is_whole else row["id"][:ID_CHARS],
        row["state"],
        coarse_age(row["age_s"]),
        str(row["priority"]),
        printable(row["device"] or "-"),
        row["route"] or "-",
        str(row["attempts"]),
        printable(why(row, standing)),
    )


def _by_sensor(samples: Mapping[str, float], name: str) -> dict[str, float]:
    return {labels.get("sensor", "?"): value for labels, value in labelled(samples, name)}


def _significant(value: float) -> str:
    """Returns two digits: what changes without meaning anything is not shown."""
    return f"{float(f'{value:.2g}'):g}"
