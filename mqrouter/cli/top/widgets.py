"""Widgets that draw only what has changed: every change goes over the link."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text as Line
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static


class Text(Static):
    """A text as it is, without markup."""

    def __init__(self, **more: str) -> None:
        super().__init__("", markup=False, **more)  # type: ignore[arg-type]
        self.text = ""

    def show(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self.update(text)


class Table(DataTable[Line]):
    """Rows with keys; the cursor stays with its row while rows come and go."""

    def __init__(self, headers: Sequence[str], **more: str) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, **more)  # type: ignore[arg-type]
        self._headers = headers
        self._shown: list[tuple[str, tuple[str, ...]]] = []

    def on_mount(self) -> None:
        self.add_columns(*self._headers)

    @property
    def key(self) -> str | None:
        """Of the row under the cursor."""
        return self._shown[self.cursor_row][0] if 0 <= self.cursor_row < len(self._shown) else None

    @property
    def lines(self) -> list[tuple[str, ...]]:
        return [cells for _, cells in self._shown]

    def show(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        before, key, place = self._shown, self.key, self.cursor_row
        if [name for name, _ in rows] == [name for name, _ in before] and self._fits(rows):
            self._change(rows)
            return
        self.clear()
        for name, cells in rows:
            self.add_row(*map(Line, cells), key=name)  # a device may call itself [bold]: that is no markup
        self._shown = list(rows)
        names = [name for name, _ in rows]
        if rows:
            self.move_cursor(row=names.index(key) if key in names else min(place, len(rows) - 1))

    def _fits(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> bool:
        """Whether the columns are as wide as these rows need: else they are laid out anew."""
        widths = [column.content_width for column in self.ordered_columns]
        return all(len(cell) <= width for _, cells in rows for cell, width in zip(cells, widths, strict=True))

    def _change(self, rows: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        for number, ((_, old), (_, new)) in enumerate(zip(self._shown, rows, strict=True)):
            for column, (was, cell) in enumerate(zip(old, new, strict=True)):
                if was != cell:
                    self.update_cell_at(Coordinate(number, column), Line(cell))
        self._shown = list(rows)
