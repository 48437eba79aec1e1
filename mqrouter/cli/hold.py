"""mqrouter queue pause and resume: tiers and routes that are held back."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from mqrouter.cli.common import Exit, config_option, gateway_for_orders
from mqrouter.cli.daemon import order_daemon, reason_of


@click.command("pause")
@config_option
@click.argument("tiers", metavar="[TIER]...", nargs=-1)
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="Hold this route back; may be repeated.")
def pause(config: Path | None, tiers: tuple[str, ...], routes: tuple[str, ...]) -> None:
    """Hold tiers back (without names: all of them) until `resume`, also across restarts. What is under way may end.

    A paused tier is as good as down: other tiers of a route take its questions, or they wait; where a route may not
    wait (`reject`, `answer_locally`) and no other tier is up, they end with an error at once.

    The questions of a paused route wait, whatever its `when_offline`: nobody is asked for them, this device neither.
    They still expire.

    \b
    Examples:
      mqrouter queue pause hub
      mqrouter queue pause --route crop_disease
    """
    _steer_tiers(config, tiers, routes, "pause", "paused")


@click.command("resume")
@config_option
@click.argument("tiers", metavar="[TIER]...", nargs=-1)
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="Let this route go on; may be repeated.")
def resume(config: Path | None, tiers: tuple[str, ...], routes: tuple[str, ...]) -> None:
    """Let paused tiers and routes work again; without names all of them.

    \b
    Examples:
      mqrouter queue resume
      mqrouter queue resume --route crop_disease
    """
    _steer_tiers(config, tiers, routes, "resume", "resumed")


def _steer_tiers(config: Path | None, tiers: tuple[str, ...], routes: tuple[str, ...], verb: str, done: str) -> None:
    gateway, settings = gateway_for_orders(config)
    if settings is not None and (unknown := set(tiers) - settings.tiers.keys()):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; tiers are {', '.join(settings.tiers)}")
    targets = [f"/v1/tiers/{quote(tier, safe='')}/{verb}" for tier in tiers]
    targets += [f"/v1/routes/{quote(route, safe='')}/{verb}" for route in routes]
    for target in targets or [f"/v1/{verb}"]:
        status, body = order_daemon(gateway.control_socket, target)
        if status != 200:
            click.echo(f"mqrouter: {reason_of(body)}", err=True)
            raise SystemExit(Exit.USAGE if status == 404 else Exit.FAILED)
        for name in (*body["tiers"], *(f"route {route}" for route in body["routes"])):
            click.echo(f"{done} {name}")
