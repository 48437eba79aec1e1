"""What the bench asks, read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mqrouter.bench.questions import QuestionsError, read_questions, unknown_labels


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "q.jsonl"
    path.write_text("\n\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_labels_are_the_accepted_routes(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "route": "x", "also": ["y"]},
        {"question": "b", "expected": "x"},
        {"question": "c", "route": None},
        {"question": "d"},
    ]
    asked = read_questions(write(tmp_path, *rows))
    assert [one.accepted for one in asked] == [frozenset("xy"), frozenset("x"), frozenset([None]), None]
    assert [one.number for one in asked] == [1, 2, 3, 4]


def test_plain_lines_are_questions_without_labels(tmp_path: Path) -> None:
    asked = read_questions(write(tmp_path, "  is it raining?", "fix {this}"))
    assert [(one.question.text, one.accepted) for one in asked] == [("is it raining?", None), ("fix {this}", None)]


def test_what_an_answer_depends_on_is_read(tmp_path: Path) -> None:
    (asked,) = read_questions(
        write(tmp_path, {"question": "a", "context": "field 3", "private": True, "device": "barn"})
    )
    assert (asked.device, asked.question.context, asked.question.is_private) == ("barn", "field 3", True)


@pytest.mark.parametrize(
    "row",
    [{"route": "x"}, {"question": " "}, {"question": 7}, {"question": "a", "route": 3}, '{"question": ', "[1]",
     {"question": "a", "private": "yes"}, {"question": "a", "device": None}],
)  # fmt: skip
def test_bad_line_is_named_with_what_is_expected(tmp_path: Path, row: object) -> None:
    with pytest.raises(QuestionsError, match=r"q\.jsonl: question 2: expected"):
        read_questions(write(tmp_path, {"question": "fine"}, row))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\xff"])
def test_file_without_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(content)
    with pytest.raises(QuestionsError, match=r"q\.txt"):
        read_questions(path)


def test_labels_of_no_route_are_found(tmp_path: Path) -> None:
    asked = read_questions(write(tmp_path, {"question": "a", "route": "x", "also": ["z"]}, {"question": "b"}))
    assert unknown_labels(asked, {"x"}) == ["z"]
