"""What `train` does beyond learning: verdicts as examples, the comparison with the head in use, and the way back."""

from __future__ import annotations

import os
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

LEAST_FALL = 1e-9  # figures are means of the same examples: less is rounding


@dataclass(frozen=True, slots=True)
class Quality:
    """Of examples held out of the learning; `auroc` is None where the configuration has no examples of no route."""

    accuracy: float
    auroc: float | None

    def is_below(self, other: Quality) -> bool:
        has_lost_scope = self.auroc is not None and other.auroc is not None and self.auroc < other.auroc - LEAST_FALL
        return self.accuracy < other.accuracy - LEAST_FALL or has_lost_scope

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


def keep_previous(path: Path) -> None:
    """The head at `path`, if any, is also at its previous path: what replaces it can be taken back."""
    if not path.exists():
        return
    part = path.with_name(f"{path.name}.kept")
    part.unlink(missing_ok=True)
    os.link(path, part)
    part.replace(previous_path(path))


def roll_back(settings: Settings) -> Path:
    """The head in use and the previous one have changed places. Ends the process where that is of no use."""
    from mqrouter.errors import MqrouterError
    from mqrouter.routing.artefact import load
    from mqrouter.wiring import embedder_fingerprint, head_path

    path = head_path(settings)
    previous = previous_path(path)
    try:
        load(previous.read_bytes(), embedder=embedder_fingerprint(settings), routes=tuple(settings.routes))
    except FileNotFoundError as error:
        raise FileError(f"there is no {previous}: nothing to go back to") from error
    except (MqrouterError, OSError) as error:
        raise FileError(f"{previous}: {error}") from error
    try:
        _exchange(path, previous)
    except OSError as error:
        click.echo(f"mqrouter: {path} cannot be written: {error}", err=True)
        raise SystemExit(Exit.FAILED) from error
    return path


def _exchange(path: Path, previous: Path) -> None:
    """At every moment there is a whole head at `path`."""
    part = path.with_name(f"{path.name}.kept")
    part.unlink(missing_ok=True)
    if path.exists():
        os.link(path, part)
    previous.replace(path)
    if part.exists():
        part.replace(previous)
