"""The tables: every step that led to them, and a new database that has them."""

from __future__ import annotations

import sqlite3
from importlib import resources
from importlib.resources.abc import Traversable

from mqrouter.errors import StoreError

INCREMENTAL_VACUUM = "PRAGMA auto_vacuum = INCREMENTAL"
"""Takes effect on an empty file, and in VACUUM; before anything else is written."""


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema to the newest version, one transaction a step; `user_version` counts the steps."""
    scripts, version = _scripts(), _version(connection)
    if version > len(scripts):
        raise StoreError(f"the database has schema {version}, this mqrouter knows {len(scripts)}: update mqrouter")
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script.read_text(encoding='utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def is_earlier(connection: sqlite3.Connection) -> bool:
    """True where the database is of an earlier mqrouter; its daemon brings it up to date when it starts."""
    return _version(connection) < len(_scripts())


def _scripts() -> list[Traversable]:
    found = (entry for entry in resources.files(__package__).joinpath("sql").iterdir() if entry.name.endswith(".sql"))
    return sorted(found, key=lambda entry: entry.name)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
