"""One event, one line, and never the text of a question."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from mqrouter import logs
from mqrouter.core.components import COMPONENTS
from mqrouter.log_file import LogLimits

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


# --- levels of components, files, the journal ----------------------------------------------------------


def told(stream: io.StringIO, *, level: str, levels: dict[str, str]) -> list[str]:
    """Returns the events that pass: one at each level, of three components."""
    logs.configure(level=level, levels=levels, fmt="json", include_text=False, stream=stream)
    log = structlog.get_logger("test")
    for component in ("mqtt", "upstream", "tier"):
        for method in ("debug", "info", "error"):
            getattr(log, method)(f"{component}.{method}")
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_component_has_a_level_of_its_own() -> None:
    found = told(io.StringIO(), level="info", levels={"upstream": "debug", "tier": "error"})
    assert found == ["mqtt.info", "mqtt.error", "upstream.debug", "upstream.info", "upstream.error", "tier.error"]


def test_components_quieter_than_the_rest_leave_the_rest() -> None:
    assert "mqtt.debug" in told(io.StringIO(), level="debug", levels={"upstream": "error", "tier": "error"})


def test_exception_of_a_component_passes_as_an_error() -> None:
    out = io.StringIO()
    logs.configure(level="info", levels={"chat": "error"}, fmt="json", include_text=False, stream=out)
    try:
        raise ValueError("a bug")
    except ValueError:
        structlog.get_logger("test").exception("chat.failed")
    assert json.loads(out.getvalue())["event"] == "chat.failed"


def test_every_component_that_logs_can_be_named_and_no_other() -> None:
    called = re.compile(r"""(?:log|self\._log|write)(?:\.\w+)?\(\s*f?"([a-z_]+)\.[a-z_0-9]+"\s*[,)]""")
    sources = (path.read_text(encoding="utf-8") for path in Path(logs.__file__).parent.rglob("*.py"))
    assert {name for text in sources for name in called.findall(text)} == COMPONENTS


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_journal_is_told_the_priority_of_each_line(fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as journal:
        stat = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        logs.configure(level="debug", fmt=fmt, include_text=False, stream=journal)
        log = structlog.get_logger("test")
        for method in ("debug", "info", "warning", "error"):
            getattr(log, method)("mqtt.happened")
        try:
            raise ValueError("a bug")
        except ValueError:
            log.exception("mqtt.failed")
        journal.seek(0)
        marks = [line[:3] for line in journal]
    assert marks[:4] == ["<7>", "<6>", "<4>", "<3>"]
    assert set(marks[4:]) == {"<3>"}


def test_stderr_put_elsewhere_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "file").open("w+", encoding="utf-8") as stream:
        logs.configure(level="info", fmt="json", include_text=False, stream=stream)
        structlog.get_logger("test").info("mqtt.happened")
        stream.seek(0)
        assert stream.read().startswith("{")


def test_file_in_use_is_closed_once_another_is(tmp_path: Path) -> None:
    limits = LogLimits(1_000, 1, 1)
    first, second = (logs.open_file(tmp_path / name, limits) for name in ("a", "b"))
    logs.take_file(first)
    logs.take_file(second)
    assert first is not None and second is not None
    first.write("late\n")
    second.write("in time\n")
    logs.take_file(None)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("", "in time\n")
