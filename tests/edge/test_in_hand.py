"""What a process had in its hands is known after its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mqrouter.edge.in_hand import SLOTS, InHandFile

CHILD = """
import os, signal, sys
from pathlib import Path
from mqrouter.edge.in_hand import InHandFile
with InHandFile(Path(sys.argv[1])) as file:
    for seq in (7, 8, 9):
        file.take(seq)
    file.drop(8)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_process_leaves_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "data" / "in_hand"
    ended = subprocess.run([sys.executable, "-c", CHILD, str(path)], env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    with InHandFile(path) as file:
        assert (sorted(file.found), file.was_left) == ([7, 9], True)


def test_end_by_an_error_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "in_hand"
    with suppress(RuntimeError), InHandFile(path) as file:
        file.take(7)
        raise RuntimeError("the disk failed")
    with InHandFile(path) as file:
        assert (file.found, file.was_left) == ([], False)


def test_ordered_end_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in_hand"
    with InHandFile(path) as file:
        file.take(7)
    assert not path.exists()
    with InHandFile(path) as file:
        assert file.found == []


def test_slots_are_used_again_and_too_many_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "in_hand"
    with InHandFile(path) as file:
        for seq in range(1, 3 * SLOTS):
            file.take(seq)
            file.drop(seq)
        for seq in range(1, 2 * SLOTS):
            file.take(seq)
        assert path.stat().st_size == SLOTS * 8
        file.drop(2 * SLOTS - 1)  # not noted
        file.drop(1)
        file.take(999)
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
    with InHandFile(copy) as file:
        assert sorted(file.found) == [*range(2, SLOTS + 1), 999]


def test_damaged_file_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "in_hand"
    path.write_bytes(b"\xff" * 13)
    with InHandFile(path) as file:
        assert file.found == []
