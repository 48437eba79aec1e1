"""The command line: every verb in a module of its own, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NoReturn

import click

from mqrouter import __version__
from mqrouter.cli.common import Exit

COMMANDS = {
    "run": "Run the daemon.",
    "ask": "Ask a question through the broker.",
    "status": "Show how the daemon is doing.",
    "top": "Watch broker, queue and tiers in a terminal, and steer them.",
    "metrics": "Print the daemon's metrics for Prometheus.",
    "queue": "Look at requests: pending, answered, failed.",
    "db": "Check, back up, shrink or salvage the database.",
    "route": "Explain where a question would go, and why.",
    "eval": "Measure decisions on labelled files.",
    "bench": "Measure latency, tokens, cost and quality over configurations.",
    "feedback": "Say whether an answer was good, for training.",
    "train": "Learn the routes from their examples.",
    "tune": "Show what each route's threshold keeps, and which examples hurt.",
    "init": "Write a commented example configuration.",
    "check": "Check the configuration: no network, no side effects.",
    "config": "Show the effective configuration, or its schema.",
    "models": "List, fetch, verify and remove model files.",
}


class Commands(click.Group):
    """Knows the names and one-line helps of all commands without importing any; tells click's errors as our own."""

    def main(self, *arguments: Any, **more: Any) -> NoReturn:
        try:
            code = super().main(*arguments, **more | {"standalone_mode": False})
        except click.Abort:
            click.echo("mqrouter: aborted", err=True)
            raise SystemExit(Exit.FAILED) from None
        except click.ClickException as error:
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(f"{error.ctx.get_usage()}\nTry `{error.ctx.command_path} --help`.", err=True)
            click.echo(f"mqrouter: {error.format_message()}", err=True)
            raise SystemExit(error.exit_code) from None
        raise SystemExit(code if isinstance(code, int) else Exit.OK)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"mqrouter.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mqrouter")
def cli() -> None:
    """Routes questions from MQTT to the right model, and never loses one.

    \b
    Example:
      mqrouter init && mqrouter models pull && mqrouter check && mqrouter run

    Shell completion: eval "$(_MQROUTER_COMPLETE=bash_source mqrouter)" (also zsh_source, fish_source).
    """


def main(*args: Any) -> None:
    cli(*args, prog_name="mqrouter")
