"""Damage: found before the database is opened, remembered over a restart, and set aside; never deleted.

A mark beside the database says that it is damaged, or may be. It is also the plan of the move: whatever instruction
the power fails at, the next start goes on where this one stopped.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from mqrouter.edge.store.log_file import damage_of_log

CHECKED_AT_START_BYTES = 64 << 20
"""A larger database is checked after the start. quick_check reads 1,000 MB/s here, and a fifth of that on a small
board: 0.3 s."""
SIDE_FILES = ("-shm", "-wal")
DAMAGED_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
UNREADABLE_CODES = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})


class Verdict(StrEnum):
    SUSPECT = "suspect"  # the disk failed: to be checked in full
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Mark:
    verdict: Verdict
    reason: str
    folder: str | None = None
    """Where it is being moved, below `quarantine`."""
    is_moved: bool = False


def mark_path(database: Path) -> Path:
    return database.with_name(database.name + ".damaged")


def read_mark(database: Path) -> Mark | None:
    try:
        fields = json.loads(mark_path(database).read_text(encoding="utf-8"))
        return Mark(Verdict(fields["verdict"]), fields["reason"], fields["folder"], fields["is_moved"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Mark(Verdict.SUSPECT, "the mark beside the database cannot be read")


def write_mark(database: Path, mark: Mark) -> None:
    """The mark is on disk. Raises OSError."""
    write_durably(mark_path(database), json.dumps(asdict(mark)))


def clear_mark(database: Path) -> None:
    mark_path(database).unlink(missing_ok=True)
    sync_folder(database.parent)


def is_damage(error: BaseException) -> bool:
    """True for what SQLite says of a file that is not, or no longer, a sound database."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and ((code & 0xFF) in DAMAGED_CODES or code in UNREADABLE_CODES)


def remember(database: Path, error: BaseException) -> None:
    """Leaves a mark for the next start where `error` speaks of damage, or of a disk that fails."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or not (is_damage(error) or (code & 0xFF) == sqlite3.SQLITE_IOERR):
        return
    known = read_mark(database)
    if known is None or known.verdict is Verdict.SUSPECT:
        with suppress(OSError):  # the disk may take nothing any more; the check at start is left
            write_mark(database, Mark(Verdict.DAMAGED if is_damage(error) else Verdict.SUSPECT, str(error)))


def examine(database: Path) -> Mark | None:
    """Returns the damage to a database that nobody has open, or None; a suspicion that proved wrong is forgotten."""
    mark = read_mark(database)
    if mark is not None and mark.verdict is Verdict.DAMAGED:
        return mark
    reason = damage_of_log(database)
    if reason is None and database.exists() and database.stat().st_size > 0:
        reason = _failed_check(database, is_full=mark is not None)
    if reason is not None:
        return Mark(Verdict.DAMAGED, reason)
    if mark is not None:
        clear_mark(database)
    return None


def is_checked_at_start(database: Path) -> bool:
    return sum(file.stat().st_size for file in files_of(database)) <= CHECKED_AT_START_BYTES


def quick_check(database: Path) -> str | None:
    """Returns what is wrong, by a read-only connection of its own, or None."""
    return _failed_check(database, is_full=False, is_size_limited=False)


def _failed_check(database: Path, *, is_full: bool, is_size_limited: bool = True) -> str | None:
    uri = f"file:{quote(str(database))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if is_full:
                found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            elif is_size_limited and not is_checked_at_start(database):
                return None
            else:
                found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        return None  # locked, no permission, no space: opening it for writing says what the matter is
    return None if found == "ok" else " ".join(str(found).split())


def files_of(database: Path) -> list[Path]:
    """Returns those of the database's three files that are there, itself last."""
    candidates = [database.with_name(database.name + suffix) for suffix in (*SIDE_FILES, "")]
    return [path for path in candidates if path.exists()]


def set_aside(database: Path, mark: Mark, now: datetime) -> Path:
    """Moves the database and what belongs to it into a folder of its own; returns that. Again and again, if need be."""
    home = database.parent / "quarantine"
    if mark.folder is None:
        mark = replace(mark, folder=_new_name(home, now))
        write_mark(database, mark)
    folder = home / str(mark.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.is_moved:
        for path in files_of(database):
            path.rename(folder / path.name)
        for place in (folder, home, database.parent):
            sync_folder(place)
        write_mark(database, replace(mark, is_moved=True))
    return folder


def newest_quarantine(data_dir: Path) -> Path | None:
    """Returns the folder of the latest database set aside, or None."""
    home = data_dir / "quarantine"
    return max((path for path in home.iterdir() if path.is_dir()), default=None) if home.is_dir() else None


def _new_name(home: Path, now: datetime) -> str:
    name = f"{now:%Y%m%dT%H%M%SZ}"
    taken = sum(path.name.startswith(name) for path in home.iterdir()) if home.is_dir() else 0
    return f"{name}-{taken + 1}" if taken else name


def write_durably(path: Path, text: str) -> None:
    """The file has this text on disk, or is as it was."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Not for a database that this process has open: closing would give up its locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file
