"""What people read, and what programs read: never on the same stream."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from demo_parts.outcome import Outcome

WIDTH_OFF_TERMINAL = 120
TEXT_COLUMN = 10  # right of the seconds of a step
INTRODUCTION = """\
mqrouter demo: a gateway, a hub, a device, and three questions over real MQTT.
Both the gateway and the hub run SmolLM2-135M-Instruct here, because it is small enough to fetch from the package \
index. It is often wrong. What to look at is not what it says, but the way that each question takes."""


class Report:
    """The story on standard output; with `is_json` on standard error, and the outcomes on standard output."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        stream = sys.stderr if is_json else sys.stdout
        self._console = Console(
            file=stream, width=None if stream.isatty() else WIDTH_OFF_TERMINAL, highlight=False, markup=False
        )
        self.doing = "starting"
        """The step under way, or the last one: what a failure is blamed on."""

    def introduction(self) -> None:
        self._console.print(INTRODUCTION)

    def part(self, title: str) -> None:
        self._console.print()
        self._console.print(title, style="bold")

    @contextmanager
    def step(self, what: str, *, has_own_output: bool = False) -> Iterator[None]:
        """Says at its end how long it took; until then a spinner turns, on a terminal."""
        self.doing = what
        started_s = time.monotonic()
        with self._spinner(what, is_on=not has_own_output):
            yield
        self._console.print(Text.assemble((f"{time.monotonic() - started_s:6.1f} s  ", "dim"), what))

    @contextmanager
    def _spinner(self, what: str, *, is_on: bool) -> Iterator[None]:
        if not (is_on and self._console.is_terminal):
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(what, total=None)
            yield

    def note(self, text: str) -> None:
        self._indented(Text(text, "dim"))

    def asked(self, question: str) -> None:
        self._indented(Text.assemble("Q: ", (question, "cyan")))

    def answered(self, outcome: Outcome) -> None:
        self._indented(Text.assemble("A: ", (outcome.answer, "green")))
        self.note(f"route {outcome.route}, tier {outcome.tier}, model {outcome.model}, {outcome.latency_ms} ms")
        if self._is_json:
            print(json.dumps(outcome.to_json(), ensure_ascii=False), flush=True)

    def _indented(self, text: Text) -> None:
        self._console.print(Padding(text, (0, 0, 0, TEXT_COLUMN), expand=False))

    def command(self, line: str, output: str) -> None:
        """Shows a command as one types it, and what it printed, unchanged."""
        self._console.print()
        self._console.print(f"$ {line}", style="bold", soft_wrap=True)
        self._console.print(output, soft_wrap=True)

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        self.part("Summary")
        table = Table("question", "route", "tier", "states", "latency", show_lines=True)
        for outcome in outcomes:
            states = " > ".join(outcome.state_history)
            latency = f"{outcome.latency_ms / 1000:.1f} s"
            table.add_row(outcome.question, outcome.route or "-", outcome.tier or "-", states, latency)
        self._console.print(table)
        self._console.print(f"All {len(outcomes)} questions were answered; none was lost.")

    def commands(self, lines: Sequence[str]) -> None:
        """Lines to copy: never wrapped, nothing before them."""
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def failed(self, message: str, log: str) -> None:
        print(f'error in the step "{self.doing}": {message}', file=sys.stderr)
        for line in log.splitlines():
            print(f"  | {line}", file=sys.stderr)
