"""Labelled files: what cannot be read is said with file and line, and never ends in a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mqrouter.cli.labelled import FileError
from mqrouter.cli.labelled_file import read_also, read_labelled, read_outcomes, read_splits, require_examples

GOOD = '{"question": "a", "route": "r"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + '{"question": 5, "route": null}', ":2: question is not text"),
        (GOOD + '\n{"question": "a", "route": ["x"]}', ":3: route is neither a route nor null"),
        (GOOD + '{"question": "", "route": "x"}', ":2: question is empty"),
        (GOOD + '{"route": "x"}', ":2: there is no question"),
        (GOOD + '{"question": "x"}', ":2: there is no route"),
        (GOOD + "[1]", ":2: not an object"),
        (GOOD + "[" * 100_000, ":2: not JSON: nested too deeply"),
        (GOOD + '{"question": "\\ud800", "route": null}', ":2: question has half a surrogate pair"),
        ("\n", "there is no question in it"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(FileError, match=r"expected lines of") as error:
        read_labelled(tmp_path / "q.jsonl")
    assert f"q.jsonl{message}" in error.value.message or f"q.jsonl: {message}" in error.value.message


@pytest.mark.parametrize("also", ["3", '"r"', "[1]"])
def test_also_is_a_list_of_routes(tmp_path: Path, also: str) -> None:
    (tmp_path / "q.jsonl").write_text(GOOD + f'{{"question": "b", "route": "r", "also": {also}}}')
    with pytest.raises(FileError, match=r"q\.jsonl:2: also is not a list of routes"):
        read_also(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,r\nb\n", ":3: there is no label"),
        ("text,label\na, and b,r\n", ":2: more fields than columns"),
        ("text,route\na,r\n", ":1: there is no column label"),
        ('text,label\n"a,r\n', ":2: unexpected end of data"),
        ("", ":1: there is no column text, label"),
        ("text,label\n", ": there is no question in it"),
    ],
)
def test_wrong_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(FileError) as error:
        read_labelled(tmp_path / "q.csv")
    assert f"q.csv{message}" in error.value.message


def test_what_programs_write_is_read(tmp_path: Path) -> None:
    separated = json.dumps({"question": "a\u2028b", "route": None}, ensure_ascii=False)
    (tmp_path / "q.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{separated}\r\n{GOOD}".encode())
    assert read_labelled(tmp_path / "q.jsonl") == [("a\u2028b", None), ("a", "r")]
    (tmp_path / "q.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"a\nb, c",r\r\nd,\r\n')
    assert read_labelled(tmp_path / "q.csv") == [("a\nb, c", "r"), ("d", None)]


@pytest.mark.parametrize("name", ["q.jsonl", "q.csv"])
def test_file_that_is_no_text_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not UTF-8"):
        read_labelled(tmp_path / name)
    with pytest.raises(FileError, match=r"nowhere: cannot be read"):
        read_labelled(tmp_path / "nowhere")


def test_splits_take_null_for_no_route_and_name_the_wrong_entry(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"train": [["a", "r"], ["b", null]]}')
    assert read_splits(path) == {"train": [("a", "r"), ("b", None)]}
    for wrong in ('["b"]', '["b", 3]', "5", '["", "r"]'):
        path.write_text(f'{{"train": [["a", "r"], {wrong}]}}')
        with pytest.raises(FileError, match=r"s\.json: .train., entry 2: "):
            read_splits(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "1.5", "yes", ""])
def test_outcome_is_a_share(tmp_path: Path, value: str) -> None:
    path = tmp_path / "o.csv"
    path.write_text("prompt,weak_correct,strong_correct\n" + 30 * "a,0,1\n" + f"b,0,{value}\n")
    with pytest.raises(FileError, match=r"o\.csv:32: strong_correct is .*, not a number from 0 to 1"):
        read_outcomes(path)


def test_route_with_too_few_examples_is_named() -> None:
    pairs = [("a", "full"), ("b", "full"), ("c", "poor"), ("d", None)]
    with pytest.raises(FileError, match=r"x\.json: too few examples of poor: two"):
        require_examples(pairs, "x.json")
    with pytest.raises(FileError, match="no other route beside full"):
        require_examples(pairs[:2], "x.json")
