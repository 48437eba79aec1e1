"""Overview, tiers and log: what each looks at, and how it shows that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widget import Widget

from mqrouter.cli.tables import printable
from mqrouter.cli.top.dialogs import Confirm
from mqrouter.cli.top.figures import History
from mqrouter.cli.top.snapshot import TIER_HEADERS, facts, paused_route_cells, tier_cells
from mqrouter.cli.top.source import Overview, RefusedError, Row, Source
from mqrouter.cli.top.widgets import Table, Text

Look = Callable[[Source], Any]
ROUTE = "route "


class Pane(Vertical):
    """One tab. It is looked for only while it is the one that is shown."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def look(self) -> Look:
        """Returns what to ask beside the overview; it is called in a thread. The result goes to `take`."""
        return lambda _source: None

    def take(self, overview: Overview, history: History, found: Any) -> None:
        """Shows what was found."""
        raise NotImplementedError

    def main(self) -> Widget:
        """Returns what has the focus when the tab is opened."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        if self.app.is_running:  # the operator may have left meanwhile
            self.app.screen_stack[0].query_one("#message", Text).show(text)

    async def hold(self, kind: str, name: str, verb: str) -> None:
        """Pauses or resumes a tier or a route, once the operator said yes."""
        what = "its questions wait, or go to another tier" if kind == "tiers" else "its questions wait"
        what = what if verb == "pause" else "it goes on"
        if not await self.app.push_screen_wait(Confirm(f"{verb} {kind[:-1]} {name}? ({what})")):
            return
        try:
            await asyncio.to_thread(self.source.steer, kind, name, verb)
        except RefusedError as error:
            self.say(str(error))
            return
        self.say(f"{kind[:-1]} {name} is {verb}d")
        await self.app.run_action("refresh_now")


class OverviewPane(Pane):
    """Every line is a widget of its own: one that has changed is drawn, and no other."""

    def compose(self) -> ComposeResult:
        yield VerticalScroll()

    def main(self) -> Widget:
        return self.query_one(VerticalScroll)

    def take(self, overview: Overview, history: History, found: Any) -> None:
        tiers = [f"{cells[0]:<9} {cells[1]}{': ' + cells[-1] if cells[-1] else ''}" for cells in _places(overview)]
        lines = [*(f"{name:<9} {text}" for name, text in facts(overview, history)), " ", *tiers]
        shown = list(self.query(Text))
        for line, widget in zip(lines, shown, strict=False):
            widget.show(line)
        for widget in shown[len(lines) :]:
            widget.remove()
        for line in lines[len(shown) :]:
            self.main().mount(added := Text())
            added.show(line)

    @property
    def text(self) -> str:
        return "\n".join(widget.text for widget in self.query(Text))


class TiersPane(Pane):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("p", "pause", "pause or resume")]

    def compose(self) -> ComposeResult:
        yield Table(TIER_HEADERS, id="tier-rows")

    def main(self) -> Widget:
        return self.query_one(Table)

    def take(self, overview: Overview, history: History, found: Any) -> None:
        self.query_one(Table).show([(cells[0], cells) for cells in _places(overview)])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "pause" and self.source.is_read_only)

    def action_pause(self) -> None:
        table = self.query_one(Table)
        if (key := table.key) is not None:
            is_paused = table.lines[table.cursor_row][1] == "paused"
            kind, name = ("routes", key.removeprefix(ROUTE)) if key.startswith(ROUTE) else ("tiers", key)
            self.run_worker(self.hold(kind, name, "resume" if is_paused else "pause"), exclusive=True)


def _places(overview: Overview) -> list[tuple[str, ...]]:
    return [*tier_cells(overview), *paused_route_cells(overview)]


class LogPane(Pane):
    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Text(id="log-lines")

    def main(self) -> Widget:
        return self.query_one(VerticalScroll)

    def look(self) -> Look:
        return _read_log

    def take(self, overview: Overview, history: History, found: Any) -> None:
        scroll, text = self.query_one(VerticalScroll), self.query_one("#log-lines", Text)
        is_at_end = scroll.scroll_offset.y >= scroll.max_scroll_y
        text.show("\n".join(found))
        if is_at_end:
            scroll.scroll_end(animate=False)


def _read_log(source: Source) -> list[str]:
    """Returns the log's latest lines; without a log file, what the database knows of the latest events."""
    lines = source.log_lines()
    if lines is not None:
        return lines or ["the log is empty"]
    actions = [
        f"{_time(row)}  {printable(row['actor'])}: {printable(row['action'])} {printable(row['target'])}"
        for row in source.actions()
    ]
    endings = [f"{_came(row)}  {_ending(row)}" for row in source.endings()]
    return [
        "There is no log file (log.file); under systemd: journalctl -u mqrouter.",
        "",
        "Requests that ended, the newest first, with the time they came in:",
        *(endings or ["  none"]),
        "",
        "What operators did, the latest first:",
        *(actions or ["  nothing"]),
    ]


def _time(row: Row) -> str:
    return f"{datetime.fromtimestamp(row['at_ms'] / 1000):%m-%d %H:%M:%S}"


def _came(row: Row) -> str:
    return _time({"at_ms": row["received_at_ms"]})


def _ending(row: Row) -> str:
    how = row["reason"] or row["tier"] or ""
    parts = (row["id"], row["state"], printable(row["device"] or "-"), row["route"] or "-", printable(how))
    return "  ".join(parts).rstrip()
