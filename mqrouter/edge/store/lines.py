"""The lines that pending requests stand in: one of each tier list and route, so that a lane can pass a route over."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field

Line = tuple[str, str | None]
"""Tier list, and route: None for what took none."""

PARTIAL = "state = 'pending' AND todo <> tiers"
RESTING = "state = 'pending' AND not_before_ms IS NOT NULL"
DUE = "state = 'pending' AND not_before_ms IS NULL"


@dataclass(slots=True)
class Lines:
    """Every line that a request may stand in: it only grows, by one of each tier list and route there is."""

    lines: set[Line] = field(default_factory=set)
    todo_lists: set[str] = field(default_factory=set)
    partial_lists: set[str] = field(default_factory=set)
    """Tier lists of requests in the middle of a round."""

    def add(self, todo: str, route: str | None) -> None:
        self.lines.add((todo, route))
        self.todo_lists.add(todo)

    def add_waiting(self, todo: str, tiers: str, route: str | None) -> None:
        """A request that has yet to try `todo`, and `tiers` when its round starts again."""
        self.add(todo, route)
        if todo != tiers:
            self.partial_lists.add(todo)
            self.add(tiers, route)

    def of(self, todo_lists: Collection[str], paused: Collection[str]) -> list[Line]:
        """Returns the lines of these tier lists, less those of `paused` routes; from any thread, whoever adds some."""
        lines = tuple(self.lines)  # in one step of the interpreter: a set that grows is not iterated
        return [(todo, route) for todo, route in lines if todo in todo_lists and route not in paused]


def lines_of(db: sqlite3.Connection) -> Lines:
    """Returns the lines of the pending requests there are."""
    found = Lines()
    for condition in (DUE, RESTING):
        for todo in _values(db, "todo", condition):
            for route in _routes(db, condition, todo):
                found.add(todo, route)
    routes = {todo: [route for name, route in found.lines if name == todo] for todo in found.todo_lists}
    for todo in _values(db, "todo", PARTIAL):
        for tiers in _values(db, "tiers", f"{PARTIAL} AND todo = '{todo}'"):
            for route in routes[todo]:
                found.add_waiting(todo, tiers, route)
    return found


def _routes(db: sqlite3.Connection, condition: str, todo: str) -> set[str | None]:
    where = f"{condition} AND todo = '{todo}'"
    named: set[str | None] = {*_values(db, "route", where)}
    is_unnamed = db.execute(f"SELECT 1 FROM requests WHERE {where} AND route IS NULL LIMIT 1").fetchone() is not None
    return named | {None} if is_unnamed else named


def _values(db: sqlite3.Connection, column: str, condition: str) -> set[str]:
    """Returns what such rows have in a column, one seek in its index each: there may be a million rows."""
    found: set[str] = set()
    query = f"SELECT min({column}) FROM requests WHERE {condition} AND {column} > ?"
    value = ""
    while (value := db.execute(query, (value,)).fetchone()[0]) is not None:
        found.add(value)
    return found
