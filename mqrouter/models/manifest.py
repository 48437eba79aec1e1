"""What was pulled, and the hash it had then: `manifest.json` beside the model files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mqrouter.models.files import read_json_table, write_json

FILE = "manifest.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """`sha256` is of the file on disk, after a conversion; `pulled_at` is in seconds since 1970."""

    name: str
    file: str
    size: int
    sha256: str
    source: str
    pulled_at: float


def read(models_dir: Path) -> dict[str, ManifestEntry]:
    """By name. An entry that does not read is left out: its model then counts as unrecorded."""
    rows = read_json_table(models_dir / FILE).get("models")
    if not isinstance(rows, dict):
        return {}
    entries = (_entry(name, row) for name, row in rows.items())
    return {entry.name: entry for entry in entries if entry}


def for_file(path: Path) -> ManifestEntry | None:
    return next((entry for entry in read(path.parent).values() if entry.file == path.name), None)


def record(models_dir: Path, entry: ManifestEntry) -> None:
    """Needs `files.exclusive`, like every change here. One file has one entry."""
    others = {name: other for name, other in read(models_dir).items() if other.file != entry.file}
    _write(models_dir, {**others, entry.name: entry})


def forget(models_dir: Path, name: str) -> None:
    _write(models_dir, {key: entry for key, entry in read(models_dir).items() if key != name})


def _write(models_dir: Path, entries: dict[str, ManifestEntry]) -> None:
    rows = {name: asdict(entry) for name, entry in entries.items()}
    write_json(models_dir / FILE, {"version": VERSION, "models": rows})


def _entry(name: str, row: Any) -> ManifestEntry | None:
    try:
        return ManifestEntry(
            name=name,
            file=str(row["file"]),
            size=int(row["size"]),
            sha256=str(row["sha256"]),
            source=str(row["source"]),
            pulled_at=float(row["pulled_at"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
