"""mqrouter queue pause and resume: tiers and routes that are held back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from mqrouter.cli.common import Exit, config_option, gateway_for_orders
from mqrouter.cli.daemon import order_daemon, reason_of, status_or_exit

if TYPE_CHECKING:
    from mqrouter.settings import Gateway, Settings


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
    gateway, _ = _gateway(config, tiers)
    for target in [_target(*name, "pause") for name in _named(tiers, routes)] or ["/v1/pause"]:
        body = _order(gateway, target)
        for name in (*body["tiers"], *(f"route {route}" for route in body["routes"])):
            click.echo(f"paused {name}")


@click.command("resume")
@config_option
@click.argument("tiers", metavar="[TIER]...", nargs=-1)
@click.option("--route", "routes", multiple=True, metavar="ROUTE", help="Let this route go on; may be repeated.")
def resume(config: Path | None, tiers: tuple[str, ...], routes: tuple[str, ...]) -> None:
    """Let paused tiers and routes work again; without names all that are paused. What was not paused is said.

    \b
    Examples:
      mqrouter queue resume
      mqrouter queue resume --route crop_disease
    """
    gateway, settings = _gateway(config, tiers)
    status = status_or_exit(gateway.control_socket)
    held = _named((name for name, tier in status["tiers"].items() if tier["paused_by"]), status["paused_routes"])
    known = [] if settings is None else _named(settings.tiers, settings.routes)
    for kind, name in _named(tiers, routes) or held:
        is_held, shown = (kind, name) in held, name if kind == "tiers" else f"route {name}"
        if is_held or (kind, name) not in known:  # of a name that is nobody's the daemon says what there is
            _order(gateway, _target(kind, name, "resume"))
        click.echo(f"resumed {shown}" if is_held else f"{shown} was not paused", err=not is_held)
    if not (tiers or routes or held):
        click.echo("nothing was paused", err=True)


def _gateway(config: Path | None, tiers: Collection[str]) -> tuple[Gateway, Settings | None]:
    gateway, settings = gateway_for_orders(config)
    if settings is not None and (unknown := set(tiers) - settings.tiers.keys()):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; tiers are {', '.join(settings.tiers)}")
    return gateway, settings


def _named(tiers: Iterable[str], routes: Iterable[str]) -> list[tuple[str, str]]:
    return [*(("tiers", tier) for tier in tiers), *(("routes", route) for route in routes)]


def _target(kind: str, name: str, verb: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}/{verb}"


def _order(gateway: Gateway, target: str) -> dict[str, Any]:
    status, body = order_daemon(gateway.control_socket, target)
    if status != 200:
        click.echo(f"mqrouter: {reason_of(body)}", err=True)
        raise SystemExit(Exit.USAGE if status == 404 else Exit.FAILED)
    return body
