"""A look repeated: the same block of text, drawn over the one before."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import datetime

import click


def watch(look: Callable[[], str], every_s: float) -> None:
    """Draws what `look` returns in place, again and again; returns at Ctrl-C."""
    if not sys.stdout.isatty():
        raise click.UsageError("--watch draws on a terminal, and this is none: leave it out, or repeat the command")
    from rich.live import Live
    from rich.text import Text

    pause = threading.Event()  # never set: it waits, and Ctrl-C ends that
    try:
        with Live(screen=True, auto_refresh=False) as live:
            while True:
                head = f"{datetime.now():%H:%M:%S}, every {every_s:g} s; Ctrl-C ends it"
                live.update(Text(f"{head}\n\n{look()}", no_wrap=True, overflow="ellipsis"), refresh=True)
                pause.wait(every_s)
    except KeyboardInterrupt:
        return
