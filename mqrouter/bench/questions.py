"""What the bench asks: lines of JSON, labelled or not, or plain lines of text."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqrouter.core.request import Form, JsonObject, Message, Question


class QuestionsError(ValueError):
    """Mend the file: the message names it, the line and what is expected there."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question; `number` counts from 1, as the lines that are not blank do."""

    number: int
    question: Question
    device: str = ""
    accepted: frozenset[str | None] | None = None
    """The right routes, None among them for abstaining; None in place of the set where there is no label."""


def read_questions(file: Path) -> list[Asked]:
    """Returns the questions of a file. Raises QuestionsError."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise QuestionsError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise QuestionsError(f"{file}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    if not lines:
        raise QuestionsError(f"{file}: there is no question in it")
    if not lines[0].lstrip().startswith("{"):
        return [Asked(number, _question(line.strip(), {})) for number, line in enumerate(lines, start=1)]
    return [_asked(file, number, line) for number, line in enumerate(lines, start=1)]


def unknown_labels(asked: Collection[Asked], routes: Collection[str]) -> list[str]:
    """Returns the labels that are no route, sorted: a question under one could never be decided rightly."""
    labels = {label for one in asked for label in one.accepted or () if label is not None}
    return sorted(labels - set(routes))


def _asked(file: Path, number: int, line: str) -> Asked:
    try:
        row = json.loads(line)
        text, device = row["question"], row.get("device", "")
        if not isinstance(text, str) or not text.strip() or not isinstance(device, str):
            raise TypeError("question and device are text, and question is not empty")
        return Asked(number, _question(text, row), device, _accepted(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"question": "…", "route": "…" or null}; route (or expected) may be left out'
        raise QuestionsError(f"{file}: question {number}: expected {expected} ({error})") from error


def _question(text: str, row: JsonObject) -> Question:
    context, is_private = row.get("context"), row.get("private", False)
    if not isinstance(context, str | None) or not isinstance(is_private, bool):
        raise TypeError("context is text, private is true or false")
    return Question(text, (Message("user", text),), Form.TEXT, context=context, is_private=is_private)


def _accepted(row: dict[str, Any]) -> frozenset[str | None] | None:
    key = next((name for name in ("route", "expected") if name in row), None)
    if key is None:
        return None
    labels = [row[key], *(row.get("also") or ())]
    if not all(isinstance(label, str | None) for label in labels):
        raise TypeError(f"{key} is a route or null")
    return frozenset(labels)
