"""What is asked before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

Read = Callable[[str], object]
"""Returns what a word means. Raises ValueError with what is wrong with it."""


class Confirm(ModalScreen[bool]):
    """Ends true with `y` alone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,q", "dismiss(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Vertical(Static(f"{self._question}\n\n[y] yes   [n] no", markup=False), classes="dialog")


class Ask(ModalScreen[object]):
    """Ends with what was typed, as `read` understands it; with None where it was left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "leave", priority=True)]

    def __init__(self, question: str, read: Read) -> None:
        super().__init__()
        self._question = question
        self._read = read

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False)
            yield Input()
            yield Static("Enter: go on   Esc: leave", id="hint", markup=False)

    def on_mount(self) -> None:
        field = self.query_one(Input)
        field.cursor_blink = False
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        try:
            found = self._read(event.value.strip())
        except ValueError as error:
            self.query_one("#hint", Static).update(str(error))
            return
        self.dismiss(found)


class Reading(ModalScreen[None]):
    """A text to scroll through."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,f1", "dismiss(None)", "back")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._text, markup=False)
