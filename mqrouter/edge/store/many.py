"""Many rows in one statement: after each statement its thread has to wait for the interpreter again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")

MAX_AT_ONCE = 16
"""In one statement: each number of them is a statement of its own in SQLite's cache."""


def insert(db: sqlite3.Connection, into: str, rows: Iterable[Sequence[object]]) -> None:
    """Inserts rows, all of the same width; `into` is the statement up to its values."""
    for some in _portions(rows):
        db.execute(f"{into} VALUES {_rows(len(some), len(some[0]))}", list(chain(*some)))


def run_for(
    db: sqlite3.Connection, statement: str, values: Iterable[object], first: Sequence[object] = ()
) -> Iterator[sqlite3.Row]:
    """Yields what the statement returns, which says `IN {values}` and has the parameters `first` before that."""
    for some in _portions(values):
        yield from db.execute(statement.format(values=marks(len(some))), [*first, *some]).fetchall()


def select_each(db: sqlite3.Connection, query: str, each: Iterable[Sequence[object]]) -> Iterator[sqlite3.Row]:
    """Yields what the query finds with each of these parameters; it may have an order and a limit of its own."""
    for some in _portions(each):
        yield from db.execute(_union(query, len(some)), list(chain(*some))).fetchall()


def _portions(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, MAX_AT_ONCE)):
        yield some


def marks(number: int) -> str:
    """Returns a row of so many parameters."""
    return f"({', '.join('?' * number)})"


@cache
def _rows(number: int, width: int) -> str:
    return ", ".join([marks(width)] * number)


@cache
def _union(query: str, number: int) -> str:
    return " UNION ALL ".join([f"SELECT * FROM ({query})"] * number)
