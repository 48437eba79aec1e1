"""The configuration before it is understood: files and environment merged, each value with its source."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mqrouter.config.keys import Finding, dotted
from mqrouter.config.toml_positions import KeyPath, Position, positions
from mqrouter.errors import ConfigError, Problem
from mqrouter.settings import Settings

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class TomlFile:
    """A file that could be read and parsed."""

    path: Path
    text: str
    data: dict[str, Any]

    @cached_property
    def _positions(self) -> dict[KeyPath, Position]:
        return positions(self.text)

    def position(self, path: KeyPath) -> Position | None:
        """Returns where the key stands, or else the nearest table around it in this file."""
        while path and path not in self._positions:
            path = path[:-1]
        return self._positions.get(path)

    def problem(self, path: KeyPath, message: str) -> Problem:
        at = self.position(path) or Position(0, 0)
        return Problem(dotted(path), message, str(self.path), at.line, at.column)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that sets the key at `path`."""

    name: str
    path: KeyPath
    value: Any

    def problem(self, path: KeyPath, message: str) -> Problem:
        inside = "" if path == self.path else f"{dotted(path)}: "
        return Problem(self.name, inside + message, file="environment")


Source = TomlFile | Variable


def read(path: Path) -> TomlFile:
    """Returns the parsed file. Raises ConfigError with the place of a syntax error."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem("", _why_unreadable(error), str(path))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(path, error)]) from error
    try:
        return TomlFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(path, text, str(error))]) from error
    except RecursionError as error:
        raise ConfigError([Problem("", "is nested too deeply", str(path))]) from error


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; `mqrouter init` writes a starting configuration"
    return f"cannot be read: {error.strerror or error}"


def _not_utf8(path: Path, error: UnicodeDecodeError) -> Problem:
    before = error.object[: error.start].decode("utf-8-sig")
    line, column = _end_of(before)
    return Problem("", "is not UTF-8 text; save the file as UTF-8", str(path), line, column)


def _syntax_problem(path: Path, text: str, message: str) -> Problem:
    found = _AT.search(message)
    if found is None:
        return Problem("", f"not TOML: {message}", str(path))
    line, column = (int(found[1]), int(found[2])) if found[1] else _end_of(text)
    return Problem("", f"not TOML: {message[: found.start()]}", str(path), line, column)


def _end_of(text: str) -> tuple[int, int]:
    line_start = text.rfind("\n") + 1
    return text.count("\n") + 1, len(text) - line_start + 1


@dataclass
class Merged:
    """`data` is what all sources say together; `main` is blamed for what none of them says.

    `is_complete` is False once a file could not be read: what seems missing may stand there.
    """

    main: Path
    data: dict[str, Any] = field(default_factory=dict)
    files: list[TomlFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_complete: bool = True
    _owners: dict[KeyPath, Source] = field(default_factory=dict)

    def source(self, path: KeyPath) -> Source | None:
        """Returns what set the value at `path`, or else the nearest table around it."""
        while path and path not in self._owners:
            path = path[:-1]
        return self._owners.get(path)

    def problem(self, finding: Finding) -> Problem:
        """Returns the finding with its place."""
        message = finding.message if finding.see is None else f"{finding.message} ({self.place(finding.see)})"
        source = self.source(finding.path)
        if source is None:
            return Problem(dotted(finding.path), message, str(self.main))
        return source.problem(finding.path, message)

    def place(self, path: KeyPath) -> str:
        """Returns `file:line:column`, or the variable, in which the key is set."""
        source = self.source(path)
        if isinstance(source, Variable):
            return f"environment variable {source.name}"
        at = None if source is None else source.position(path)
        return "default" if source is None or at is None else f"{source.path}:{at.line}:{at.column}"

    def take(self, path: Path) -> None:
        """Takes an included file in, or notes why it cannot."""
        try:
            self.add(read(path))
        except ConfigError as error:
            self.problems += error.problems
            self.is_complete = False

    def add(self, file: TomlFile) -> None:
        """Takes a file in, and notes each key that another file sets already."""
        self.files.append(file)
        if len(self.files) > 1 and "include" in file.data:
            self.problems.append(file.problem(("include",), f"is for the main file only ({self.main})"))
        self._add(file, file.data, self.data, ())

    def _add(self, file: TomlFile, new: dict[str, Any], into: dict[str, Any], path: KeyPath) -> None:
        for key, value in new.items():
            here = (*path, key)
            if key not in into:
                into[key] = {} if isinstance(value, dict) else value
                self._owners[here] = file
            if isinstance(value, dict) and isinstance(into[key], dict):
                self._add(file, value, into[key], here)
            elif self._owners[here] is not file:
                message = f"is already set in {self.place(here)}; keep one of the two"
                self.problems.append(file.problem(here, message))

    def override(self, variable: Variable) -> None:
        """Lets the variable have the last word, or notes what stands in its way."""
        self._give_default_tiers(variable.path)
        table = self.data
        for depth, key in enumerate(variable.path[:-1], start=1):
            inner = table.setdefault(str(key), {})
            if not isinstance(inner, dict):
                message = f"{dotted(variable.path[:depth])} is no table; set it as a whole"
                self.problems.append(variable.problem(variable.path, message))
                return
            self._owners.setdefault(variable.path[:depth], variable)
            table = inner
        table[str(variable.path[-1])] = variable.value
        self._own(variable)

    def _give_default_tiers(self, path: KeyPath) -> None:
        """Changing one key of a default tier is not to take its others, or the other tiers, away."""
        if path[0] == "tiers" and len(path) > 1 and "tiers" not in self.data:
            self.data |= Settings().model_dump(mode="json", include={"tiers"}, exclude_none=True)

    def _own(self, variable: Variable) -> None:
        depth = len(variable.path)
        for inner in [path for path in self._owners if path[:depth] == variable.path]:
            del self._owners[inner]
        self._owners[variable.path] = variable
