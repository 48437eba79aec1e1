"""What is wrong with a database is said; a copy of it is sound, whatever is written meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from damage import PAGE, add, fill, open_rw, overwrite, pages_of_kind

from mqrouter.edge.store.checking import back_up, check
from mqrouter.edge.store.offline import open_alone, purge_all, vacuum
from mqrouter.edge.store.reading import open_read_only
from mqrouter.edge.store.space import size_of
from mqrouter.errors import StoreLockedError

ROWS = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mqrouter.db"
    with closing(open_rw(path)) as db:
        fill(db, ROWS)
        db.execute("UPDATE requests SET finished_at_ms = seq WHERE state = 'delivered'")
    return path


def problems(path: Path) -> list[str]:
    with open_read_only(path) as db:
        found = check(db)
        assert found["ok"] is not bool(found["problems"])
        result: list[str] = found["problems"]
        return result


def test_sound_database_is_said_to_be(path: Path) -> None:
    with open_read_only(path) as db:
        found = check(db)
    assert found["ok"] and found["requests"] == dict.fromkeys(("answered", "delivered", "pending", "received"), 100)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ("UPDATE requests SET state = 'lost' WHERE seq = 1", "in no known state"),
        ("DELETE FROM outbox WHERE request = 2", "without an answer"),
        ("UPDATE requests SET state = 'pending', finished_at_ms = NULL WHERE seq = 3", "with an answer"),
        ("UPDATE requests SET finished_at_ms = 1 WHERE seq = 4", "with a time of its end"),
        ("UPDATE requests SET finished_at_ms = NULL WHERE seq = 3", "without a time"),
        ("UPDATE requests SET todo = NULL WHERE seq = 1", "waiting for no tier"),
        ("DELETE FROM history WHERE request = 3 AND event = 'delivered'", "history does not tell"),
        ("DELETE FROM requests WHERE seq = 3", "belong to no requests"),
    ],
)
def test_contradiction_is_named_with_an_example(path: Path, spoil: str, problem: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(spoil)
    assert any(problem in text for text in problems(path))


def test_damage_is_named(path: Path) -> None:
    overwrite(path, pages_of_kind(path, 13)[5:6])
    assert problems(path)


def test_backup_is_of_one_moment_while_others_write(path: Path, tmp_path: Path) -> None:
    """Each transaction adds a request with its history: a copy of two moments would have one without the other."""
    stop, is_writing = threading.Event(), threading.Event()

    def write() -> None:
        with closing(open_rw(path)) as db:
            seq = ROWS
            while not stop.is_set():
                seq += 1
                db.execute("BEGIN IMMEDIATE")
                add(db, seq, "answered")
                db.execute("COMMIT")
                is_writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert is_writing.wait(5)
    shares: list[float] = []
    target = tmp_path / "copies" / "backup.db"
    target.parent.mkdir()
    try:
        size = back_up(path, target, shares.append)
    finally:
        stop.set()
        writer.join()
    assert problems(target) == []
    assert size == target.stat().st_size and shares[-1] == 1.0
    assert [file.name for file in target.parent.iterdir()] == ["backup.db"]
    with open_read_only(target) as db:
        assert db.execute("SELECT count(*) FROM requests").fetchone()[0] > ROWS


def test_backup_of_a_damaged_database_is_none(path: Path, tmp_path: Path) -> None:
    overwrite(path, pages_of_kind(path, 13)[5:6])
    target = tmp_path / "backup.db"
    target.write_text("an older one")
    with pytest.raises(sqlite3.Error):
        back_up(path, target, lambda _: None)
    assert target.read_text() == "an older one"
    assert not list(tmp_path.glob("*.part"))


def test_purge_without_the_daemon_spares_what_is_not_over(path: Path) -> None:
    with open_alone(path) as db:
        assert purge_all(db, ROWS // 2) == 50  # every fourth is delivered, at its number in milliseconds
        assert purge_all(db, ROWS + 1) == 50
    assert problems(path) == []


def test_vacuum_shrinks_the_file_and_makes_an_old_one_able_to(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
        assert not size_of(db).can_shrink
        db.execute("DELETE FROM history")
    before = path.stat().st_size
    with open_alone(path) as db:
        freed = vacuum(db)
        assert size_of(db).can_shrink and size_of(db).unused == 0
    assert 0 < freed == before - path.stat().st_size
    assert path.stat().st_size % PAGE == 0


def test_lock_keeps_two_apart(path: Path) -> None:
    with open_alone(path), pytest.raises(StoreLockedError), open_alone(path):
        pass
