"""What `train` does beyond learning: verdicts as examples, the comparison with the head in use, and the way back."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqrouter.cli.common import Exit
from mqrouter.cli.labelled import FileError, Pair

if TYPE_CHECKING:
    from mqrouter.core.feedback import Examples
    from mqrouter.routing.artefact import About, Artefact
    from mqrouter.routing.training import Labelled, Trained
    from mqrouter.settings import Settings

READABLE = 0o644  # whoever trained it, the daemon reads it
LEAST_FALL = 1e-9  # figures are means of the same examples: less is rounding


@dataclass(frozen=True, slots=True)
class Quality:
    """Of examples held out of the learning; `auroc` is None where the configuration has no examples of no route."""

    accuracy: float
    auroc: float | None

    def is_below(self, other: Quality) -> bool:
        has_lost_scope = self.auroc is not None and other.auroc is not None and self.auroc < other.auroc - LEAST_FALL
        return self.accuracy < other.accuracy - LEAST_FALL or has_lost_scope

    def __str__(self) -> str:
        auroc = "" if self.auroc is None else f" with out-of-scope AUROC {self.auroc:.4f}"
        return f"accuracy {self.accuracy:.4f}{auroc}"

    def best_of(self, other: Quality) -> Quality:
        aurocs = [auroc for auroc in (self.auroc, other.auroc) if auroc is not None]
        return Quality(max(self.accuracy, other.accuracy), max(aurocs, default=None))


def feedback_examples(settings: Settings, known: list[Pair]) -> Examples:
    """Returns what verdicts in the database teach beyond the examples known already; read-only, daemon or not."""
    from mqrouter.cli.daemon import open_database
    from mqrouter.core.feedback import examples_of
    from mqrouter.edge.store.feedback import read
    from mqrouter.wiring import request_limits

    with open_database(settings.database) as db:
        judged = read(db, request_limits(settings))
    return examples_of(judged, settings.routes, [text for text, _ in known])


def quality(data: Labelled, trained: Trained) -> Quality:
    """Returns what cross-validation says of the examples in `data`."""
    from mqrouter.routing.metrics import auroc
    from mqrouter.routing.training import NONE

    held_out, inside = trained.held_out, data.labels != NONE
    area = None if inside.all() else float(auroc(held_out.scope[inside], held_out.scope[~inside]))
    return Quality(float(held_out.is_right[inside].mean()), area)


def stated_quality(about: About, evaluated: str) -> Quality | None:
    """Returns what a head said of itself, where that was of these very examples."""
    if about.accuracy is None or about.evaluated != evaluated:
        return None
    return Quality(about.accuracy, about.auroc)


def is_previous(settings: Settings, data_hash: str) -> bool:
    """True where the previous head was learnt from these very examples: somebody may have put it away."""
    from mqrouter.errors import MqrouterError
    from mqrouter.routing.artefact import load
    from mqrouter.wiring import embedder_fingerprint, head_path

    try:
        previous = load(previous_path(head_path(settings)).read_bytes(), embedder=embedder_fingerprint(settings))
    except (OSError, MqrouterError):
        return False
    return previous.about.data_hash == data_hash


def head_in_use(settings: Settings, fingerprint: str) -> Artefact | None:
    """Returns the head that learning anew would replace; None where there is none that fits."""
    from mqrouter.routing.artefact import ArtefactError
    from mqrouter.wiring import load_learnt

    try:
        return load_learnt(settings, fingerprint)
    except ArtefactError:
        return None


def previous_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def put(path: Path, content: bytes) -> None:
    """The file at `path` has this content: as a whole, or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), READABLE)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def replace_head(path: Path, content: bytes) -> None:
    """The head at `path` is this one, and the one before is at its previous path. Raises OSError.

    The same head once more leaves both as they are: the way back stays open.
    """
    before = path.read_bytes() if path.exists() else None
    if before == content:
        return
    if before is not None:
        put(previous_path(path), before)
    put(path, content)


def roll_back(settings: Settings) -> Path:
    """The head in use and the previous one have changed places. Ends the process where that is of no use."""
    from mqrouter.errors import MqrouterError
    from mqrouter.routing.artefact import load
    from mqrouter.wiring import embedder_fingerprint, head_path

    path = head_path(settings)
    previous = previous_path(path)
    try:
        content = previous.read_bytes()
        load(content, embedder=embedder_fingerprint(settings), routes=tuple(settings.routes))
    except FileNotFoundError as error:
        raise FileError(f"there is no {previous}: nothing to go back to") from error
    except (MqrouterError, OSError) as error:
        raise FileError(f"{previous}: {error}") from error
    try:
        before = path.read_bytes() if path.exists() else None
        put(path, content)
        if before is not None:
            put(previous, before)
    except OSError as error:
        click.echo(f"mqrouter: {path} cannot be written: {error}", err=True)
        raise SystemExit(Exit.FAILED) from error
    return path
