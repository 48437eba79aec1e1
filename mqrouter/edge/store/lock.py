"""One read-write owner of a database file at a time: a lock beside it, held until the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from mqrouter.errors import StoreLockedError


def hold_lock(path: Path) -> IO[str]:
    """Held until the file is closed. Raises StoreLockedError."""
    file = path.with_name(path.name + ".lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StoreLockedError(
            f"{path} is in use by another mqrouter (process {owner}): stop that one, or give this one "
            "a data_dir of its own"
        ) from error
    file.truncate(0)
    with contextlib.suppress(OSError):  # a full disk; the number is for people
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file
