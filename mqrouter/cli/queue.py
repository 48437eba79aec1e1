"""mqrouter queue: looking at requests; it works the same while the daemon is down."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.daemon import DaemonDownError, call_daemon, open_database
from mqrouter.cli.tables import format_age, format_table, printable

WAITING = ("received", "pending", "leased")


@click.group("queue")
def command() -> None:
    """Look at requests: pending, answered, failed; looking never consumes."""


@command.command("list")
@config_option
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only these; may be repeated.")
@click.option("--all", "is_all", is_flag=True, help="Also requests that are answered or over.")
@click.option("--route", help="Only this route.")
@click.option("--device", help="Only this device.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "is_json", is_flag=True, help="A JSON list on standard output.")
def list_command(
    config: Path | None,
    states: tuple[str, ...],
    is_all: bool,
    route: str | None,
    device: str | None,
    limit: int,
    is_json: bool,
) -> None:
    """List requests, newest first; without options those that wait for an answer. Exit 3 where there is none.

    \b
    Example:
      mqrouter queue list --state pending --route crop_disease
    """
    from mqrouter.core.states import State
    from mqrouter.edge.store.reading import list_requests

    unknown = set(states) - set(State)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; states are {', '.join(State)}", param_hint="--state")
    settings = load_or_exit(config).settings
    wanted = states or (() if is_all else WAITING)
    with open_database(settings.database) as db:
        found = list_requests(
            db, states=wanted, route=route, device=device, limit=limit, now_ms=int(time.time() * 1000)
        )
    if is_json:
        echo_json(found)
    elif found:
        click.echo(_table(found))
    else:
        click.echo("no such request" if states or is_all or route or device else "nothing waits", err=True)
    raise SystemExit(Exit.OK if found else Exit.NOTHING_FOUND)


@command.command("show")
@config_option
@click.argument("request_id", metavar="ID")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def show(config: Path | None, request_id: str, is_json: bool) -> None:
    """Show one request: its decision and why, its attempts, its answer. ID is mqrouter's or the requester's own.

    \b
    Example:
      mqrouter queue show 5a1b0c2d3e4f5061
    """
    from mqrouter.edge.store.reading import show_request

    settings = load_or_exit(config).settings
    with open_database(settings.database) as db:
        found = show_request(db, request_id, int(time.time() * 1000))
    if found is None:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if is_json:
        echo_json(found)
    else:
        click.echo(_card(found))


@command.command("cancel")
@config_option
@click.argument("request_id", metavar="ID")
def cancel(config: Path | None, request_id: str) -> None:
    """End a waiting request; its sender gets the answer `cancelled`. Needs the running daemon. ID as for `show`.

    \b
    Example:
      mqrouter queue cancel 5a1b0c2d3e4f5061
    """
    from mqrouter.edge.store.reading import open_requests_under, show_request

    settings = load_or_exit(config).settings
    with open_database(settings.database) as db:
        known = show_request(db, request_id, int(time.time() * 1000))
        same = open_requests_under(db, request_id)
    if known is None:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if known["id"] != request_id and len(same) > 1:
        choices = ", ".join(f"{row['id']} (device {printable(row['device'])})" for row in same)
        click.echo(f"{len(same)} waiting requests have the id {printable(request_id)}; name one: {choices}", err=True)
        raise SystemExit(Exit.USAGE)
    try:
        status, body = call_daemon(settings.control_socket, "POST", f"/v1/requests/{known['id']}/cancel")
    except DaemonDownError:
        click.echo("mqrouter: the daemon is not running; start it with `mqrouter run`", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from None
    if status == 404:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if body["found"] not in WAITING:
        click.echo(f"nothing to cancel: the request is {body['found']}", err=True)
        raise SystemExit(Exit.FAILED)
    click.echo(f"cancelled {known['id']} of device {printable(known['device'])} (it was {body['found']})")


def _table(rows: list[dict[str, Any]]) -> str:
    headers = ("ID", "STATE", "AGE", "DEVICE", "ROUTE", "TIER", "WAITS FOR", "NEXT TRY", "TRIES", "REASON")
    return format_table(
        headers,
        [
            (
                row["id"],
                row["state"],
                format_age(row["age_s"]),
                row["device"],
                row["route"],
                row["tier"],
                row["waiting_for"],
                format_age(row["next_attempt_in_s"]),
                row["attempts"],
                row["reason"] or row["detail"],
            )
            for row in rows
        ],
    )


def _card(row: dict[str, Any]) -> str:
    lines = [
        f"{row['id']}  {row['state']}  ({format_age(row['age_s'])} old, device {row['device'] or '-'})",
        f"  question: {printable(row['payload'])}",
        f"  answer:   {printable(row['answer']) if row['answer'] else '-'}",
        f"  reply to: {printable(row['reply_topic'] or '-')}, id {row['client_id'] or '-'}, priority {row['priority']}",
    ]
    if row["reason"]:
        lines.append(f"  ended with {row['reason']}: {printable(row['detail'] or '')}")
    if row["decision"]:
        lines += format_decision(row["decision"])
    lines.append("  history:")
    lines += [
        f"    {datetime.fromtimestamp(entry['at_ms'] / 1000):%H:%M:%S.%f}"[:-3]
        + f"  {entry['event']:<10} {printable(entry['note'] or '')}".rstrip()
        for entry in row["history"]
    ]
    return "\n".join(lines)


def format_decision(decision: dict[str, Any]) -> list[str]:
    """Returns a stored or fresh decision as lines for people."""
    route = decision["route"] or f"none (nearest: {decision['best']})"
    lines = [
        f"  route:    {route}, because {decision['reason'].replace('_', ' ')}"
        f" (score {decision['score']:.3f}, threshold {decision['threshold']:.2f}, margin {decision['margin']:.3f},"
        f" strategy {decision['strategy']})",
        f"  tiers:    {' > '.join(decision['tiers']) or 'none'}, when offline: {decision['when_offline']}",
    ]
    lines += [f"  struck:   {struck['tier']}: {struck['reason']}" for struck in decision["struck"]]
    others = [f"{entry['route']} {entry['score']:.3f}" for entry in decision["ranked"]]
    lines.append(f"  ranked:   {', '.join(others)}")
    lines += [
        f"  near:     {entry['similarity']:.3f}  {entry['route']}: {printable(entry['example'])}"
        for entry in decision["nearest"]
    ]
    if decision["is_cut"]:
        tokens = decision["embedded_tokens"]
        lines.append(f"  note:     too long for the embedder; decided on its first {tokens} tokens")
    return lines
