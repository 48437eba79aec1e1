"""Many rows in one statement come out as if each had had one of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from mqrouter.edge.store.many import MAX_AT_ONCE, insert, run_for, select_each

INTO = "INSERT INTO animals (name, legs)"
ANIMALS = [(f"animal-{number}", number % 5) for number in range(2 * MAX_AT_ONCE + 3)]
SIZES = (0, 1, MAX_AT_ONCE, MAX_AT_ONCE + 1, len(ANIMALS))


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE animals (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, legs INTEGER)")
    yield connection
    connection.close()


@pytest.mark.parametrize("number", SIZES)
def test_all_are_inserted_in_their_order(db: sqlite3.Connection, number: int) -> None:
    insert(db, INTO, iter(ANIMALS[:number]))

    assert db.execute("SELECT name, legs FROM animals ORDER BY seq").fetchall() == ANIMALS[:number]


@pytest.mark.parametrize("number", SIZES)
def test_statement_runs_for_each_value(db: sqlite3.Connection, number: int) -> None:
    insert(db, INTO, ANIMALS)
    names = [name for name, _ in ANIMALS[:number]]

    changed = list(run_for(db, "UPDATE animals SET legs = ? WHERE name IN {values} RETURNING name", names, [77]))

    assert sorted(name for (name,) in changed) == sorted(names)
    assert db.execute("SELECT count(*) FROM animals WHERE legs = 77").fetchone()[0] == number


def test_query_with_a_limit_has_it_for_each(db: sqlite3.Connection) -> None:
    insert(db, INTO, ANIMALS)
    query = "SELECT legs, seq FROM animals WHERE legs = ? ORDER BY seq DESC LIMIT ?"

    found = list(select_each(db, query, [(legs % 5, 2) for legs in range(MAX_AT_ONCE + 4)]))

    assert found == [row for legs in range(MAX_AT_ONCE + 4) for row in db.execute(query, (legs % 5, 2))]
