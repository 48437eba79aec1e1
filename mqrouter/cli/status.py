"""mqrouter status."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.daemon import DaemonDownError, call_daemon, open_database
from mqrouter.cli.tables import format_age, format_table


@click.command("status")
@config_option
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def command(config: Path | None, is_json: bool) -> None:
    """Show broker, tiers and queue. Exit 69 where the daemon is down; then the queue is read from the database.

    \b
    Example:
      mqrouter status --json
    """
    settings = load_or_exit(config).settings
    try:
        _, status = call_daemon(settings.control_socket, "GET", "/v1/status")
    except DaemonDownError:
        status = {"running": False} | _from_database(settings.database)
    else:
        status = {"running": True} | status
    if is_json:
        echo_json(status)
    else:
        click.echo(_lines(status))
    raise SystemExit(Exit.OK if status["running"] else Exit.UNAVAILABLE)


def _from_database(path: Path) -> dict[str, Any]:
    from mqrouter.edge.store.reading import count_by_state, oldest_pending_ms

    with suppress(PermissionError):  # `open_database` says what to do about that
        if not path.exists():
            return {"requests": {}, "oldest_waiting_s": None}
    with open_database(path) as db:
        oldest_ms = oldest_pending_ms(db)
        oldest_s = None if oldest_ms is None else round(time.time() - oldest_ms / 1000, 1)
        return {"requests": count_by_state(db), "oldest_waiting_s": oldest_s}


def _why_not_connected(error: str | None) -> str:
    return "connecting" if error is None else f"NOT connected: {error}"


def _lines(status: dict[str, Any]) -> str:
    requests = ", ".join(f"{count} {state}" for state, count in status["requests"].items()) or "none"
    if not status["running"]:
        oldest = format_age(status["oldest_waiting_s"])
        waiting = f"; the oldest has waited {oldest}" if oldest else ""
        return f"the daemon is not running; from its database:\n  requests: {requests}{waiting}"
    broker = status["broker"]
    link = f"connected, MQTT {broker['protocol']}" if broker["connected"] else _why_not_connected(broker["error"])
    head = [
        f"mqrouter {status['version']} on {status['gateway']}: {'ready' if status['ready'] else 'starting'},"
        f" up {format_age(status['uptime_s'])}, process {status['pid']}",
        f"  broker    {broker['address']}: {link}",
        f"  requests  {requests}; {status['delivered']} answers delivered,"
        f" {status['abstained']} questions no route claimed, since the start",
        f"  loop lag  p50 {status['loop_lag_ms']['p50']} ms, p99 {status['loop_lag_ms']['p99']} ms",
    ]
    if status["store_failing"]:
        head.append("  DISK      writing fails: nothing new is accepted until it works again")
    if status["restart_needed"]:
        head.append(f"  RESTART   needed for what changed in {', '.join(status['restart_needed'])}")
    tiers = [
        (f"  {name}", tier["model"], tier["breaker"], tier["in_flight"], _why_unused(tier))
        for name, tier in status["tiers"].items()
    ]
    headers = ("  TIER", "MODEL", "BREAKER", "IN FLIGHT", "REASON")
    return "\n".join([*head, format_table(headers, tiers, max_width=None)])


def _why_unused(tier: dict[str, Any]) -> str | None:
    return f"asked to be left alone for {format_age(tier['held_s'])}" if tier["held_s"] else tier["reason"]
