"""`mqrouter feedback`: an operator's verdict on an answer."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import click

from mqrouter.cli.common import Exit, config_option, echo_json, load_or_exit
from mqrouter.cli.daemon import DaemonDownError, call_daemon, reason_of
from mqrouter.cli.tables import printable


@click.command("feedback")
@config_option
@click.argument("request_id", metavar="ID")
@click.argument("verdict", type=click.Choice(["good", "bad", "wrong_route"]))
@click.option("--route", metavar="NAME", help="With wrong_route: the right one.")
@click.option("--note", metavar="TEXT", help="Why, for people.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
def command(
    config: Path | None, request_id: str, verdict: str, route: str | None, note: str | None, is_json: bool
) -> None:
    """Say whether an answer was good; `mqrouter train --from-feedback` learns from it. Needs the running daemon.

    ID is mqrouter's or the requester's own, then its latest. A later verdict replaces an earlier one. A request that
    ended without an answer has only its route to judge.

    \b
    Examples:
      mqrouter feedback 5a1b0c2d3e4f5061 good
      mqrouter feedback 5a1b0c2d3e4f5061 wrong_route --route irrigation
    """
    settings = load_or_exit(config).settings
    if route is not None and verdict != "wrong_route":
        raise click.BadParameter("a route goes with the verdict wrong_route", param_hint="--route")
    words = {"id": request_id, "verdict": verdict, "route": route, "note": note}
    query = urlencode({name: word for name, word in words.items() if word is not None})
    try:
        status, found = call_daemon(settings.control_socket, "POST", f"/v1/orders/feedback?{query}")
    except DaemonDownError as error:
        click.echo("mqrouter: the daemon is not running", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from error
    if status != 200:
        click.echo(f"mqrouter: {reason_of(found)}", err=True)
        raise SystemExit(Exit.FAILED)
    if found["request"] is None:
        click.echo(f"no request {printable(request_id)}", err=True)
        raise SystemExit(Exit.NOTHING_FOUND)
    if is_json:
        echo_json(found)
        return
    click.echo(f"noted: {found['request']} was {verdict}{f', {route} is right' if route else ''}")
    if verdict == "wrong_route" and route is None:
        click.echo("nothing is learnt from it: name the right one with --route", err=True)
