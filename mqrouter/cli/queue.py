"""mqrouter queue: looking at requests, which works the same while the daemon is down, and steering them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mqrouter.cli import steer
from mqrouter.cli.common import Exit, config_option, echo_json, gateway_for_orders
from mqrouter.cli.daemon import open_database, standing_of_daemon
from mqrouter.cli.hold import pause, resume
from mqrouter.cli.listing import Listing, block_of, list_or_exit, say_as_of
from mqrouter.cli.purge import purge
from mqrouter.cli.selection import filter_of, selection_options
from mqrouter.cli.tables import format_age, format_table, printable, printable_block
from mqrouter.cli.transfer import export_command, import_command
from mqrouter.cli.watch import watch

INDENT = " " * 12
WAITING = ("received", "pending", "leased")


@click.group("queue")
def command() -> None:
    """Look at requests and steer them; looking never consumes.

    \b
    Examples:
      mqrouter queue list
      mqrouter queue show 5a1b0c2d3e4f5061
      mqrouter queue retry --error "HTTP 503" --dry-run
    """


for part in (purge, steer.cancel, steer.drop, steer.undo, steer.retry, steer.move, steer.priority, steer.ttl):
    command.add_command(part)
for part in (export_command, import_command, pause, resume):
    command.add_command(part)


@command.command("list")
@config_option
@selection_options
@click.option("--all", "is_all", is_flag=True, help="Also requests that are answered or over.")
@click.option(
    "--sort",
    type=click.Choice(["newest", "oldest", "priority", "expiry", "attempts"]),
    default="newest",
    show_default=True,
    help="The last three list what waits for a decision or a tier: who is served next, expires first, failed most.",
)
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--after", type=click.IntRange(0), metavar="N", help="The next page: where the one before ended.")
@click.option(
    "--watch",
    "every_s",
    is_flag=False,
    flag_value=2.0,
    default=None,
    type=click.FloatRange(0.2, 3600),
    metavar="[SECONDS]",
    help="Look again every 2 seconds, or as many, until Ctrl-C; on a terminal.",
)
@click.option("--json", "is_json", is_flag=True, help="A JSON list on standard output.")
def list_command(
    config: Path | None,
    is_all: bool,
    sort: str,
    limit: int,
    after: int | None,
    every_s: float | None,
    is_json: bool,
    **given: Any,
) -> None:
    """List requests; without --state or --all those that wait for an answer. Exit 3 where there is none.

    REASON is why a request waits right now, or how it ended.

    \b
    Examples:
      mqrouter queue list --state pending --route crop_disease
      mqrouter queue list --all --error "HTTP 503" --newer-than 12h
    """
    wanted = filter_of(given)
    if not is_all:
        wanted.setdefault("state", list(WAITING))
    is_narrowed = is_all or any(value not in (None, ()) for value in given.values())
    nothing = "no such request" if is_narrowed else "nothing waits"
    (gateway, settings), listing = gateway_for_orders(config), Listing(wanted, sort, limit, after)
    if every_s is None:
        list_or_exit(gateway, settings, listing, is_json, nothing)
    elif is_json:
        raise click.UsageError("--watch is for people to look at: leave --json out")
    else:
        watch(lambda: block_of(gateway, settings, listing, nothing), every_s)


@command.command("search")
@config_option
@click.argument("words", metavar="TEXT")
@selection_options
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "is_json", is_flag=True, help="A JSON list on standard output.")
def search(config: Path | None, words: str, limit: int, is_json: bool, **given: Any) -> None:
    """Find requests, waiting or over, by words of their questions; upper and lower case are one (A to Z).

    \b
    Example:
      mqrouter queue search "brown spots" --newer-than 7d
    """
    wanted = filter_of(given)
    if "text" in wanted:
        raise click.UsageError("the words to look for are given already: leave --text out")
    wanted |= {"text": words}
    list_or_exit(*gateway_for_orders(config), Listing(wanted, "newest", limit, None), is_json, "no such request")


@command.command("stats")
@config_option
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def stats_command(config: Path | None, is_json: bool) -> None:
    """Count requests by route and state. Works while the daemon is down. Exit 3 where there are none.

    \b
    Example:
      mqrouter queue stats
    """
    from mqrouter.edge.store.reading import gateway_now, stats
    from mqrouter.edge.system import machine_clocks

    with open_database(gateway_for_orders(config)[0].database) as db:
        found = stats(db, gateway_now(db, machine_clocks()))
    if is_json:
        echo_json(found)
    elif found["routes"]:
        rows = [(entry["route"], entry["state"], entry["requests"]) for entry in found["routes"]]
        click.echo(format_table(("ROUTE", "STATE", "REQUESTS"), rows))
        if found["oldest_waiting_s"] is not None:
            click.echo(f"the oldest without an answer has waited {format_age(found['oldest_waiting_s'])}")
    else:
        click.echo("no requests", err=True)
    raise SystemExit(Exit.OK if found["routes"] else Exit.NOTHING_FOUND)


@command.command("show")
@config_option
@click.argument("request_id", metavar="ID")
@click.option("--text", "with_text", is_flag=True, help="With the question and the answer.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def show(config: Path | None, request_id: str, with_text: bool, is_json: bool) -> None:
    """Show one request: its decision and why, every attempt, its properties. ID is mqrouter's or the requester's own.

    What was asked and answered is shown with --text only: somebody may look over your shoulder.

    \b
    Example:
      mqrouter queue show 5a1b0c2d3e4f5061
    """
    from mqrouter.core.waiting import explained
    from mqrouter.edge.store.reading import gateway_now, last_known, masked, show_request
    from mqrouter.edge.system import machine_clocks

    gateway, _ = gateway_for_orders(config)
    standing = standing_of_daemon(gateway.control_socket)
    with open_database(gateway.database) as db:
        now = gateway_now(db, machine_clocks())
        found = show_request(db, request_id, now)
        standing = standing or last_known(db, now)
    if found is None:
        click.echo(f"mqrouter: no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    found = explained(found if with_text else masked(found), standing)
    if is_json:
        echo_json(found)
    else:
        click.echo(format_card(found))
        say_as_of(standing, [found])


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

    with open_database(gateway_for_orders(config)[0].database) as db:
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


def _time_of(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000)


def format_card(row: dict[str, Any]) -> str:
    """Returns everything about one request, for people."""
    device, client_id = printable(row["device"] or "-"), printable(row["client_id"] or "-")
    lines = [
        f"{row['id']}  {row['state']}  ({format_age(row['age_s'])} old, device {device})",
        f"  question: {_text(row, 'payload')}",
        f"  answer:   {_text(row, 'answer')}",
        f"  came on:  {printable(row['topic'] or '-')}, {row['bytes']} bytes, {printable(row['content_type'] or '-')}",
        f"  reply to: {printable(row['reply_topic'] or '-')}, id {client_id}, correlation {row['correlation'] or '-'}",
        f"  wants:    priority {row['priority']}, session {printable(row['session'] or '-')},"
        f" expires in {format_age(row['expires_in_s']) or '-'}",
    ]
    if row["waits_because"]:
        before = f"; {row['waiting_before']} before it" if row["waiting_before"] else ""
        lines.append(f"  waits:    {printable(row['waits_because'])}{before}")
    if row["reason"]:
        lines.append(f"  ended with {row['reason']}: {printable(row['detail'] or '')}")
    if row["decision"]:
        lines += format_decision(row["decision"])
    lines += [f"  verdict:  {_verdict(entry)}" for entry in row["verdicts"]]
    lines.append("  history:")
    lines += [
        f"    {_time_of(entry['at_ms']):%H:%M:%S.%f}"[:-3]
        + f"  {entry['event']:<10} {printable(_note(entry))}".rstrip()
        for entry in row["history"]
    ]
    return "\n".join(lines)


def _text(row: dict[str, Any], name: str) -> str:
    if row[name] is not None:
        return printable_block(row[name], INDENT)
    chars = row.get(f"{name}_chars")  # there where it is masked
    return "-" if chars is None else f"{chars} characters (--text shows them)"


def _verdict(entry: dict[str, Any]) -> str:
    right = f", right is {entry['right_route']}" if entry["right_route"] else ""
    note = f": {printable(entry['note'])}" if entry["note"] else ""
    return f"{entry['verdict'].replace('_', ' ')}{right}, by {entry['source']}{note}"


def _note(entry: dict[str, Any]) -> str:
    from mqrouter.core.answer_signals import describe, parse_judged

    return describe(parse_judged(entry["note"])) if entry["event"] == "judged" else entry["note"] or ""


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
    lines += [
        f"  busy:     {busy['tier']}: {busy['wait_s']:g} s of waiting expected, limit {busy['limit_s']:g} s: goes last"
        for busy in decision.get("too_busy", ())
    ]
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
