"""mqrouter status."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, fail, gateway_or_exit
from mqrouter.cli.daemon import DaemonDownError, DaemonSilentError, open_database, status_of_daemon
from mqrouter.cli.tables import format_age, format_bytes, format_table

if TYPE_CHECKING:
    from mqrouter.settings import Gateway

STATE_WORDS = {"received": "waiting to be decided", "pending": "waiting for a tier", "leased": "being answered"}


@click.command("status")
@config_option
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def command(config: Path | None, is_json: bool) -> None:
    """Show broker, tiers and queue. Exit 69 where the daemon is down, 75 where it runs but does not answer.

    The queue is read from the database then; `running` in JSON is false, or null.

    \b
    Example:
      mqrouter status --json
    """
    gateway, problems = gateway_or_exit(config)
    code = Exit.OK
    try:
        status = {"running": True} | status_of_daemon(gateway.control_socket)
    except DaemonDownError:
        if problems:
            fail(problems)
        status, code = {"running": False} | _without_daemon(gateway), Exit.UNAVAILABLE
    except DaemonSilentError as error:
        status, code = {"running": None, "error": str(error)} | _without_daemon(gateway), Exit.TEMPFAIL
    if is_json:
        echo_json(status)
    else:
        click.echo(_lines(status))
    if problems:
        click.echo(
            "mqrouter: the daemon runs on, but the configuration on disk is refused: see `mqrouter check`", err=True
        )
    raise SystemExit(code)


def _without_daemon(gateway: Gateway) -> dict[str, Any]:
    from mqrouter.edge.store.salvage import latest_report

    return _from_database(gateway.database) | {"salvage": latest_report(gateway.data_dir)}


def _from_database(path: Path) -> dict[str, Any]:
    from mqrouter.edge.store.reading import count_by_state, gateway_now, oldest_pending_ms
    from mqrouter.edge.system import machine_clocks

    with suppress(PermissionError):  # `open_database` says what to do about that
        if not path.exists():
            return {"requests": {}, "oldest_waiting_s": None}
    with open_database(path, is_any=True) as db:
        oldest_ms = oldest_pending_ms(db)
        oldest_s = None if oldest_ms is None else round((gateway_now(db, machine_clocks()).ms - oldest_ms) / 1000, 1)
        return {"requests": count_by_state(db), "oldest_waiting_s": oldest_s}


def _why_not_connected(error: str | None) -> str:
    return "connecting" if error is None else f"NOT connected: {error}"


def _lines(status: dict[str, Any]) -> str:
    requests = ", ".join(f"{count} {STATE_WORDS.get(state, state)}" for state, count in status["requests"].items())
    requests = requests or "none"
    if not status["running"]:
        oldest = format_age(status["oldest_waiting_s"])
        waiting = f"; the oldest has waited {oldest}" if oldest else ""
        why = status.get("error") or "the daemon is not running"
        lines = [f"{why}; from its database:", f"  requests: {requests}{waiting}"]
        return "\n".join(lines + _salvage_lines(status["salvage"]))
    broker = status["broker"]
    link = f"connected, MQTT {broker['protocol']}" if broker["connected"] else _why_not_connected(broker["error"])
    head = [
        f"mqrouter {status['version']} on {status['gateway']}: {'ready' if status['ready'] else 'starting'},"
        f" up {format_age(status['uptime_s'])}, process {status['pid']}",
        f"  broker    {broker['address']}: {link}",
        *_page_lines(status.get("http")),
        f"  requests  {requests}; {status['delivered']} answers delivered,"
        f" {status['abstained']} questions no route claimed, since the start",
        f"  loop lag  p50 {status['loop_lag_ms']['p50']} ms, p99 {status['loop_lag_ms']['p99']} ms",
    ]
    if any(status["answers"].values()):
        head.append(
            "  answers   {waiting} wait to be taken, {given_up} given up since the start".format(**status["answers"])
        )
    if abs(status["clock_offset_s"]) > 60:
        head.append(f"  clock     was set by {format_age(abs(status['clock_offset_s']))} since; waits are not affected")
    if status["store_failing"]:
        head.append("  DISK      writing fails: nothing new is accepted until it works again")
    head += _disk_lines(status["disk"]) + _salvage_lines(status["salvage"])
    if status["restart_needed"]:
        head.append(f"  RESTART   needed for what changed in {', '.join(status['restart_needed'])}")
    head += [
        f"  PAUSED    route {name}, by {pause['paused_by']} {format_age(pause['for_s'])} ago: its questions wait;"
        f" mqrouter queue resume --route {name}"
        for name, pause in status["paused_routes"].items()
    ]
    tiers = [
        (f"  {name}", tier["model"], breaker_word(tier), tier["in_flight"], _why_unused(tier) or _worker(tier))
        for name, tier in status["tiers"].items()
    ]
    headers = ("  TIER", "MODEL", "BREAKER", "IN FLIGHT", "REASON")
    limits = [line for name, tier in status["tiers"].items() for line in _limit_lines(name, tier["limits"])]
    return "\n".join([*head, format_table(headers, tiers, max_width=None), *limits])


def _page_lines(http: Mapping[str, Any] | None) -> list[str]:
    if http is None:  # a daemon of an earlier version, until it is restarted
        return []
    if not http["enabled"]:
        return ["  page      off: http.enabled is false"]
    if http["error"]:
        return [f"  PAGE      HTTP is not listening: {http['error']}; see http.host and http.port, then restart"]
    where = http["url"] or "not listening yet"
    is_any = where.startswith(("http://0.0.0.0:", "http://[::]:"))
    return [f"  page      {where}{' (every address of this machine)' if is_any else ''}"]


def breaker_word(tier: Mapping[str, Any]) -> str:
    """Returns the breaker's state; one that is closed because nobody asked yet promises nothing."""
    return str(tier["breaker"]) if tier["tried"] or tier["breaker"] != "closed" else "not tried yet"


def _limit_lines(name: str, levels: list[dict[str, Any]]) -> list[str]:
    lines = []
    for level in levels:
        of = "" if level["limit"] is None else f" of {level['limit']:.6g}"
        when = "" if level["resets_in_s"] is None else f"; there is more room in {format_age(level['resets_in_s'])}"
        lines.append(f"  {name}: {level['name'].replace('_', ' ')}: {level['used']:.6g}{of} taken{when}")
    return lines


def _disk_lines(disk: dict[str, Any]) -> list[str]:
    free = f"{format_bytes(disk['free_bytes'])} free"
    if disk["level"] == "low":
        return [f"  DISK      low, {free}: new questions are answered `overloaded`"]
    if disk["level"] == "full":
        return [f"  DISK      full, {free}: nothing is taken; `mqrouter queue purge` makes room"]
    return []


def _salvage_lines(salvage: dict[str, Any] | None) -> list[str]:
    if salvage is None:
        return []
    count, answers = salvage["requests"], salvage["answers"]
    return [
        f"  SALVAGED  {count} requests and {answers} answers of a damaged database;"
        f" it is in {salvage['quarantined_to']} (delete that when you are done with it)"
    ]


def _why_unused(tier: dict[str, Any]) -> str | None:
    if tier["paused_by"]:
        return f"paused by {tier['paused_by']}; mqrouter queue resume"
    if limit := tier["limit"]:
        return f"at its limit for {format_age(limit['for_s'])}: {limit['reason']}"
    return f"asked to be left alone for {format_age(tier['held_s'])}" if tier["held_s"] else tier["reason"]


def _worker(tier: dict[str, Any]) -> str | None:
    """Returns how a local tier's model is doing."""
    if (worker := tier.get("worker")) is None:
        return None
    if worker["state"] == "unloaded":
        return f"unloaded{': ' + worker['unloaded_because'] if worker['unloaded_because'] else ', loads on first use'}"
    resident = "" if worker["resident_mb"] is None else f", {worker['resident_mb']:.0f} MB"
    return f"model {worker['state']}{resident}"
