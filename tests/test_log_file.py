"""The log's own file: begun anew at a size and with each day, bounded, and never a reason to stop."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mqrouter.log_file import LogFile, LogLimits

NOON_S = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))
DAY_S = 86_400
LIMITS = LogLimits(max_bytes=30, keep_days=3, keep_files=5)


class Now:
    def __init__(self) -> None:
        self.s = NOON_S

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


def aside(path: Path) -> list[str]:
    """Returns what the files set aside say, by name."""
    return [other.read_text() for other in sorted(path.parent.glob(f"{path.name}.*"))]


def write(log: LogFile, now: Now, *lines: str) -> None:
    """Writes lines as if at that moment: the files' times follow."""
    for line in lines:
        log.write(line + "\n")
        os.utime(log.path, (now.s, now.s))


def test_file_is_turned_over_before_it_grows_too_large(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    write(log, now, "first of ten", "other of ten", "third")
    now.s += 1
    write(log, now, "x" * 40, "end")

    assert (tmp_path / "a.log").read_text() == "end\n"
    assert aside(tmp_path / "a.log") == ["first of ten\nother of ten\n", "third\n", "x" * 40 + "\n"]


def test_turned_over_twice_within_a_second_loses_nothing(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    for number in range(4):
        log.write(f"{number}" * 29 + "\n")
    assert sorted(aside(tmp_path / "a.log")) == [f"{number}" * 29 + "\n" for number in range(3)]


def test_file_of_yesterday_is_set_aside_also_after_a_restart(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    write(log, now, "one")
    now.s += DAY_S
    write(log, now, "two")
    log.close()
    now.s += DAY_S
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    write(log, now, "three")

    assert (tmp_path / "a.log").read_text() == "three\n"
    assert aside(tmp_path / "a.log") == ["one\n", "two\n"]


def test_file_of_today_is_gone_on_with_after_a_restart(tmp_path: Path, now: Now) -> None:
    for line in ("one", "two"):
        log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
        write(log, now, line)
        log.close()
    assert (tmp_path / "a.log").read_text() == "one\ntwo\n"


def test_old_files_go_and_those_of_others_stay(tmp_path: Path, now: Now) -> None:
    for name in ("a.log.gz", "a.log.20260101T000000.gz", "b.log.20260101T000000", "a.logs.20260101T000000"):
        (tmp_path / name).write_text("not ours")
        os.utime(tmp_path / name, (0, 0))
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    for _ in range(5):
        write(log, now, f"day {now.s:.0f}")
        now.s += DAY_S
    write(log, now, "today")

    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4 + 1 + LIMITS.keep_days
    assert {"a.log.gz", "a.log.20260101T000000.gz", "b.log.20260101T000000", "a.logs.20260101T000000"} <= set(names)


def test_no_more_files_are_kept_than_asked_for(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a[1].log", LIMITS, now_s=now)
    for number in range(12):
        now.s += 1
        write(log, now, f"{number:02}" * 12)

    found = sorted(path.read_text()[:2] for path in tmp_path.iterdir())
    assert found == ["06", "07", "08", "09", "10", "11"]


def test_file_moved_away_is_begun_again(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    log.write("one\n")
    (tmp_path / "a.log").rename(tmp_path / "elsewhere")
    log.write("two\n")
    (tmp_path / "a.log").unlink()
    log.write("three\n")

    assert ((tmp_path / "elsewhere").read_text(), (tmp_path / "a.log").read_text()) == ("one\n", "three\n")


def test_disk_that_takes_no_more_loses_lines_and_says_so_once(
    tmp_path: Path, now: Now, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    log.write("one\n")
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:2]))
    log.write("two\n")
    monkeypatch.setattr(os, "write", lambda fd, data: _raise(OSError(28, "No space left on device")))
    log.write("three\n")
    monkeypatch.undo()
    log.write("four\n")

    assert (tmp_path / "a.log").read_text() == "one\ntw\nfour\n"
    said = capsys.readouterr().err.splitlines()
    assert [("takes no more" in line, "2 lines were not written" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


def _raise(error: Exception) -> int:
    raise error


def test_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        LogFile(tmp_path / "none" / "a.log", LIMITS)


def test_closed_file_raises_nothing(tmp_path: Path, now: Now) -> None:
    log = LogFile(tmp_path / "a.log", LIMITS, now_s=now)
    log.close()
    log.close()
    assert log.write("late\n") == 5
