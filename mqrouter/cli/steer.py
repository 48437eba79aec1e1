"""The commands that change requests: one by its id, or several by what is true of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from mqrouter.cli.common import Exit, config_option, confirm, echo_json, gateway_for_orders
from mqrouter.cli.daemon import open_database, order_daemon, reason_of
from mqrouter.cli.selection import ABOUT_ERRORS, age, filter_of, selection_options
from mqrouter.cli.tables import printable

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
DONE = {
    "retry": "due now",
    "cancel": "cancelled",
    "move": "moved",
    "priority": "given that priority",
    "ttl": "given that time",
    "drop": "dropped",
    "undo": "back in the queue",
}


def bulk_options(command: CommandT) -> CommandT:
    """Gives the command IDs, a filter, and what keeps several requests from being changed by mistake."""
    for option in (
        click.option("--json", "is_json", is_flag=True, help="What became of each, as JSON on standard output."),
        click.option("--yes", "is_sure", is_flag=True, help="Do not ask."),
        click.option("--dry-run", "is_dry", is_flag=True, help="Say what would change, and change nothing."),
        click.option("--all", "is_all", is_flag=True, help="Really all requests that this applies to."),
    ):
        command = option(command)
    return config_option(selection_options(click.argument("ids", metavar="[ID]...", nargs=-1)(command)))


@click.command("cancel")
@bulk_options
@click.option("--message", metavar="TEXT", help="Told to who asked.")
def cancel(message: str | None, **given: Any) -> None:
    """End waiting requests; who asked gets the answer `cancelled`. Needs the running daemon. ID as for `show`.

    \b
    Examples:
      mqrouter queue cancel 5a1b0c2d3e4f5061
      mqrouter queue cancel --device trough-3 --older-than 12h --dry-run
    """
    _steer("cancel", {} if message is None else {"message": message}, **given)


@click.command("drop")
@bulk_options
def drop(**given: Any) -> None:
    """Take waiting requests out of the queue; `undo` brings them back. Needs the running daemon. ID as for `show`.

    Nothing is asked for them from now on, they count for no limit, and `list --state dropped` has them. Who asked hears
    nothing yet: after `queue.undo_s` (24 hours) the answer is `cancelled`, or `expired` where their own time is over
    sooner. `cancel` says so at once, and cannot be undone.

    \b
    Examples:
      mqrouter queue drop 5a1b0c2d3e4f5061
      mqrouter queue drop --device trough-3 --dry-run
    """
    _steer("drop", {}, **given)


@click.command("undo")
@bulk_options
def undo(**given: Any) -> None:
    """Bring dropped requests back to their old place in the queue, decision and all. Needs the running daemon.

    \b
    Examples:
      mqrouter queue undo 5a1b0c2d3e4f5061
      mqrouter queue undo --all
    """
    _steer("undo", {}, **given)


@click.command("retry")
@bulk_options
def retry(**given: Any) -> None:
    """Try pending requests again at once, with all their tiers. Needs the running daemon. ID as for `show`.

    Tiers that are down are looked at anew at once, too.

    \b
    Examples:
      mqrouter queue retry 5a1b0c2d3e4f5061
      mqrouter queue retry --error "HTTP 503" --yes
    """
    _steer("retry", {}, **given)


@click.command("move")
@bulk_options
@click.option("--to", "tier", metavar="TIER", required=True, help="The one tier they wait for from now on.")
def move(tier: str, **given: Any) -> None:
    """Let pending requests wait for another tier, and no other. Private ones stay where that tier is not trusted.

    \b
    Example:
      mqrouter queue move --tier hub --route crop_disease --to regional
    """
    _steer("move", {"tier": tier}, **given)


@click.command("priority")
@bulk_options
@click.option("--to", "priority", metavar="0-9", required=True, type=click.IntRange(0, 9), help="Higher goes first.")
def priority(priority: int, **given: Any) -> None:
    """Give waiting requests another priority.

    \b
    Example:
      mqrouter queue priority 5a1b0c2d3e4f5061 --to 9
    """
    _steer("priority", {"priority": priority}, **given)


@click.command("ttl")
@bulk_options
@click.option("--to", "ttl_s", metavar="TIME", required=True, type=age, help="From now on, as 6h.")
def ttl(ttl_s: float, **given: Any) -> None:
    """Let requests that are not answered yet expire at another time: so long after now.

    \b
    Example:
      mqrouter queue ttl --route crop_disease --to 2d
    """
    _steer("ttl", {"ttl_s": ttl_s}, **given)


def _steer(
    verb: str,
    arguments: Mapping[str, Any],
    *,
    config: Path | None,
    ids: tuple[str, ...],
    is_all: bool,
    is_dry: bool,
    is_sure: bool,
    is_json: bool,
    **given: Any,
) -> None:
    """Carries the verb out; ends the process with exit 3 where nothing matched, and 1 where nothing changed."""
    wanted = filter_of(given)
    if bool(ids) + bool(wanted) + is_all != 1:
        raise click.UsageError("say which requests: IDs, or options like --route and --older-than, or --all")
    gateway, _ = gateway_for_orders(config)
    which = {"ids": [_find_one(gateway.database, name)["id"] for name in ids]} if ids else {"all": is_all}
    body = {**which, **({"filter": wanted} if wanted else {}), **arguments}
    if not ids and not is_sure and not is_dry:
        _, total = _count(_carry_out(gateway.control_socket, verb, body | {"dry_run": True}))
        if total:
            confirm(f"{verb} {total} requests?")
        is_dry = not total  # nobody was asked, so nothing that comes in meanwhile is changed either
    done = list(_carry_out(gateway.control_socket, verb, body | {"dry_run": is_dry}))
    if is_json:
        echo_json([outcome for report in done for outcome in report["outcomes"]])
    else:
        _say(verb, done, names=ids, is_dry=is_dry)
    matched, changed = _count(done)
    if not matched and "error" in wanted:
        click.echo(ABOUT_ERRORS, err=True)
    raise SystemExit(Exit.OK if changed else Exit.FAILED if matched else Exit.NOTHING_FOUND)


def _carry_out(control_socket: Path, verb: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what the daemon reports, one step after the other, until all are done."""
    after: int | None = None
    while True:
        status, report = order_daemon(control_socket, f"/v1/bulk/{verb}", {**body, "after": after})
        if status != 200:
            click.echo(f"mqrouter: the daemon could not do that: {reason_of(report)}", err=True)
            raise SystemExit(Exit.USAGE if status in (400, 404) else Exit.FAILED)
        yield report
        if (after := report["next"]) is None:
            return


def _count(reports: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> tuple[int, int]:
    """Returns how many requests matched, and how many of them change."""
    found = [(report["matched"], report["changed"]) for report in reports]
    return sum(matched for matched, _ in found), sum(changed for _, changed in found)


def _say(verb: str, reports: list[dict[str, Any]], *, names: tuple[str, ...], is_dry: bool) -> None:
    matched, changed = _count(reports)
    if names:
        for outcome in (outcome for report in reports for outcome in report["outcomes"]):
            if outcome["is_changed"]:
                done = f"would be {DONE[verb]}" if is_dry else f"is {DONE[verb]}"
                click.echo(f"{outcome['id']} {done} (it was {outcome['found']})")
            else:
                click.echo(f"nothing to {verb}: {outcome['id']}: {outcome['why_not']}", err=True)
    elif not matched:
        click.echo("no such request", err=True)
    else:
        left = f"; {matched - changed} stay as they are" if matched > changed else ""
        click.echo(f"{changed} {'would be' if is_dry else 'are'} {DONE[verb]}{left}")
    if verb == "drop" and changed and not is_dry:
        click.echo("`mqrouter queue undo` brings back what was dropped", err=True)


def _find_one(database: Path, request_id: str) -> dict[str, Any]:
    from mqrouter.edge.store.reading import gateway_now, open_requests_under, show_request
    from mqrouter.edge.system import machine_clocks

    with open_database(database) as db:
        known = show_request(db, request_id, gateway_now(db, machine_clocks()))
        same = open_requests_under(db, request_id)
    if known is None:
        click.echo(f"mqrouter: no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if known["id"] != request_id and len(same) > 1:
        choices = ", ".join(f"{row['id']} (device {printable(row['device'])})" for row in same)
        click.echo(f"{len(same)} waiting requests have the id {printable(request_id)}; name one: {choices}", err=True)
        raise SystemExit(Exit.USAGE)
    return known
