"""Labelled files and their vectors: what `eval`, `train` and `tune` share."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mqrouter.settings import Settings

Progress = Callable[[int, int], None]
Pair = tuple[str, str | None]
"""A question and its label; None for no route."""


class FileError(click.ClickException):
    """The file is not what the command reads; says what it expects."""

    exit_code = Exit.FAILED


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: npt.NDArray[np.float32]
    """(texts, dim), float32, unit length."""
    fingerprint: str


def settings_or_starter(config: Path | None) -> Settings:
    """Returns the configuration; the starter's where none was named and none is found."""
    from mqrouter.cli.common import load_or_exit
    from mqrouter.config import find_config, load
    from mqrouter.errors import ConfigError
    from mqrouter.starter import starter_dir

    try:
        find_config(config, os.environ)
    except ConfigError:
        if config is None:
            return load(starter_dir() / "mqrouter.toml", {}).settings
    return load_or_exit(config).settings


def read_splits(file: Path) -> dict[str, list[Pair]]:
    """Returns the named lists of [text, label] of a JSON file. Raises FileError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {name: [(str(text), str(label)) for text, label in rows] for name, rows in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f'{file}: not JSON of the form {{"train": [["text", "label"], …], …}} ({error})') from error


def split_of(splits: dict[str, list[Pair]], key: str, option: str) -> list[Pair]:
    if key not in splits:
        raise click.BadParameter(f"{key!r} is not in the file: it has {', '.join(splits)}", param_hint=option)
    return splits[key]


def read_labelled(file: Path) -> list[Pair]:
    """Returns the questions of a JSON-lines file with `question` and `route`, or of a CSV with text and label."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".csv":
            return [(row["text"], row["label"] or None) for row in csv.DictReader(text.splitlines())]
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [(row["question"], row["route"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = 'CSV with the columns text,label or lines of {"question": "…", "route": "…" or null}'
        raise FileError(f"{file}: expected {expected} ({type(error).__name__}: {error})") from error


def read_also(file: Path) -> dict[int, list[str]]:
    """Returns the further routes of a JSON-lines file's questions, its `also`, by their number."""
    if file.suffix == ".csv":
        return {}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {number: found for number, line in enumerate(lines) if (found := json.loads(line).get("also"))}


def embed(settings: Settings, texts: Sequence[str]) -> Embedded:
    """Returns the vectors of the texts, those on disk not computed again. Ends the process where there is no model."""
    from mqrouter import wiring
    from mqrouter.edge.vector_cache import VectorCache
    from mqrouter.errors import MqrouterError

    async def run() -> Embedded:
        embedder, fingerprint = wiring.embedder(settings)
        await embedder.start()
        try:
            cache = VectorCache(cache_dir(), fingerprint)

            async def one(text: str) -> Any:
                return (await embedder.embed(text)).vector

            with progress_bar("embedding") as progress:
                return Embedded(await cache.embed_all(texts, one, progress), fingerprint)
        finally:
            await embedder.close()

    quiet_log()
    try:
        return asyncio.run(run())
    except (MqrouterError, OSError) as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(Exit.CONFIG) from error


def cache_dir() -> Path:
    """Returns where vectors are kept: $XDG_CACHE_HOME/mqrouter/vectors, ~/.cache without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mqrouter" / "vectors"


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Yields what draws `done` of `total` on a terminal, and nothing anywhere else."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def quiet_log() -> None:
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # nothing but the answer is printed
