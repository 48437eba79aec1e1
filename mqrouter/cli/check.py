"""`mqrouter check`: is this configuration fit to run? Offline, and nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict
from getpass import getuser
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from mqrouter.cli.common import Exit, config_option, echo_json, fail
from mqrouter.errors import ConfigError, ModelFileError, Problem

if TYPE_CHECKING:
    from mqrouter.config import Loaded
    from mqrouter.config.toml_positions import KeyPath
    from mqrouter.settings import Settings


@click.command("check")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print problems and warnings as JSON on stdout.")
def command(config: Path | None, *, as_json: bool) -> None:
    """Check the configuration: offline, changing nothing.

    Every problem is one line, file:line:column: key: what is wrong; the exit code is 78 then. A warning is
    something that may be otherwise where the daemon runs, or can be mended while it does: a secret not set here, a
    model not pulled yet.

    \b
    Example:
      mqrouter check -c /etc/mqrouter/mqrouter.toml
    """
    from mqrouter.config import find_config, load  # pydantic: too slow for --help

    try:
        loaded = load(find_config(config, os.environ), os.environ)
    except ConfigError as error:
        _reject(error.problems, as_json=as_json)
    settings = loaded.settings
    found = chain(
        _folder_problems(settings),
        _log_file_problems(settings),
        _head_problems(settings),
        _trace_problems(settings),
        _token_problems(settings),
    )
    if wrong := [loaded.problem(path, message) for path, message in found]:
        _reject(wrong, as_json=as_json)
    warnings = [loaded.problem(path, message) for path, message in _warnings(loaded.settings)]
    if as_json:
        echo_json({"ok": True, "problems": [], "warnings": [asdict(warning) for warning in warnings]})
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_summary(loaded))


def _reject(problems: list[Problem], *, as_json: bool) -> None:
    if as_json:
        echo_json({"ok": False, "problems": [asdict(problem) for problem in problems], "warnings": []})
        raise SystemExit(Exit.CONFIG)
    fail(problems)


def _folder_problems(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yields why the daemon, run by this user, could not keep its database."""
    folder = settings.gateway.data_dir
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        may_write = _may_write_in(there)
    except OSError as error:
        yield ("gateway", "data_dir"), f"{folder} cannot be looked at: {error.strerror}"
        return
    if not there.is_dir():
        yield ("gateway", "data_dir"), f"{there} is a file: {folder} cannot be a folder"
    elif not may_write:
        what = "written" if there == folder else f"made in {there}"
        why = f"{folder} cannot be {what} by this user ({getuser()}): name another folder, or run this as its owner"
        yield ("gateway", "data_dir"), why


def _may_write_in(folder: Path) -> bool:
    """Root may write everywhere but in what is the kernel's. Raises OSError."""
    return os.statvfs(folder).f_blocks > 0 and os.access(folder, os.W_OK | os.X_OK)


def _log_file_problems(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yields why the daemon, run by this user, could not keep its log."""
    file = settings.log.file
    if file is None:
        return
    try:
        why = _why_no_log(file)
    except OSError as error:
        why = f"{file} cannot be looked at: {error.strerror}"
    if why is not None:
        yield ("log", "file"), why


def _why_no_log(file: Path) -> str | None:
    """Raises OSError."""
    folder, user = file.parent, getuser()
    if file.is_char_device() or file.is_fifo():
        return None  # as /dev/stderr: never set aside
    if file.is_dir():
        return f"{file} is a folder: name a file in it"
    if not folder.exists():
        return f"there is no folder {folder}: make it, or name a file in another"
    if not folder.is_dir():
        return f"{folder} is a file: {file} cannot be in it"
    if file.exists() and not os.access(file, os.W_OK):
        return f"{file} cannot be written by this user ({user}): name another file, or run this as its owner"
    if not _may_write_in(folder):
        return (
            f"{folder} cannot be written by this user ({user}), and the file has to be made and set aside there:"
            " name one in another folder, or run this as its owner"
        )
    return None


def _head_problems(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yields each strategy that the daemon would not start with, for want of a trained head that fits."""
    default = type(settings.routing).model_fields["strategy"].default
    if {settings.routing.strategy, *(entry.strategy for entry in settings.listeners)} <= {default, None}:
        return  # it needs none, and what it takes to look is slow to import
    from mqrouter.wiring import configured_strategies, embedder_fingerprint, why_no_head

    try:
        fingerprint = embedder_fingerprint(settings)
    except ModelFileError:
        return  # a warning of its own; nothing can be said of the head yet
    for path, name in configured_strategies(settings).items():
        if (why := why_no_head(settings, name, fingerprint)) is not None:
            yield path, f'"{name}" needs a trained head: {why}'


def _trace_problems(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    if not settings.traces.enabled:
        return
    from mqrouter.edge.spans import why_missing

    if (why := why_missing()) is not None:
        yield ("traces", "enabled"), why


def _token_problems(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    from mqrouter.settings import why_no_token

    http = settings.http
    for key, reference in (("viewer_token", http.viewer_token), ("operator_token", http.operator_token)):
        if reference is None or not http.enabled:
            continue
        with suppress(LookupError):  # a warning of its own: this user may not be the one who has it
            if (why := why_no_token(reference.resolve())) is not None:
                yield ("http", key), why


def _warnings(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yields what the daemon may start without, and will miss, or has elsewhere."""
    yield from _model_warnings(settings)
    yield from _secret_warnings(settings)
    yield from _disk_warnings(settings)
    yield from _learning_warnings(settings)
    for name, tier in settings.tiers.items():
        host = "" if tier.kind == "local" else urlsplit(tier.url).hostname or ""
        if host.endswith((".example", ".example.com")):
            yield ("tiers", name, "url"), f"{host} is the starting configuration's; set your own or remove the tier"


def _model_warnings(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    from mqrouter.models.store import resolve

    models: dict[KeyPath, str] = {("embedder", "model"): settings.embedder.model}
    models |= {("tiers", name, "model"): tier.model for name, tier in settings.tiers.items() if tier.kind == "local"}
    for path, model in models.items():
        try:
            resolve(model, settings.gateway.models_dir)
        except ModelFileError as error:
            yield path, str(error)


def _learning_warnings(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yields what was set about learning and has no effect as things are."""
    routing, data_dir = settings.routing, settings.gateway.data_dir
    used = {routing.strategy, *(entry.strategy for entry in settings.listeners)}
    is_there = os.access(data_dir / "head.npz", os.F_OK)
    if routing.min_gain is None and not routing.auto_tune.enabled and not is_there:
        return  # what it takes to look further is slow to import
    from mqrouter.routing.tier_order import ORDERS_BY_GAIN
    from mqrouter.wiring import NEEDS_HEAD, embedder_fingerprint, head_path, load_learnt, why_head_is_unusable

    if routing.auto_tune.enabled and not used & NEEDS_HEAD:
        yield ("routing", "auto_tune", "enabled"), f"nothing uses what is learnt: no strategy is {_either(NEEDS_HEAD)}"
    if routing.min_gain is not None and not used & ORDERS_BY_GAIN:
        yield ("routing", "min_gain"), f"it has no effect: no strategy is {_either(ORDERS_BY_GAIN)}"
    try:
        fingerprint = embedder_fingerprint(settings)
    except ModelFileError:
        return  # a warning of its own
    if (why := why_head_is_unusable(settings, fingerprint)) is not None:
        yield ("routing", "strategy"), f"the head is not used: {why}"
    elif routing.min_gain is not None and (
        (learnt := load_learnt(settings, fingerprint)) is None or learnt.gain is None
    ):
        message = f"it has no effect: {head_path(settings)} has no gain; run `mqrouter train --outcomes FILE`"
        yield ("routing", "min_gain"), message


def _either(names: Collection[str]) -> str:
    return " or ".join(f'"{name}"' for name in sorted(names))


def _secret_warnings(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    from mqrouter.config.keys import leaves
    from mqrouter.settings import Secret

    for path, value in leaves(settings):
        if isinstance(value, Secret):
            try:
                value.resolve()
            except LookupError as error:  # the service may well have what this user has not
                yield path, f"{error}; without it the daemon does not start"


def _disk_warnings(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    from mqrouter.edge.disk import space_at

    try:
        total = space_at(settings.gateway.data_dir).total
    except OSError:
        return
    wanted = settings.disk.thresholds
    fitted = wanted.fitted(total)
    for key, configured, used in (
        ("soft_free_bytes", wanted.soft, fitted.soft),
        ("hard_free_bytes", wanted.hard, fitted.hard),
        ("ballast_bytes", wanted.ballast, fitted.ballast),
    ):
        if used < configured:
            yield ("disk", key), f"too much for a file system of {total} bytes: {used} is used instead of {configured}"


def _summary(loaded: Loaded) -> str:
    settings, count = loaded.settings, len(loaded.files)
    return (
        f"{loaded.files[0]} is valid: {count} {'file' if count == 1 else 'files'}, {len(settings.routes)} routes, "
        f"tiers {', '.join(settings.tiers)}, topics below {settings.prefix}, hash {loaded.config_hash}"
    )
