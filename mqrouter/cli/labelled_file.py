"""Files of labelled questions, read with care: what is wrong is said with its file and line."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from mqrouter.cli.labelled import FileError, Pair

LINES = 'lines of {"question": "…", "route": "…" or null} or CSV with the columns text,label'
SPLITS = 'JSON of the form {"train": [["text", "label"], …], …}, with null for no route'
OUTCOMES = "CSV with the columns prompt,weak_correct,strong_correct"
FEWEST_OUTCOMES = 20


class _Row(NamedTuple):
    line: int
    fields: dict[str, Any]


class _WrongRowError(ValueError):
    """Says what is wrong with one row."""


def read_splits(file: Path) -> dict[str, list[Pair]]:
    """Returns the named lists of [text, label] of a JSON file; a label null is of no route. Raises FileError."""
    try:
        found = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: expected {SPLITS} ({_why(error)})") from error
    if not isinstance(found, dict) or not all(isinstance(rows, list) for rows in found.values()):
        raise FileError(f"{file}: expected {SPLITS}")
    return {
        name: [_entry(file, name, number, row) for number, row in enumerate(rows, 1)] for name, rows in found.items()
    }


def split_of(splits: dict[str, list[Pair]], key: str, option: str) -> list[Pair]:
    if key not in splits:
        raise click.BadParameter(f"{key!r} is not in the file: it has {', '.join(splits)}", param_hint=option)
    if not splits[key]:
        raise click.BadParameter(f"{key!r} is empty: name a list with questions in it", param_hint=option)
    return splits[key]


def read_labelled(file: Path) -> list[Pair]:
    """Returns the questions of a JSON-lines file with `question` and `route`, or of a CSV with text and label.

    Raises FileError, also where there is none.
    """
    if file.suffix == ".csv":
        return _each(file, _csv_rows(file, ("text", "label"), LINES), _csv_pair, LINES)
    return _each(file, _json_rows(file), _json_pair, LINES)


def read_also(file: Path) -> dict[int, list[str]]:
    """Returns the further routes of a JSON-lines file's questions, its `also`, by their number. Raises FileError."""
    if file.suffix == ".csv":
        return {}
    return {number: found for number, found in enumerate(_each(file, _json_rows(file), _also, LINES)) if found}


def read_outcomes(file: Path) -> tuple[list[str], list[float]]:
    """Returns prompts, and how much more right the strong tier was, in [-1, 1]. Raises FileError."""
    rows = _csv_rows(file, ("prompt", "weak_correct", "strong_correct"), OUTCOMES)
    found = _each(file, rows, _outcome, OUTCOMES)
    if len(found) < FEWEST_OUTCOMES:
        raise FileError(f"{file}: {len(found)} outcomes are too few to say anything; {FEWEST_OUTCOMES} are the least")
    return [prompt for prompt, _ in found], [gain for _, gain in found]


def require_examples(pairs: Sequence[Pair], source: object) -> None:
    """Raises FileError naming `source` where the examples are too few to learn from and be judged by."""
    from mqrouter.routing.training import why_too_few

    if (why := why_too_few(Counter(label for _, label in pairs if label is not None))) is not None:
        raise FileError(f"{source}: {why}")


def require_in_scope(pairs: Sequence[Pair], source: object) -> None:
    """Raises FileError where no question has a route: there would be nothing to be right about."""
    if all(label is None for _, label in pairs):
        raise FileError(f"{source}: no question of it has a route: add some that have")


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8") from error


def _json_rows(file: Path) -> Iterator[_Row]:
    for number, line in enumerate(_text(file).split("\n"), start=1):  # splitlines would cut at U+2028, too
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _wrong(file, number, LINES, f"not JSON: {_why(error)}") from error
            if not isinstance(row, dict):
                raise _wrong(file, number, LINES, "not an object")
            yield _Row(number, row)


def _csv_rows(file: Path, columns: Iterable[str], expected: str) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise _wrong(file, 1, expected, f"there is no column {', '.join(missing)}")
        for row in reader:
            if None in row:
                raise _wrong(file, reader.line_num, expected, "more fields than columns: quote a text with commas")
            yield _Row(reader.line_num, row)
    except csv.Error as error:
        raise _wrong(file, reader.reader.line_num, expected, str(error)) from error


def _each(file: Path, rows: Iterable[_Row], read: Callable[[dict[str, Any]], Any], expected: str) -> list[Any]:
    """Returns what `read` makes of every row."""
    found = []
    for line, fields in rows:
        try:
            found.append(read(fields))
        except _WrongRowError as error:
            raise _wrong(file, line, expected, str(error)) from error
    if not found:
        raise FileError(f"{file}: there is no question in it; expected {expected}")
    return found


def _wrong(file: Path, line: int, expected: str, why: str) -> FileError:
    return FileError(f"{file}:{line}: {why}; expected {expected}")


def _entry(file: Path, name: str, number: int, row: Any) -> Pair:
    try:
        if not isinstance(row, list) or len(row) != 2:
            raise _WrongRowError("not a pair of text and label")
        return _question(row[0], "the text"), _route(row[1], "the label")
    except _WrongRowError as error:
        raise FileError(f'{file}: "{name}", entry {number}: {error}; expected {SPLITS}') from error


def _json_pair(row: dict[str, Any]) -> Pair:
    for key in ("question", "route"):
        if key not in row:
            raise _WrongRowError(f"there is no {key}")
    return _question(row["question"], "question"), _route(row["route"], "route")


def _csv_pair(row: dict[str, Any]) -> Pair:
    if row["label"] is None:
        raise _WrongRowError("there is no label: end the line with a comma where the question has no route")
    return _question(row["text"], "text"), row["label"] or None


def _also(row: dict[str, Any]) -> list[str]:
    found = row.get("also") or []
    if not isinstance(found, list) or not all(isinstance(route, str) for route in found):
        raise _WrongRowError("also is not a list of routes")
    return found


def _outcome(row: dict[str, Any]) -> tuple[str, float]:
    return _question(row["prompt"], "prompt"), _share(row, "strong_correct") - _share(row, "weak_correct")


def _share(row: dict[str, Any], key: str) -> float:
    try:
        found = float(row[key])
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found <= 1:
        raise _WrongRowError(f"{key} is {row[key]!r}, not a number from 0 to 1")
    return found


def _question(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongRowError(f"{name} is empty" if isinstance(value, str) or value is None else f"{name} is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _WrongRowError(f"{name} has half a surrogate pair in it") from error
    return value


def _route(value: Any, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise _WrongRowError(f"{name} is neither a route nor null")
    return value


def _why(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
