"""mqrouter top: the gateway at a glance, in a terminal, over a slow link."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from mqrouter.cli.common import Exit, FiniteRange, config_option, echo_json, gateway_or_exit, load_or_exit

if TYPE_CHECKING:
    from mqrouter.cli.top.source import Source

REMEDY = "pip install 'mqrouter[top]'"
DEFAULT_INTERVAL_S = 2.0
ONCE_ROWS = 20
FoundT = TypeVar("FoundT")


@click.command("top")
@config_option
@click.option("--once", "is_once", is_flag=True, help="Print what there is to see, and end. Needs no extra.")
@click.option("--json", "is_json", is_flag=True, help="With --once: JSON on standard output.")
@click.option("--read-only", "is_read_only", is_flag=True, help="Offer no key that changes anything.")
@click.option(
    "--interval",
    "interval_s",
    type=FiniteRange(min=0.2, max=3600),
    default=DEFAULT_INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
def command(config: Path | None, is_once: bool, is_json: bool, is_read_only: bool, interval_s: float) -> None:
    """Watch broker, queue and tiers, and steer them by keys; F1 shows which.

    While the daemon is down its database is read. The terminal is written to only where something has changed.
    With --once: exit 69 where the daemon is down.

    \b
    Examples:
      mqrouter top
      mqrouter top --read-only --interval 10
      mqrouter top --once --json
    """
    if is_json and not is_once:
        raise click.UsageError("--json goes with --once")
    if is_once:
        _once(_source(config, is_read_only=True), is_json=is_json)
    if find_spec("textual") is None:
        click.echo(f"mqrouter: this view needs textual: {REMEDY} (`mqrouter top --once` does without)", err=True)
        raise SystemExit(Exit.FAILED)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("this needs a terminal; `mqrouter top --once` does without")
    source = _source(config, is_read_only=is_read_only)
    _looked(source.overview)  # what waiting would not mend is said before the screen is taken
    from mqrouter.cli.top.app import Top

    Top(source, interval_s).run()


def _source(config: Path | None, *, is_read_only: bool) -> Source:
    from mqrouter.cli.top.source import Source

    gateway, problems = gateway_or_exit(config)
    log_file = None if problems else load_or_exit(config).settings.log.file
    return Source(gateway, log_file=log_file, is_read_only=is_read_only)


def _once(source: Source, *, is_json: bool) -> None:
    """Prints one look, and ends the process."""
    from mqrouter.cli.top.snapshot import as_json, as_text
    from mqrouter.cli.top.source import Page

    overview = _looked(source.overview)
    page = Page([], None) if overview.trouble else _looked(lambda: source.page({}, limit=ONCE_ROWS))
    if is_json:
        echo_json(as_json(overview, page))
    else:
        click.echo(as_text(overview, page))
    raise SystemExit(Exit.OK if overview.is_running else Exit.UNAVAILABLE)


def _looked(look: Callable[[], FoundT]) -> FoundT:
    """Returns what was found; ends the process with a message where nobody may look, or nobody answers."""
    from mqrouter.cli.top.source import RefusedError

    try:
        return look()
    except RefusedError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(error.code) from error
