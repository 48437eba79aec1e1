"""One event, one line, and never the text of a question."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from mqrouter import logs

ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x9b31m"
NASTY = "evil\n2026-01-01 [info] forged\r\x1b[31mred\x00\x07 \u2028\u0085 end"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    config = structlog.get_config()
    yield
    structlog.configure(**config)


def written(
    stream: io.StringIO,
    *,
    fmt: str = "auto",
    level: str = "info",
    include_text: bool = False,
    fields: dict[str, Any] | None = None,
) -> str:
    logs.configure(level=level, fmt=fmt, include_text=include_text, stream=stream)
    structlog.get_logger("test").info("intake.request_rejected", **(fields or {}))
    return stream.getvalue()


def test_off_a_terminal_a_line_is_json() -> None:
    value = json.loads(written(io.StringIO(), fields={"device": "d1", "elapsed_ms": 3}))
    assert (value["event"], value["level"], value["device"]) == ("intake.request_rejected", "info", "d1")
    assert value["timestamp"].endswith("Z")


def test_on_a_terminal_a_line_is_for_people() -> None:
    line = written(Terminal(), fields={"device": "d1"})
    assert "intake.request_rejected" in line
    assert not line.startswith("{")


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("nasty", [NASTY, ESCAPES])
def test_text_from_outside_cannot_forge_a_line(fmt: str, stream: type[io.StringIO], nasty: str) -> None:
    text = written(stream(), fmt=fmt, fields={"topic": nasty, "nested": {"topic": nasty}})
    assert len(text.splitlines()) == 1
    rest = text.rstrip("\n")
    if stream is io.StringIO:
        assert all(char.isprintable() for char in rest)
    assert "\x1b[31mred" not in rest and "\x07" not in rest and "\x9b" not in rest


@pytest.mark.parametrize("name", sorted(logs.TEXT_FIELDS))
def test_text_of_a_question_is_left_out(name: str) -> None:
    assert "secret words" not in written(io.StringIO(), fields={name: "secret words"})


def test_text_is_written_where_the_operator_switched_it_on() -> None:
    assert "secret words" in written(io.StringIO(), include_text=True, fields={"question": "secret words"})


def test_level_is_respected() -> None:
    assert written(io.StringIO(), level="warning") == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_exception_is_reported(stream: type[io.StringIO]) -> None:
    out = stream()
    logs.configure(level="info", fmt="auto", include_text=False, stream=out)
    try:
        raise ValueError("a bug")
    except ValueError:
        structlog.get_logger("test").exception("decide.failed")
    assert "ValueError: a bug" in out.getvalue()
    if stream is io.StringIO:
        assert "Traceback" in json.loads(out.getvalue())["exception"]


def test_values_that_are_no_json_do_not_break_the_line() -> None:
    value = json.loads(written(io.StringIO(), fields={"data": b"\xff", "half": "\ud800", "thing": object()}))
    assert value["event"] == "intake.request_rejected"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_traceback_shows_no_variables(stream: type[io.StringIO]) -> None:
    out = stream()
    logs.configure(level="info", fmt="auto", include_text=False, stream=out)
    question = " ".join(["who", "owes", "me"])  # a local variable of the frame that fails
    try:
        raise ValueError(len(question))
    except ValueError:
        structlog.get_logger("test").exception("decide.failed")
    assert "Traceback" in out.getvalue()
    assert "who owes me" not in out.getvalue()
