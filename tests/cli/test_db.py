"""mqrouter db and queue purge without a daemon: what they print, what they return, what they leave."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from damage import fill, open_rw, overwrite, root

from mqrouter.cli.common import Exit
from mqrouter.cli.main import cli

CONFIG = """\
[tiers.edge]
kind = "local"
[routing.abstain]
to = ["edge"]
[prompts]
chat = "Be brief."
[routes.talk]
examples = ["hello"]
to = ["edge"]
"""
ROWS = 200


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQROUTER_CONFIG", raising=False)
    Path("mqrouter.toml").write_text(CONFIG, encoding="utf-8")
    path = tmp_path / "data" / "mqrouter.db"
    path.parent.mkdir()
    with closing(open_rw(path)) as db:
        fill(db, ROWS)
        db.execute("UPDATE requests SET finished_at_ms = 1 WHERE state = 'delivered'")
    return path


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli, arguments, input=answer)


def number_of_requests(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM requests").fetchone()[0])


def set_aside(database: Path) -> Path:
    folder = database.parent / "quarantine" / "20300101T000000Z"
    folder.mkdir(parents=True)
    damaged = folder / database.name
    damaged.write_bytes(database.read_bytes())
    overwrite(damaged, [root(database, "requests")])
    return damaged


def test_check_of_a_sound_database(database: Path) -> None:
    result = run("db", "check")
    assert result.exit_code == Exit.OK and f"{database} is sound: {ROWS} requests" in result.stdout
    assert json.loads(run("db", "check", "--json").stdout)["ok"] is True


def test_check_of_a_damaged_one_fails_and_says_why(database: Path) -> None:
    overwrite(database, [root(database, "requests")])
    result = run("db", "check")
    assert result.exit_code == Exit.FAILED and "NOT sound" in result.stdout and "malformed" in result.stderr
    assert json.loads(run("db", "check", "--json").stdout)["problems"]


def test_check_of_garbage_fails_and_says_why(database: Path) -> None:
    database.write_bytes(b"garbage" * 2000)
    result = run("db", "check")
    assert result.exit_code == Exit.FAILED and "not a database" in result.stderr


@pytest.mark.parametrize("arguments", [("queue", "list"), ("queue", "stats"), ("db", "check"), ("queue", "show", "r1")])
def test_database_of_an_earlier_version_is_not_called_damaged(database: Path, arguments: tuple[str, ...]) -> None:
    with closing(open_rw(database)) as db:
        db.execute("DROP INDEX requests_dropped")
        db.execute("ALTER TABLE requests DROP COLUMN dropped_until_ms")
        db.execute("PRAGMA user_version = 8")
    done = run(*arguments)
    assert done.exit_code == Exit.UNAVAILABLE
    assert done.output == f"mqrouter: {database} is of an earlier mqrouter: start the daemon, which updates it\n"
    assert run("db", "backup", "copy.db").exit_code == Exit.OK, "before an update is when it is wanted"


def test_backup_makes_a_file_and_spares_another(database: Path) -> None:
    assert run("db", "backup", "copy.db").exit_code == Exit.OK
    assert number_of_requests(Path("copy.db")) == ROWS
    again = run("db", "backup", "copy.db")
    assert again.exit_code == Exit.USAGE and "--force" in again.stderr
    assert run("db", "backup", "--force", "copy.db").exit_code == Exit.OK


def test_backup_into_a_folder_that_is_not_there_says_so(database: Path) -> None:
    result = run("db", "backup", "nowhere/copy.db")
    assert result.exit_code == Exit.FAILED and "no backup was made" in result.stderr


def test_vacuum_says_what_was_freed(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("DELETE FROM history")
    before = database.stat().st_size
    result = run("db", "vacuum")
    assert result.exit_code == Exit.OK and result.stdout.startswith("freed ")
    assert database.stat().st_size < before


def test_salvage_counts_what_was_set_aside_last(database: Path) -> None:
    damaged = set_aside(database)
    before = damaged.read_bytes()
    result = run("db", "salvage", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == Exit.OK and (found["requests"], found["answers"]) == (ROWS, ROWS // 2)
    assert damaged.read_bytes() == before


def test_salvage_rebuilds_into_a_new_file_only(database: Path) -> None:
    damaged = set_aside(database)
    result = run("db", "salvage", str(damaged), "--into", "rescued.db")
    assert result.exit_code == Exit.OK and "they are in rescued.db" in result.stdout
    assert number_of_requests(Path("rescued.db")) == ROWS
    assert run("db", "salvage", "--into", "rescued.db").exit_code == Exit.USAGE


def test_salvage_without_damage_finds_nothing(database: Path) -> None:
    result = run("db", "salvage")
    assert result.exit_code == Exit.NOTHING_FOUND and "no damaged database" in result.stderr


def test_purge_asks_first(database: Path) -> None:
    result = run("queue", "purge", answer="n\n")
    assert result.exit_code == Exit.FAILED and f"delete {ROWS // 4} finished requests" in result.stdout
    assert number_of_requests(database) == ROWS


def test_purge_takes_what_is_older(database: Path) -> None:
    result = run("queue", "purge", "--yes", "--older-than", "1d")
    assert result.exit_code == Exit.OK and result.stdout == f"deleted {ROWS // 4} finished requests\n"
    assert number_of_requests(database) == ROWS - ROWS // 4


@pytest.mark.parametrize("options", [("--yes",), ()], ids=["sure", "unsure"])
def test_purge_of_nothing_asks_nothing_and_says_so(database: Path, options: tuple[str, ...]) -> None:
    result = run("queue", "purge", "--older-than", "36500d", *options, answer="y\n")
    assert (result.exit_code, result.stdout) == (Exit.NOTHING_FOUND, "")
    assert result.stderr == "no finished request to delete\n"
    assert number_of_requests(database) == ROWS


@pytest.mark.parametrize("age", ["7", "d", "-3d", "3 weeks", "1e3s"])
def test_purge_refuses_what_is_no_age(age: str) -> None:
    result = run("queue", "purge", "--yes", "--older-than", age)
    assert result.exit_code == Exit.USAGE and "90s, 30min, 12h or 7d" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("db", "check"), ("db", "backup", "x.db"), ("db", "vacuum"), ("queue", "purge", "--yes")]
)
def test_command_without_a_database_says_how_to_get_one(database: Path, arguments: tuple[str, ...]) -> None:
    database.unlink()
    result = run(*arguments)
    assert result.exit_code == Exit.UNAVAILABLE and "mqrouter run" in result.stderr


def test_status_tells_of_a_salvage_while_the_daemon_is_down(database: Path) -> None:
    damaged = set_aside(database)
    report = {"quarantined_to": str(damaged.parent), "requests": 7, "answers": 3}
    (damaged.parent / "salvage.json").write_text(json.dumps(report), encoding="utf-8")
    result = run("status")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "7 requests and 3 answers of a damaged database" in result.stdout
