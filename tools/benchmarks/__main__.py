"""The command line of tools/bench."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module

import click
import structlog
from chromium import PROGRAM

from benchmarks.report import Figure, JsonList, Table

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the daemon does, before numpy loads
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode: no start compiles it again

NAMES = ("accept", "decide", "roundtrip", "upstream", "startup", "memory", "queue", "scrape", "drain", "api", "pages")


@click.command("bench")
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--json", "is_json", is_flag=True, help="A JSON list on standard output.")
@click.option("--peer", metavar="PYTHON", help="An interpreter with litellm[semantic-router], for `decide`.")
@click.option("--quick", is_flag=True, help="A tenth of the work: to see that it runs, not to quote.")
def main(names: tuple[str, ...], is_json: bool, peer: str | None, quick: bool) -> None:
    """Measure mqrouter on this machine; without NAMES all of them.

    \b
    Example:
      tools/bench accept decide --json
    """
    if "pages" in (names or NAMES) and shutil.which(PROGRAM) is None:
        raise click.UsageError("pages needs a browser: apt-get install chromium, or name the others")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it started ends with it
    # What runs in this process logs as a daemon does, not every step of it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    shown: JsonList | Table = JsonList() if is_json else Table()
    with shown as report:
        for name in names or NAMES:
            measure: Callable[..., list[Figure]] = import_module(f"benchmarks.{name}").measure
            if sys.stderr.isatty():
                click.echo(f"{name} …", err=True)
            report.add(measure(share=0.1 if quick else 1.0, **({"peer": peer} if name == "decide" else {})))


main()
