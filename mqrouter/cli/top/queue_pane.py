"""The queue: a page of requests, a filter line, one request in detail, and what can be done to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import click
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Input

from mqrouter.cli.queue import format_card
from mqrouter.cli.selection import age
from mqrouter.cli.steer import DONE
from mqrouter.cli.top.dialogs import Ask, Confirm, Read
from mqrouter.cli.top.figures import History, quiet
from mqrouter.cli.top.filter_line import HELP, FilterError, parse
from mqrouter.cli.top.panes import Look, Pane
from mqrouter.cli.top.snapshot import QUEUE_HEADERS, known_tiers, request_cells
from mqrouter.cli.top.source import NOTHING_KNOWN, Overview, Page, RefusedError, Row
from mqrouter.cli.top.widgets import Table, Text
from mqrouter.core.decode import MAX_PRIORITY
from mqrouter.core.steering import Sort

MARK = "*"
SORTS = tuple(Sort)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page is looked at; `pages` are where the pages up to this one began."""

    filter: Mapping[str, Any] = field(default_factory=dict)
    sort: Sort = Sort.NEWEST
    pages: tuple[int | None, ...] = (None,)


class QueuePane(Pane):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("n", "next_page", "next", show=False),
        Binding("b", "page_before", "before", show=False),
        Binding("space", "mark", "mark", show=False),
        Binding("a", "mark_all", "mark all", show=False),
        Binding("escape", "leave", "leave", show=False),
        Binding("t", "order('retry')", "retry"),
        Binding("c", "order('cancel')", "cancel"),
        Binding("d", "order('drop')", "drop"),
        Binding("u", "order('undo')", "undo", show=False),
        Binding("m", "order('move')", "move"),
        Binding("p", "order('priority')", "priority", show=False),
        Binding("l", "order('ttl')", "ttl", show=False),
        Binding("o", "hold_route", "hold route", show=False),
    ]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._wanted = Wanted()
        self._page = Page([], None)
        self._overview: Overview | None = None
        self._marked: set[str] = set()
        self._opened: str | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder=HELP, id="filter")
        yield Text(id="about")
        yield Table((" ", *QUEUE_HEADERS), id="requests")
        with VerticalScroll(id="detail"):
            yield Text(id="card")

    def on_mount(self) -> None:
        line = self.query_one("#filter", Input)
        line.cursor_blink = False
        line.display = False
        self.query_one("#detail").display = False

    def main(self) -> Widget:
        return self.query_one("#requests", Table)

    # --- looking ------------------------------------------------------------------------------------

    def look(self) -> Look:
        wanted = self._wanted
        return lambda source: (wanted, source.page(wanted.filter, sort=wanted.sort, after=wanted.pages[-1]))

    def take(self, overview: Overview, history: History, found: Any) -> None:
        wanted, page = found
        if wanted != self._wanted:
            return  # asked for before the filter was changed: the next look is under way
        self._overview, self._page = overview, page
        self._marked &= {row["id"] for row in page.rows}
        self._show()

    def _show(self) -> None:
        standing = quiet(NOTHING_KNOWN if self._overview is None else self._overview.standing)
        rows = [
            (row["id"], (MARK if row["id"] in self._marked else " ", *request_cells(row, standing)))
            for row in self._page.rows
        ]
        self.query_one("#requests", Table).show(rows)
        self.query_one("#about", Text).show(self._about())

    def _about(self) -> str:
        """Returns which requests these are."""
        which = "as filtered" if self._wanted.filter else "that wait"
        parts = [f"{len(self._page.rows)} requests {which}, {self._wanted.sort} first"]
        if len(self._wanted.pages) > 1 or self._page.next is not None:
            more = "n: next page" if self._page.next is not None else "the last page"
            parts.append(f"page {len(self._wanted.pages)}, {more}")
        if self._marked:
            parts.append(f"{len(self._marked)} marked")
        return "; ".join(parts)

    async def _turn_to(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._marked.clear()
        await self.app.run_action("refresh_now")

    def action_filter(self) -> None:
        line = self.query_one("#filter", Input)
        line.display = True
        line.focus()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            found = parse(event.value)
        except FilterError as error:
            self.say(str(error))
            return
        self.say("")
        event.input.display = bool(found)
        self.main().focus()
        await self._turn_to(Wanted(found, self._wanted.sort))

    async def action_leave(self) -> None:
        """Closes what is open last: the detail, then the filter."""
        line = self.query_one("#filter", Input)
        if self._opened is not None and not line.has_focus:
            self._opened = None
            self.query_one("#detail").display = False
            self.main().focus()
        elif line.display:
            line.value = ""
            line.display = False
            self.main().focus()
            await self._turn_to(Wanted(sort=self._wanted.sort))

    async def action_sort(self) -> None:
        following = SORTS[(SORTS.index(self._wanted.sort) + 1) % len(SORTS)]
        await self._turn_to(Wanted(self._wanted.filter, following))

    async def action_next_page(self) -> None:
        if self._page.next is not None:
            pages = (*self._wanted.pages, self._page.next)
            await self._turn_to(Wanted(self._wanted.filter, self._wanted.sort, pages))

    async def action_page_before(self) -> None:
        if len(self._wanted.pages) > 1:
            await self._turn_to(Wanted(self._wanted.filter, self._wanted.sort, self._wanted.pages[:-1]))

    def action_mark(self) -> None:
        table = self.query_one("#requests", Table)
        if (key := table.key) is not None:
            self._marked ^= {key}
            self._show()
            table.action_cursor_down()

    def action_mark_all(self) -> None:
        shown = {row["id"] for row in self._page.rows}
        self._marked = set() if self._marked == shown else shown
        self._show()

    async def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        if event.row_key.value is not None:
            await self._open(event.row_key.value)

    async def _open(self, request_id: str) -> None:
        """Shows one request below the others, as it is now."""
        try:
            row = await asyncio.to_thread(self.source.show, request_id)
        except RefusedError as error:
            self.say(str(error))
            return
        if not self.app.is_running:
            return
        self._opened = request_id
        self.query_one("#card", Text).show(format_card(row))
        detail = self.query_one("#detail", VerticalScroll)
        detail.display = True
        detail.scroll_home(animate=False)

    # --- steering -----------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action in ("order", "hold_route") and self.source.is_read_only)

    def action_hold_route(self) -> None:
        """Pauses the route of the request under the cursor, or lets it go on."""
        key = self.query_one("#requests", Table).key
        route = next((row["route"] for row in self._page.rows if row["id"] == key), None)
        if route is not None and self._overview is not None:
            verb = "resume" if route in self._overview.standing.paused_routes else "pause"
            self.run_worker(self.hold("routes", route, verb), exclusive=True)

    def action_order(self, verb: str) -> None:
        key = self.query_one("#requests", Table).key
        ids = sorted(self._marked) or ([] if key is None else [key])
        if ids:
            self.run_worker(self._order(verb, ids), exclusive=True)

    async def _order(self, verb: str, ids: Sequence[str]) -> None:
        what = f"{len(ids)} requests" if len(ids) > 1 else f"request {ids[0]}"
        arguments = await self._arguments(verb, what)
        if arguments is None:
            return
        to = "".join(f" to {value}" for name, value in arguments.items() if name != "message")
        if not await self.app.push_screen_wait(Confirm(f"{verb} {what}{to}?")):
            return
        try:
            outcomes = await asyncio.to_thread(self.source.order, verb, ids, arguments)
        except RefusedError as error:
            self.say(str(error))
            return
        self.say(_told(verb, outcomes))
        self._marked.clear()
        if self._opened is not None:
            await self._open(self._opened)
        await self.app.run_action("refresh_now")

    async def _arguments(self, verb: str, what: str) -> dict[str, Any] | None:
        """Returns what the verb needs to know beside the requests; None where the operator left."""
        questions: dict[str, tuple[str, str, Read]] = {
            "cancel": ("message", f"cancel {what}: what is its sender told? (empty: that an operator did it)", str),
            "move": ("tier", f"move {what}: to which tier? ({', '.join(self._tiers())})", self._tier),
            "priority": ("priority", f"priority of {what}: 0 to {MAX_PRIORITY}, higher first", _priority),
            "ttl": ("ttl_s", f"{what}: to expire how long from now? (as 30min, 6h, 2d)", _seconds),
        }
        if verb not in questions:
            return {}
        name, question, read = questions[verb]
        answer = await self.app.push_screen_wait(Ask(question, read))
        if answer is None:
            return None
        return {} if answer == "" else {name: answer}

    def _tiers(self) -> list[str]:
        return [] if self._overview is None else list(known_tiers(self._overview))

    def _tier(self, name: str) -> str:
        if name not in self._tiers():
            raise ValueError(f"there is no tier {name!r}; there are {', '.join(self._tiers()) or 'none'}")
        return name


def _priority(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PRIORITY):
        raise ValueError(f"a number from 0 to {MAX_PRIORITY}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return age(text)
    except click.BadParameter as error:
        raise ValueError(error.message) from error


def _told(verb: str, outcomes: Sequence[Row]) -> str:
    """Returns what became of the requests, and why some stay."""
    changed = [outcome for outcome in outcomes if outcome["is_changed"]]
    others = [outcome for outcome in outcomes if not outcome["is_changed"]]
    parts = [f"{len(changed)} {'is' if len(changed) == 1 else 'are'} {DONE[verb]}"] if changed else []
    parts += [f"{len(others)} stay as they were: {others[0]['why_not']}"] if others else []
    return "; ".join(parts) or "no such request any more"
