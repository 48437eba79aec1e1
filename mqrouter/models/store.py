"""Finds a model by name in models_dir and says whether its file can be trusted."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mqrouter.errors import ModelFileError
from mqrouter.models import catalogue, manifest
from mqrouter.models.catalogue import SUFFIX, CatalogueEntry, Purpose
from mqrouter.models.download import Part
from mqrouter.models.files import exclusive, sha256_of
from mqrouter.models.header import MAGIC, is_embedder, read_header
from mqrouter.models.manifest import ManifestEntry


class State(StrEnum):
    MISSING = "missing"
    PRESENT = "present"
    VERIFIED = "verified"
    DAMAGED = "damaged"
    UNRECORDED = "unrecorded"


class MissingModelError(ModelFileError):
    """Pull it: no file of that name is in models_dir."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on disk. `entry` is None for a file nobody catalogued, `record` for one nobody pulled."""

    name: str
    path: Path
    entry: CatalogueEntry | None
    record: ManifestEntry | None

    @property
    def purpose(self) -> Purpose:
        if self.entry:
            return self.entry.purpose
        return Purpose.EMBED if is_embedder(read_header(self.path)) else Purpose.CHAT

    @property
    def classification_prefix(self) -> str:
        return self.entry.classification_prefix if self.entry else ""


def resolve(name: str, models_dir: Path) -> ModelFile:
    """The model of that name: of the catalogue, or the stem or name of a GGUF file in `models_dir`.

    Raises MissingModelError naming the command that fetches it.
    """
    if not catalogue.is_name(name):
        raise ModelFileError(f"{name!r} is not a model name: give the name of a file in {models_dir}, not a path")
    path = models_dir / catalogue.file_of(name)
    if not path.is_file():
        raise MissingModelError(f"model {name} is not in {models_dir}: run `{pull_command(name, models_dir)}`")
    return ModelFile(_name_of(path), path, catalogue.entry_for_file(path.name), manifest.for_file(path))


def everything(models_dir: Path) -> list[ModelFile]:
    """Every model on disk, the catalogue's first, then the others by name."""
    files = sorted(path for path in models_dir.glob(f"*{SUFFIX}") if path.is_file() and catalogue.is_name(path.name))
    models = [resolve(_name_of(path), models_dir) for path in files]
    order = list(catalogue.CATALOGUE)
    return sorted(models, key=lambda model: order.index(model.name) if model.entry else len(order))


def quick_check(path: Path) -> None:
    """Costs one read of four bytes: for a start that cannot wait for a hash.

    Raises ModelFileError where the file is no GGUF or has not the size it was pulled with.
    """
    record = manifest.for_file(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise _damage(path, f"cannot be read: {error.strerror}") from error
    if magic != MAGIC:
        raise _damage(path, f"begins with {magic!r}, and a GGUF file begins with {MAGIC!r}")
    if record and record.size != size:
        raise _damage(path, f"has {size} bytes, and had {record.size} when it was pulled")


def verify(model: ModelFile) -> State:
    """Reads the whole file. Raises ModelFileError where its hash is not the one it was pulled with."""
    quick_check(model.path)
    if model.record is None:
        return State.UNRECORDED
    found = sha256_of(model.path)
    if found != model.record.sha256:
        raise _damage(model.path, f"has sha256 {found}, and {model.record.sha256} was expected")
    return State.VERIFIED


def quick_state(model: ModelFile) -> State:
    """What `list` shows: everything but the hash."""
    try:
        quick_check(model.path)
    except ModelFileError:
        return State.DAMAGED
    return State.PRESENT if model.record else State.UNRECORDED


def remove(model: ModelFile) -> None:
    """The file and its record are gone; the catalogue still knows where to get it again."""
    with exclusive(model.path.parent):
        model.path.unlink(missing_ok=True)
        Part(model.path.with_name(f"{model.path.name}.part")).discard()
        if model.record:
            manifest.forget(model.path.parent, model.record.name)


def pull_command(name: str, models_dir: Path, source: str | None = None) -> str:
    """What mends or fetches the model: as one types it."""
    words = ["mqrouter", "models", "pull", name]
    if source:
        words += ["--from", source]
    elif catalogue.find(name) is None:
        words += ["--from", "FILE"]
    if models_dir != default_models_dir():
        words += ["--models-dir", str(models_dir)]
    return shlex.join(words)


def default_models_dir() -> Path:
    from mqrouter.settings import Gateway  # pydantic: too slow to import where nothing went wrong

    return Path(Gateway.model_fields["models_dir"].default).expanduser()


def _name_of(path: Path) -> str:
    entry = catalogue.entry_for_file(path.name)
    return entry.name if entry else path.stem


def _damage(path: Path, finding: str) -> ModelFileError:
    name, record = _name_of(path), manifest.for_file(path)
    source = record.source if record and catalogue.find(name) is None else None
    return ModelFileError(f"{path} {finding}: run `{pull_command(name, path.parent, source)}`")
