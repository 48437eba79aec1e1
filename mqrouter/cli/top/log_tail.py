"""The end of a log file, for people: its JSON lines as time, level, event and fields."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from mqrouter.cli.tables import printable

TAIL_BYTES = 65_536
HEAD = ("timestamp", "level", "event")


def tail(path: Path, lines: int) -> list[str]:
    """Returns the last lines, of the file's last 64 kB at most. Raises nothing: what is wrong is the one line."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            found = file.read().decode("utf-8", "replace").split("\n")
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    whole = found[1:] if size > TAIL_BYTES else found  # the first may have lost its beginning
    return [_readable(line) for line in whole if line.strip()][-lines:]


def _readable(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return printable(line)
    if not isinstance(fields, dict):
        return printable(line)
    more = " ".join(f"{name}={value}" for name, value in fields.items() if name not in HEAD)
    level = str(fields.get("level", ""))
    return printable(f"{_clock(fields.get('timestamp'))} {level:<7} {fields.get('event', '')}  {more}".rstrip())


def _clock(timestamp: object) -> str:
    """Returns the time of day on this machine's clock."""
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S}"
    except ValueError:
        return str(timestamp)
