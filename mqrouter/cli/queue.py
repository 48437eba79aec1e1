"""mqrouter queue: looking at requests, which works the same while the daemon is down, and steering them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.daemon import DaemonDownError, call_daemon, open_database
from mqrouter.cli.purge import purge
from mqrouter.cli.tables import format_age, format_table, printable, printable_block

INDENT = " " * 12
WAITING = ("received", "pending", "leased")


@click.group("queue")
def command() -> None:
    """Look at requests and steer them; looking never consumes."""


command.add_command(purge)


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
    from mqrouter.edge.store.reading import gateway_now, list_requests
    from mqrouter.edge.system import machine_clocks

    unknown = set(states) - set(State)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; states are {', '.join(State)}", param_hint="--state")
    settings = load_or_exit(config).settings
    wanted = states or (() if is_all else WAITING)
    with open_database(settings.database) as db:
        page = list_requests(
            db, states=wanted, route=route, device=device, limit=limit, now=gateway_now(db, machine_clocks())
        )
    found = page.rows
    if page.is_cut_short:
        click.echo("there may be more, further back: name a --state as well", err=True)
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
    from mqrouter.edge.store.reading import gateway_now, show_request
    from mqrouter.edge.system import machine_clocks

    settings = load_or_exit(config).settings
    with open_database(settings.database) as db:
        found = show_request(db, request_id, gateway_now(db, machine_clocks()))
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
    known, found = _steer_request(config, request_id, "cancel")
    if found not in WAITING:
        click.echo(f"nothing to cancel: the request is {found}", err=True)
        raise SystemExit(Exit.FAILED)
    click.echo(f"cancelled {known['id']} of device {printable(known['device'])} (it was {found})")


@command.command("retry")
@config_option
@click.argument("request_id", metavar="ID")
def retry(config: Path | None, request_id: str) -> None:
    """Try a pending request again at once, with all its tiers. Needs the running daemon. ID as for `show`.

    \b
    Example:
      mqrouter queue retry 5a1b0c2d3e4f5061
    """
    known, found = _steer_request(config, request_id, "retry")
    if found != "pending":
        click.echo(f"nothing to retry: the request is {found}", err=True)
        raise SystemExit(Exit.FAILED)
    click.echo(f"{known['id']} of device {printable(known['device'])} is due now")


@command.command("pause")
@config_option
@click.argument("tiers", metavar="[TIER]...", nargs=-1)
def pause(config: Path | None, tiers: tuple[str, ...]) -> None:
    """Hold tiers back (without names: all of them) until `resume`, also across restarts. What is under way may end.

    A paused tier is as good as down: other tiers of a route take its questions, or they wait; where a route may not
    wait (`reject`, `answer_locally`) and no other tier is up, they end with an error at once.

    \b
    Example:
      mqrouter queue pause hub
    """
    _steer_tiers(config, tiers, "pause", "paused")


@command.command("resume")
@config_option
@click.argument("tiers", metavar="[TIER]...", nargs=-1)
def resume(config: Path | None, tiers: tuple[str, ...]) -> None:
    """Let paused tiers (without names: all of them) work again.

    \b
    Example:
      mqrouter queue resume
    """
    _steer_tiers(config, tiers, "resume", "resumed")


@command.command("actions")
@config_option
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "is_json", is_flag=True, help="A JSON list on standard output.")
def actions(config: Path | None, limit: int, is_json: bool) -> None:
    """List what operators did, newest first. Exit 3 where there is nothing.

    \b
    Example:
      mqrouter queue actions -n 10
    """
    from mqrouter.edge.store.reading import gateway_now, list_actions
    from mqrouter.edge.system import machine_clocks

    with open_database(load_or_exit(config).settings.database) as db:
        found = list_actions(db, limit, gateway_now(db, machine_clocks()))
    if is_json:
        echo_json(found)
    elif found:
        rows = [
            (f"{_time_of(row['at_ms']):%Y-%m-%d %H:%M:%S}", row["actor"], row["action"], row["target"]) for row in found
        ]
        click.echo(format_table(("TIME", "WHO", "DID", "TO"), rows))
    else:
        click.echo("nobody did anything yet", err=True)
    raise SystemExit(Exit.OK if found else Exit.NOTHING_FOUND)


def _steer_request(config: Path | None, request_id: str, verb: str) -> tuple[dict[str, Any], str]:
    """Asks the daemon; returns the request and the state it was found in. Ends the process where there is none."""
    settings = load_or_exit(config).settings
    known = _find_one(settings.database, request_id)
    status, body = _ask(settings.control_socket, f"/v1/requests/{known['id']}/{verb}")
    if status == 404:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if status != 200:
        click.echo(f"mqrouter: the daemon could not do that: {body['error']}", err=True)
        raise SystemExit(Exit.FAILED)
    return known, body["found"]


def _find_one(database: Path, request_id: str) -> dict[str, Any]:
    from mqrouter.edge.store.reading import gateway_now, open_requests_under, show_request
    from mqrouter.edge.system import machine_clocks

    with open_database(database) as db:
        known = show_request(db, request_id, gateway_now(db, machine_clocks()))
        same = open_requests_under(db, request_id)
    if known is None:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if known["id"] != request_id and len(same) > 1:
        choices = ", ".join(f"{row['id']} (device {printable(row['device'])})" for row in same)
        click.echo(f"{len(same)} waiting requests have the id {printable(request_id)}; name one: {choices}", err=True)
        raise SystemExit(Exit.USAGE)
    return known


def _steer_tiers(config: Path | None, tiers: tuple[str, ...], verb: str, done: str) -> None:
    settings = load_or_exit(config).settings
    unknown = set(tiers) - settings.tiers.keys()
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; tiers are {', '.join(settings.tiers)}")
    for tier in tiers or settings.tiers:
        status, body = _ask(settings.control_socket, f"/v1/tiers/{tier}/{verb}")
        if status != 200:
            hint = "; restart the daemon where it is new" if status == 404 else ""
            click.echo(f"mqrouter: {tier}: {body['error']}{hint}", err=True)
            raise SystemExit(Exit.FAILED)
        click.echo(f"{done} {tier}")


def _ask(control_socket: Path, target: str) -> tuple[int, dict[str, Any]]:
    try:
        return call_daemon(control_socket, "POST", target)
    except DaemonDownError:
        click.echo("mqrouter: the daemon is not running; start it with `mqrouter run`", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from None


def _time_of(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000)


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
    device, client_id = printable(row["device"] or "-"), printable(row["client_id"] or "-")
    lines = [
        f"{row['id']}  {row['state']}  ({format_age(row['age_s'])} old, device {device})",
        f"  question: {printable_block(row['payload'], INDENT)}",
        f"  answer:   {printable_block(row['answer'], INDENT) if row['answer'] else '-'}",
        f"  reply to: {printable(row['reply_topic'] or '-')}, id {client_id}, priority {row['priority']}",
    ]
    if row["reason"]:
        lines.append(f"  ended with {row['reason']}: {printable(row['detail'] or '')}")
    if row["decision"]:
        lines += format_decision(row["decision"])
    lines += [f"  verdict:  {_verdict(entry)}" for entry in row["verdicts"]]
    lines.append("  history:")
    lines += [
        f"    {_time_of(entry['at_ms']):%H:%M:%S.%f}"[:-3]
        + f"  {entry['event']:<10} {printable(entry['note'] or '')}".rstrip()
        for entry in row["history"]
    ]
    return "\n".join(lines)


def _verdict(entry: dict[str, Any]) -> str:
    right = f", right is {entry['right_route']}" if entry["right_route"] else ""
    note = f": {printable(entry['note'])}" if entry["note"] else ""
    return f"{entry['verdict'].replace('_', ' ')}{right}, by {entry['source']}{note}"


def _inherited(decision: dict[str, Any]) -> list[str]:
    request = decision.get("inherited_from")  # rows of earlier versions say nothing of it
    return [] if request is None else [f"  session:  keeps the route of request {request}"]


def _until(struck: dict[str, Any]) -> str:
    until_ms = struck.get("until_ms")  # rows of earlier versions do not have it
    return "" if until_ms is None else f"; for now, until {_time_of(until_ms):%Y-%m-%d %H:%M:%S}"


def format_decision(decision: dict[str, Any]) -> list[str]:
    """Returns a stored or fresh decision as lines for people."""
    route = decision["route"] or f"none (nearest: {decision['best']})"
    lines = [
        f"  route:    {route}, because {decision['reason'].replace('_', ' ')}"
        f" (score {decision['score']:.3f}, threshold {decision['threshold']:.2f}, margin {decision['margin']:.3f},"
        f" strategy {decision['strategy']})",
        *_inherited(decision),
        f"  tiers:    {' > '.join(decision['tiers']) or 'none'}, when offline: {decision['when_offline']}",
    ]
    if gain := decision.get("gain"):
        order = "the weak tiers first" if gain["is_weak_first"] else "as configured"
        why = ", as before in this session" if gain["is_sessions"] else ""
        lines.append(f"  gain:     {gain['expected']:+.3f} expected, least {gain['least']:+.3f}: {order}{why}")
    from mqrouter.core.privacy import private_by

    if names := decision.get("private_by"):  # rows of earlier versions say nothing of it
        lines.append(f"  private:  {private_by(names).reason}")
    lines += [f"  struck:   {struck['tier']}: {struck['reason']}{_until(struck)}" for struck in decision["struck"]]
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
