"""The view itself: four tabs over one loop that looks at the gateway."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, TabbedContent, TabPane

from mqrouter.cli.top.dialogs import Reading
from mqrouter.cli.top.figures import History
from mqrouter.cli.top.filter_line import HELP
from mqrouter.cli.top.panes import LogPane, OverviewPane, Pane, TiersPane
from mqrouter.cli.top.queue_pane import QueuePane
from mqrouter.cli.top.snapshot import headline
from mqrouter.cli.top.source import RefusedError, Source
from mqrouter.cli.top.widgets import Text

THEME = "ansi-dark"
TABS: dict[str, type[Pane]] = {"overview": OverviewPane, "queue": QueuePane, "tiers": TiersPane, "log": LogPane}
KEYS = f"""1 to 4  tabs         r  look now         q  leave

Queue (keys mean what is marked, else the request under the cursor)
/      filter       s  sort             Enter  all about it
n      next page    b  page before      Esc    close
Space  mark         a  mark the page    o      hold its route
t      retry        c  cancel           d      drop
u      undo a drop  m  move to a tier   p      priority
l      time to live

Tiers
p      hold a tier, or let it or a held route go on

What changes anything asks first. A filter is made of:
{HELP}
Words are looked for in the question; state:all is every request."""


class Top(App[None]):
    """Looks every `interval_s` seconds, at what the open tab shows and no more."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #headline { height: 1; text-style: bold; }
    #message { height: 1; }
    TabbedContent { height: 1fr; }
    Pane { height: 1fr; }
    Table { height: 1fr; scrollbar-size-horizontal: 0; }
    #about { height: 1; }
    #detail { height: 1fr; border-top: solid gray; }
    #filter { height: 1; border: none; padding: 0; }
    Confirm, Ask, Reading { align: center middle; }
    .dialog { width: auto; max-width: 100%; height: auto; max-height: 100%; border: solid gray; padding: 0 1; }
    .dialog Input { width: 60; max-width: 100%; height: 1; border: none; padding: 0; }
    .dialog Static { width: auto; max-width: 90vw; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"show_tab('{name}')", name, show=False) for number, name in enumerate(TABS, 1)),
        Binding("f1,question_mark", "keys", "keys", key_display="F1"),
        Binding("r", "refresh_now", "look now", show=False),
        Binding("q,ctrl+c", "quit", "leave", key_display="q"),
    ]

    def __init__(self, source: Source, interval_s: float) -> None:
        super().__init__()
        self._source = source
        self._interval_s = interval_s
        self._history = History()
        self._is_wanted = asyncio.Event()
        self._headline = Text(id="headline")
        self._panes = {name: kind(source) for name, kind in TABS.items()}
        self.looks = 0
        """How many looks have been shown."""
        self.animation_level = "none"

    def compose(self) -> ComposeResult:
        yield self._headline
        with TabbedContent(initial="overview"):
            for number, (name, pane) in enumerate(self._panes.items(), 1):
                with TabPane(f"{number} {name}", id=name):
                    yield pane
        yield Text(id="message")
        yield Footer()

    def on_mount(self) -> None:
        self.theme = THEME  # the terminal's own colours take fewer bytes
        self.run_worker(self._watch(), name="watch")

    @property
    def pane(self) -> Pane:
        """The one that is shown."""
        return self._panes[self.screen_stack[0].query_one(TabbedContent).active]

    async def _watch(self) -> None:
        while self.is_running:  # once it is not, there are no widgets any more
            self._is_wanted.clear()
            await self._look()
            self.looks += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._is_wanted.wait()

    async def _look(self) -> None:
        pane = self.pane
        look = pane.look()
        try:
            overview = await asyncio.to_thread(self._source.overview)
            self._history.add(overview)
            self._show_headline(headline(overview))
            found = None if overview.trouble else await asyncio.to_thread(look, self._source)
        except RefusedError as error:
            self._show_headline(f"NOT UP TO DATE: {error}")
            return
        if overview.trouble is None and self.is_running:
            pane.take(overview, self._history, found)

    def _show_headline(self, text: str) -> None:
        if not self.is_running:
            return
        mode = "   [read-only]" if self._source.is_read_only else ""
        self._headline.show(text + mode)

    def action_show_tab(self, name: str) -> None:
        self.screen_stack[0].query_one(TabbedContent).active = name

    def on_tabbed_content_tab_activated(self) -> None:
        self.pane.main().focus()
        self.action_refresh_now()

    def action_refresh_now(self) -> None:
        self._is_wanted.set()

    def action_keys(self) -> None:
        self.push_screen(Reading(KEYS))
