"""TOML files and environment in, settings out; whatever is wrong comes back all at once, with its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from mqrouter.config.environment import FILE_VARIABLE, INCLUDE_VARIABLE, misspelt, variables
from mqrouter.config.keys import Finding, has_value, leaves
from mqrouter.config.rules import Understood, local_findings, reference_findings, understood
from mqrouter.config.sources import Merged, Variable, read
from mqrouter.config.toml_positions import KeyPath
from mqrouter.config.words import findings, strictly
from mqrouter.errors import ConfigError, Problem
from mqrouter.settings import Gateway, Routing, Settings, Tls, UpstreamTier

PLACES = (Path("mqrouter.toml"), Path("/etc/mqrouter/mqrouter.toml"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was set: in a file, by a variable, or nowhere: then it is the default."""

    file: Path | None = None
    line: int = 0
    column: int = 0
    variable: str | None = None

    def __str__(self) -> str:
        if self.variable is not None:
            return f"environment variable {self.variable}"
        return "default" if self.file is None else f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Loaded:
    """A valid configuration. `files` begins with the main one; `config_hash` is the same on every machine."""

    settings: Settings
    files: tuple[Path, ...]
    config_hash: str
    _merged: Merged = field(repr=False, compare=False)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Returns a problem with the place where the key is set."""
        return self._merged.problem(Finding(path, message))

    @cached_property
    def origins(self) -> Mapping[KeyPath, Origin]:
        """Where each value of the settings comes from."""
        return MappingProxyType({path: self._origin(path) for path, _ in leaves(self.settings)})

    def _origin(self, path: KeyPath) -> Origin:
        source = self._merged.source(path) if has_value(self._merged.data, path) else None
        if isinstance(source, Variable):
            return Origin(variable=source.name)
        at = None if source is None else source.position(path)
        return Origin() if source is None or at is None else Origin(source.path, at.line, at.column)


def find_config(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Returns the main file: the option's, else $MQROUTER_CONFIG, else the first that exists of PLACES.

    Raises ConfigError naming the places.
    """
    if option is not None:
        return option
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    found = next((place for place in PLACES if _exists(place)), None)
    if found is None:
        message = (
            f"no configuration: looked for {' and '.join(map(str, PLACES))}; name one with --config or "
            f"${FILE_VARIABLE}, or write a starting one with `mqrouter init`"
        )
        raise ConfigError([Problem("", message)])
    return found


def load(path: Path, environ: Mapping[str, str], *, strategies: Collection[str] | None = None) -> Loaded:
    """Returns the settings that a main file, what it includes and the environment make together.

    Raises ConfigError with every problem there is. Reads files and nothing else: secrets stay references.
    `strategies` are the names that routing.strategy may have; without them the registered ones.
    """
    merged = _merged(path, environ)
    settings, wrong = _validated(merged.data)
    wrong += _cross_checked(merged, strategies)
    problems = merged.problems + [merged.problem(finding) for finding in wrong]
    if problems or settings is None:
        raise ConfigError(sorted(problems, key=partial(_reading_order, str(path))))
    files = tuple(file.path for file in merged.files)
    return Loaded(_in_place(settings, path), files, _hash(settings), merged)


def load_gateway(path: Path, environ: Mapping[str, str]) -> Gateway | None:
    """Returns [gateway] of a configuration in which other things may be wrong; None where it cannot be read itself."""
    try:
        gateway = strictly(Gateway, _merged(path, environ).data.get("gateway", {}))
        return cast(Gateway, _anchored(gateway, path.absolute().parent))
    except (ConfigError, ValidationError, RuntimeError):
        return None


def _in_place(settings: Settings, main: Path) -> Settings:
    try:
        return cast(Settings, _anchored(settings, main.absolute().parent))
    except RuntimeError as error:
        message = f"a path begins with ~, and there is no home folder ({error}); write absolute paths"
        raise ConfigError([Problem("gateway", message, str(main))]) from error


def _reading_order(main: str, problem: Problem) -> tuple[bool, bool, str, int, int]:
    """The main file first, the environment last."""
    return (
        problem.file == "environment",
        problem.file != main,
        problem.file,
        problem.line,
        problem.column,
    )


def _merged(path: Path, environ: Mapping[str, str]) -> Merged:
    merged = Merged(path)
    merged.add(read(path))
    _override(merged, {name: text for name, text in environ.items() if name == INCLUDE_VARIABLE})
    for further in _included(merged):
        merged.take(further)
    _override(merged, environ)
    merged.problems += misspelt(environ, merged.data)
    return merged


def _override(merged: Merged, environ: Mapping[str, str]) -> None:
    for variable in variables(environ, merged.data):
        merged.override(variable)


def _included(merged: Merged) -> list[Path]:
    """Returns the further files, sorted within each pattern; none of a value that is no array of texts."""
    default = Settings.model_fields["include"].default
    patterns = merged.data.get("include", default)
    found: dict[Path, None] = {}
    for pattern in patterns if isinstance(patterns, list) else []:
        found |= dict.fromkeys(_matches(merged, pattern, is_default=patterns is default))
    return [path for path in found if path.resolve() != merged.main.resolve()]


def _matches(merged: Merged, pattern: object, *, is_default: bool) -> list[Path]:
    """Returns the files of one pattern. One without wildcards means a file that has to be there."""
    if not isinstance(pattern, str):
        return []
    try:
        found = _glob(merged.main.parent, Path(pattern).expanduser())
        paths = sorted(path for path in found if path.is_file())
    except (ValueError, RuntimeError, OSError) as error:
        merged.problems.append(merged.problem(Finding(("include",), f'"{pattern}" is no usable pattern: {error}')))
        return []
    if not paths and not is_default and not any(char in pattern for char in "*?["):
        merged.problems.append(merged.problem(Finding(("include",), f'there is no file "{pattern}"')))
    return paths


def _glob(folder: Path, pattern: Path) -> Iterator[Path]:
    if not pattern.name:
        raise ValueError("it names no file")
    if pattern.is_absolute():
        return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    return folder.glob(str(pattern))


def _validated(data: dict[str, Any]) -> tuple[Settings | None, list[Finding]]:
    try:
        return strictly(Settings, data), []
    except ValidationError as error:
        return None, findings(error, data)


def _cross_checked(merged: Merged, strategies: Collection[str] | None) -> list[Finding]:
    parts = understood(merged.data)
    found = list(local_findings(parts))
    if merged.is_complete:
        strategies = _strategies(parts) if strategies is None else strategies
        found += [_explained(finding, merged.data) for finding in reference_findings(parts, strategies)]
    if parts.mqtt is not None:
        found += _file_findings(parts.mqtt.tls, ("mqtt", "tls"), merged.main.absolute().parent)
    for name, tier in parts.upstream_tiers.items():
        found += _file_findings(tier, ("tiers", name), merged.main.absolute().parent)
    return [finding for finding in found if not parts.has_dropped(finding.path)]


def _explained(finding: Finding, data: dict[str, Any]) -> Finding:
    """A default that does not fit stands on nobody's line: says that the key has to be set."""
    if finding.path == ("routes",) or has_value(data, finding.path):
        return finding
    return replace(finding, message=f"{finding.message} (this is the default: set the key)")


def _strategies(parts: Understood) -> Collection[str]:
    """The default is always there; only another one is worth importing the registry for."""
    default = Routing.model_fields["strategy"].default
    if {parts.strategy, *(listener.strategy for listener in parts.listeners.values())} <= {None, default}:
        return {default}
    from mqrouter.routing.registry import strategy_names

    return strategy_names()


def _file_findings(section: Tls | UpstreamTier, path: KeyPath, folder: Path) -> Iterator[Finding]:
    for key, file in leaves(section, path):
        try:
            missing = isinstance(file, Path) and not _exists(_anchored(file, folder))
        except RuntimeError:
            continue  # no home folder: said once, of the whole
        if missing:
            yield Finding(key, f"there is no file {_anchored(file, folder)}")


def _exists(file: Path) -> bool:
    """True also for a file in a folder this user may not look into: the daemon's user may."""
    try:
        return file.is_file()
    except PermissionError:
        return True


def _anchored(value: Any, folder: Path) -> Any:
    """Returns the value with every path in it absolute: below `folder`, or below home where it begins with ~.

    Raises RuntimeError where there is no home.
    """
    match value:
        case Path():
            return folder / value.expanduser()
        case BaseModel():
            return value.model_copy(update={key: _anchored(inner, folder) for key, inner in value})
        case dict():
            return {key: _anchored(inner, folder) for key, inner in value.items()}
        case list():
            return [_anchored(inner, folder) for inner in value]
    return value


def _hash(settings: Settings) -> str:
    """Returns 16 hexadecimal digits that change with any setting, and not with the folder it is all in."""
    values = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()[:16]
