"""Labelled files and their vectors: what `eval`, `train` and `tune` share."""

from __future__ import annotations

import asyncio
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
