"""Where every key of a TOML text stands: tomllib knows it while parsing and does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
# The closing quotes of a multi-line string may follow one or two quotes that belong to it.
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"""("{0,2})|'{3}.*?'{3}('{0,2})|"(?:\\.|[^"\\])*"|'[^']*\'''',
    re.DOTALL,
)
# A date and its time may stand apart: 1979-05-27 07:32:00.
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^,\]}#\s]+|[^,\]}#\s]+")


class Position(NamedTuple):
    """Both count from 1."""

    line: int
    column: int


def positions(text: str) -> dict[KeyPath, Position]:
    """Returns where each table, key and array element first appears. `text` is one that tomllib accepts."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._found: dict[KeyPath, Position] = {}
        self._array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, Position]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._statement(table)
            self._skip(_BLANK)
        return self._found

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path, last = self._dotted_key(())
        self._at += 2 if is_array else 1
        return self._next_element(path, last) if is_array else path

    def _next_element(self, array: KeyPath, start: int) -> KeyPath:
        index = self._array_lengths.get(array, 0)
        self._array_lengths[array] = index + 1
        return self._note((*array, index), start)

    def _statement(self, table: KeyPath) -> None:
        path, _ = self._dotted_key(table)
        self._at += 1  # the equals sign
        self._skip(_SPACES)
        self._value(path)

    def _dotted_key(self, table: KeyPath) -> tuple[KeyPath, int]:
        """Notes each part of a key. Returns the path it names and where its last part starts."""
        path, start = self._key_part(table)
        while self._text[self._at] == ".":
            self._at += 1
            path, start = self._key_part(path)
        return path, start

    def _key_part(self, parent: KeyPath) -> tuple[KeyPath, int]:
        self._skip(_SPACES)
        start = self._at
        path = self._note((*self._current(parent), _unquoted(self._take(_KEY))), start)
        self._skip(_SPACES)
        return path, start

    def _current(self, path: KeyPath) -> KeyPath:
        """A header that passes through an array of tables means its latest element."""
        length = self._array_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                self._take(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        self._enter()
        while self._text[self._at] != "]":
            self._value(self._note((*path, index), self._at))
            self._skip_comma()
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._enter()
        while self._text[self._at] != "}":
            self._statement(path)
            self._skip_comma()
        self._at += 1

    def _enter(self) -> None:
        self._at += 1
        self._skip(_BLANK)

    def _skip_comma(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)

    def _note(self, path: KeyPath, start: int) -> KeyPath:
        line = bisect_right(self._line_starts, start)
        self._found.setdefault(path, Position(line, start - self._line_starts[line - 1] + 1))
        return path

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML at character {self._at}")
        self._at = found.end()
        return found.group()


def _unquoted(key: str) -> str:
    if key[0] == '"' and "\\" in key:
        return str(tomllib.loads(f"key = {key}")["key"])
    return key[1:-1] if key[0] in "\"'" else key
