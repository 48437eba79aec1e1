"""What Home Assistant has been told, in a small file: so that it can be told what is no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from mqrouter.core.discovery import Announced

log = structlog.get_logger("bulletin")


class DiscoveryFile:
    """Nothing depends on it but tidiness: a file that cannot be read or written is said and passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Announced | None = None

    def read(self) -> Announced | None:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            topic, components = value["topic"], value["components"]
            if not isinstance(topic, str) or not _is_text_by_text(components):
                raise TypeError("not what was written")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("bulletin.record_unreadable", file=str(self._path), error=str(error))
            return None
        return Announced(topic, components)

    def write(self, announced: Announced) -> None:
        if announced == self._written:
            return
        self._written = announced
        text = json.dumps({"topic": announced.topic, "components": dict(announced.components)})
        new = self._path.with_suffix(".new")
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            log.warning("bulletin.record_not_written", file=str(self._path), error=str(error))

    def forget(self) -> None:
        self._written = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("bulletin.record_not_written", file=str(self._path), error=str(error))


def _is_text_by_text(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair)
