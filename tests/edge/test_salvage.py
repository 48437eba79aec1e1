"""Damage of every kind to a database of thousands of rows: found, set aside, and read as far as it reads."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from damage import OVERFLOW, PAGE, TABLE_INNER, TABLE_LEAF, add, fill, open_rw, overwrite, pages_of_kind, root

from mqrouter.core.states import State, may_move
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.mending import mend
from mqrouter.edge.store.quarantine import (
    Mark,
    Verdict,
    examine,
    mark_path,
    newest_quarantine,
    read_mark,
    set_aside,
    write_mark,
)
from mqrouter.edge.store.salvage import Salvage, latest_report, salvage
from mqrouter.errors import StoreFatalError

ROWS = 3000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of ROWS requests, all of it in the file."""
    path = tmp_path_factory.mktemp("sound") / "mqrouter.db"
    with closing(open_rw(path)) as db:
        fill(db, ROWS)
    return path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, its last thousand in the log, as a killed daemon leaves it."""
    path = tmp_path_factory.mktemp("logged") / "mqrouter.db"
    with closing(open_rw(path)) as db:
        fill(db, ROWS)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        for first in range(ROWS + 1, ROWS + 1001, 50):
            db.execute("BEGIN IMMEDIATE")
            for seq in range(first, first + 50):
                add(db, seq, "received")
            db.execute("COMMIT")
        yield path


def copied(source: Path, folder: Path) -> Path:
    for suffix in ("", "-wal", "-shm"):
        if (file := source.with_name(source.name + suffix)).exists():
            shutil.copy(file, folder / file.name)
    return folder / source.name


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def salvaged(path: Path) -> tuple[Salvage, sqlite3.Connection]:
    """Salvages into a file beside it, and holds that file to what must be true of any."""
    target = path.with_name("new.db")
    result = salvage(path, target, reason="test", now_ms=99)
    db = sqlite3.connect(target)
    db.row_factory = sqlite3.Row
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert result.requests == db.execute("SELECT count(*) FROM requests").fetchone()[0]
    for row in db.execute("SELECT seq, id, state, payload FROM requests"):
        assert row["id"] == f"{row['seq']:016x}" and set(row["payload"]) == {ord("q")}
    for row in db.execute("SELECT request, payload FROM outbox"):
        assert row["payload"].startswith(b"a%d." % row["request"])  # nobody gets another's answer
    assert_explained(db)
    return result, db


def assert_explained(db: sqlite3.Connection) -> None:
    unanswered = "SELECT count(*) FROM requests WHERE state = 'answered' AND seq NOT IN (SELECT request FROM outbox)"
    assert db.execute(unanswered).fetchone()[0] == 0
    last = db.execute(
        "SELECT state, (SELECT event FROM history WHERE request = requests.seq ORDER BY seq DESC LIMIT 1) AS event"
        " FROM requests"
    )
    assert all(row["state"] == row["event"] for row in last)


async def test_sound_database_is_left_alone(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    assert examine(path) is None
    result, _ = salvaged(path)
    assert (result.requests, result.answers, result.lost_ranges) == (ROWS, ROWS // 2, ())
    assert (result.from_pages, result.dangling, result.asked_again) == (0, 0, 0)


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (lambda path: overwrite(path, [1]), ROWS),
        (lambda path: overwrite(path, [1], bytes(PAGE)), ROWS),
        (lambda path: overwrite(path, [root(path, "requests")]), ROWS),
        (lambda path: overwrite(path, [root(path, "history")]), ROWS),
        (lambda path: overwrite(path, pages_of_kind(path, TABLE_INNER)), ROWS),
        (lambda path: overwrite(path, pages_of_kind(path, TABLE_LEAF)[100:105]), ROWS - 5 * 20),
        (lambda path: overwrite(path, pages_of_kind(path, TABLE_LEAF)[::40], bytes(PAGE)), ROWS - 20 * 20),
        (lambda path: overwrite(path, pages_of_kind(path, OVERFLOW)[:4]), ROWS - 4),
        (lambda path: os.truncate(path, path.stat().st_size // 2), ROWS // 3),
    ],
    ids=[
        "header",
        "header zeroed",
        "root of requests",
        "root of history",
        "all inner pages",
        "five leaves",
        "every 40th leaf zeroed",
        "overflow pages",
        "half of the file",
    ],
)
def test_damage_is_found_and_the_rest_salvaged(
    sound: Path, tmp_path: Path, damage: Callable[[Path], None], least: int
) -> None:
    path = copied(sound, tmp_path)
    damage(path)
    assert examine(path) is not None
    result, _ = salvaged(path)
    assert result.requests >= least
    assert result.error is None


def test_lost_leaf_is_reported_as_a_range(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    overwrite(path, [pages_of_kind(path, TABLE_LEAF)[5]])
    result, db = salvaged(path)
    lost = sum(last - first + 1 for first, last in result.lost_ranges)
    assert lost == ROWS - result.requests
    for first, last in result.lost_ranges:
        assert db.execute("SELECT count(*) FROM requests WHERE seq BETWEEN ? AND ?", (first, last)).fetchone()[0] == 0


@pytest.mark.parametrize("is_by_pages", [False, True])
def test_what_tiers_have_cost_is_carried_over(sound: Path, tmp_path: Path, is_by_pages: bool) -> None:
    path = copied(sound, tmp_path)
    with closing(open_rw(path)) as db:
        db.execute("INSERT INTO spending VALUES (1, 'hub', 19000, 7, 100, 200, 1.25), (2, 'far', 19000, 1, 1, 1, 0.5)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, [1 if is_by_pages else pages_of_kind(path, TABLE_LEAF)[5]])
    _, db = salvaged(path)
    with closing(db):
        rows = db.execute("SELECT tier, day, requests, cost FROM spending ORDER BY seq").fetchall()
    assert [tuple(row) for row in rows] == [("hub", 19000, 7, 1.25), ("far", 19000, 1, 0.5)]


@pytest.mark.parametrize("is_by_pages", [False, True])
def test_what_operators_hold_back_is_carried_over(sound: Path, tmp_path: Path, is_by_pages: bool) -> None:
    path = copied(sound, tmp_path)
    with closing(open_rw(path)) as db:
        db.execute("INSERT INTO paused VALUES ('hub', 19000, 'me')")
        db.execute("INSERT INTO paused_routes VALUES (1, 'frost', 'me', 19000)")
        (seq,) = db.execute("SELECT min(seq) FROM requests WHERE state = 'received'").fetchone()
        db.execute("UPDATE requests SET state = 'dropped', dropped_until_ms = 77 WHERE seq = ?", (seq,))
        db.execute("INSERT INTO history (request, at_ms, event) VALUES (?, 1, 'dropped')", (seq,))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, [1 if is_by_pages else pages_of_kind(path, TABLE_LEAF)[5]])
    _, db = salvaged(path)
    with closing(db):
        assert [tuple(row) for row in db.execute("SELECT tier, actor FROM paused")] == [("hub", "me")]
        assert [tuple(row) for row in db.execute("SELECT route, actor FROM paused_routes")] == [("frost", "me")]
        row = db.execute("SELECT state, dropped_until_ms FROM requests WHERE seq = ?", (seq,)).fetchone()
        assert tuple(row) == ("dropped", 77)


def test_request_whose_answer_was_lost_is_asked_again(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM outbox WHERE request IN (2, 6)")  # both answered
        db.execute("DELETE FROM requests WHERE seq = 3")
    result, db = salvaged(path)
    assert (result.asked_again, result.dangling) == (2, 1 + 4)
    rows = db.execute("SELECT state, todo, tiers FROM requests WHERE seq IN (2, 6)").fetchall()
    assert [tuple(row) for row in rows] == [("received", None, None)] * 2
    events = [row["event"] for row in db.execute("SELECT event FROM history WHERE request = 2 ORDER BY seq")]
    assert all(may_move(State(old), State(new)) for old, new in pairwise(events))


def test_request_with_an_answer_is_not_asked_again(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE requests SET state = 'pending' WHERE seq IN (2, 3)")
    _, db = salvaged(path)
    states = [row["state"] for row in db.execute("SELECT state FROM requests WHERE seq IN (2, 3)")]
    assert states == ["answered", "delivered"]


@pytest.mark.parametrize("content", [b"", b"this is not a database" * 5000], ids=["empty", "garbage"])
async def test_file_that_is_no_database_does_not_stop_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mqrouter.db"
    path.write_bytes(content)
    async with Database(path) as database:
        assert await database.read(lambda db: db.execute("SELECT count(*) FROM requests").fetchone()[0]) == 0
    folder = newest_quarantine(tmp_path)
    assert (folder is not None) == bool(content)
    if folder is not None:
        assert (folder / "mqrouter.db").read_bytes() == content


# --- the log ----------------------------------------------------------------------------------------


def test_log_of_a_killed_daemon_is_no_damage(logged: Path, tmp_path: Path) -> None:
    path = copied(logged, tmp_path)
    assert examine(path) is None
    assert salvaged(path)[0].requests == ROWS + 1000


def test_torn_last_transaction_is_no_damage(logged: Path, tmp_path: Path) -> None:
    """What a power cut leaves: a commit that nobody was told of, and an index that went with the memory."""
    path = copied(logged, tmp_path)
    path.with_name(path.name + "-shm").unlink()
    os.truncate(log_of(path), log_of(path).stat().st_size - 100)
    assert examine(path) is None


def test_truncated_log_is_damage(logged: Path, tmp_path: Path) -> None:
    path = copied(logged, tmp_path)
    os.truncate(log_of(path), log_of(path).stat().st_size // 2)
    assert examine(path) is not None
    result, _ = salvaged(path)
    assert ROWS + 300 <= result.requests < ROWS + 1000


def test_log_that_is_gone_is_damage(logged: Path, tmp_path: Path) -> None:
    path = copied(logged, tmp_path)
    log_of(path).unlink()
    assert examine(path) is not None
    assert salvaged(path)[0].requests >= ROWS


@pytest.mark.parametrize("has_index", [True, False])
def test_broken_frame_costs_no_other(logged: Path, tmp_path: Path, has_index: bool) -> None:
    """SQLite drops all that follows it, and says nothing."""
    path = copied(logged, tmp_path)
    if not has_index:
        path.with_name(path.name + "-shm").unlink()
    with log_of(path).open("r+b") as file:
        file.seek(32 + 5 * (24 + PAGE) + 1000)
        file.write(b"scratch")
    assert examine(path) is not None
    assert salvaged(path)[0].requests >= ROWS + 1000 - 20


def test_log_without_its_database_is_damage(logged: Path, tmp_path: Path) -> None:
    path = copied(logged, tmp_path)
    path.unlink()
    assert examine(path) is not None
    assert salvaged(path)[0].requests >= 1000


# --- set aside and started again --------------------------------------------------------------------


async def test_start_sets_damage_aside_and_goes_on(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    overwrite(path, [root(path, "requests")])
    damaged = path.read_bytes()
    async with Database(path) as database:
        assert await database.read(lambda db: db.execute("SELECT count(*) FROM requests").fetchone()[0]) == ROWS
    report = latest_report(tmp_path)
    assert report is not None and (report["requests"], report["from_pages"]) == (ROWS, ROWS)
    assert Path(report["quarantined_to"], path.name).read_bytes() == damaged
    assert not mark_path(path).exists()
    async with Database(path):
        pass
    assert len(list((tmp_path / "quarantine").iterdir())) == 1  # the new one is sound


async def test_damage_met_while_running_is_set_aside_at_the_next_start(sound: Path, tmp_path: Path) -> None:
    def corrupt(db: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT | (1 << 8)
        raise error

    path = copied(sound, tmp_path)
    async with Database(path) as database:
        with pytest.raises(StoreFatalError):
            await database.read(corrupt)
    assert newest_quarantine(tmp_path) is None
    async with Database(path) as database:
        assert await database.read(lambda db: db.execute("SELECT count(*) FROM requests").fetchone()[0]) == ROWS
    assert newest_quarantine(tmp_path) is not None
    assert read_mark(path) is None


async def test_large_database_is_checked_after_the_start(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqrouter.edge.store.quarantine.CHECKED_AT_START_BYTES", 1)
    path = copied(sound, tmp_path)
    async with Database(path) as database:
        await database.check()
    overwrite(path, pages_of_kind(path, TABLE_LEAF)[100:101])
    async with Database(path) as database:
        with pytest.raises(StoreFatalError):
            await database.check()
        assert newest_quarantine(tmp_path) is None
    async with Database(path):
        assert newest_quarantine(tmp_path) is not None


async def test_failed_disk_is_only_a_suspicion(sound: Path, tmp_path: Path) -> None:
    def fail(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (4 << 8)
        raise error

    path = copied(sound, tmp_path)
    async with Database(path) as database:
        with pytest.raises(StoreFatalError):
            await database.write(fail)
    mark = read_mark(path)
    assert mark is not None and mark.verdict is Verdict.SUSPECT
    async with Database(path):
        assert read_mark(path) is None
    assert newest_quarantine(tmp_path) is None


def test_suspicion_makes_the_check_a_full_one(sound: Path, tmp_path: Path) -> None:
    """An index that lacks an entry: quick_check does not compare it with its table."""
    path = copied(sound, tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_schema WHERE name = 'history_by_request'")
        db.execute("PRAGMA writable_schema = RESET")
        add(db, ROWS + 1, "received")
        sql = "CREATE INDEX history_by_request ON history (request, seq)"
        place = root(sound, "history_by_request")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_schema VALUES ('index', 'history_by_request', 'history', ?, ?)", (place, sql))
    assert examine(path) is None
    write_mark(path, Mark(Verdict.SUSPECT, "the disk failed"))
    assert examine(path) is not None


@pytest.mark.parametrize("step", range(5))
def test_move_that_was_cut_short_is_taken_up_again(
    logged: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power fails at each rename of a start: three files to quarantine, mark, and the new one into its place."""
    path = copied(logged, tmp_path)
    overwrite(path, [root(path, "requests")])
    real, calls = Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        if calls[0] == step:
            raise KeyboardInterrupt
        calls[0] += 1
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", rename)
    damage = examine(path)
    assert damage is not None
    with pytest.raises(KeyboardInterrupt):
        mend(path, damage)
    monkeypatch.undo()
    again = examine(path)
    assert again is not None
    mend(path, again)
    assert examine(path) is None
    report = latest_report(tmp_path)
    assert report is not None and report["requests"] == ROWS + 1000
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_new_database_is_not_set_aside_for_the_mark_of_the_old(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    folder = set_aside(path, Mark(Verdict.DAMAGED, "test"), datetime.now(UTC))
    mark = read_mark(path)
    assert mark is not None and mark.is_moved
    copied(sound, tmp_path)  # the salvaged one came into its place, and then the power failed
    mend(path, mark)
    assert path.exists() and read_mark(path) is None
    assert newest_quarantine(tmp_path) == folder


def test_unreadable_mark_is_a_suspicion(sound: Path, tmp_path: Path) -> None:
    path = copied(sound, tmp_path)
    mark_path(path).write_text(json.dumps({"verdict": "?"}))
    mark = read_mark(path)
    assert mark is not None and mark.verdict is Verdict.SUSPECT
    assert examine(path) is None and read_mark(path) is None
