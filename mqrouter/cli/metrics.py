"""mqrouter metrics."""

from __future__ import annotations

from pathlib import Path

import click

from mqrouter.cli.common import Exit, config_option, gateway_for_orders
from mqrouter.cli.daemon import DaemonDownError, ask_daemon

OK = 200


@click.command("metrics")
@config_option
def command(config: Path | None) -> None:
    """Print the daemon's metrics in Prometheus' text format. Exit 69 where the daemon is down: nothing is printed.

    A file of them is what node_exporter's textfile collector takes.

    \b
    Example:
      mqrouter metrics > mqrouter.prom.new && mv mqrouter.prom.new mqrouter.prom
    """
    socket_path = gateway_for_orders(config)[0].control_socket
    try:
        status, body = ask_daemon(socket_path, "GET", "/metrics")
    except DaemonDownError:
        click.echo("mqrouter: the daemon is not running; start it with `mqrouter run`", err=True)
        raise SystemExit(Exit.UNAVAILABLE) from None
    if status != OK:
        click.echo(f"mqrouter: the daemon answered {status}: its log says why", err=True)
        raise SystemExit(Exit.FAILED)
    click.echo(body, nl=False)
