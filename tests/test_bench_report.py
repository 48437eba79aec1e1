"""What tools/bench prints: each bench's rows as soon as it is done, in columns or as one JSON document."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    return import_module("benchmarks.report")


def test_rows_stand_below_their_head_as_soon_as_they_are_known(report: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with report.Table() as table:
        table.add([report.Figure("startup", "ready", 0.5, "s", 1.5, "limit", "<= 1.0")])
        head, row = capsys.readouterr().out.splitlines()
        assert [head.index(name) for name in ("what", "ratio")] == [row.index(text) for text in ("ready", "0.33")]
        table.add([report.Figure("queue", "w" * 99, 1.0, "ms"), report.Figure("queue", "claim", 2.0, "ms")])
        longest, short = capsys.readouterr().out.splitlines()
    assert longest.index("1 ms") == short.index("2 ms") > head.index("value")


def test_json_is_one_document_with_what_was_measured_before_a_bench_failed(
    report: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(OSError), report.JsonList() as rows:
        rows.add([report.Figure("startup", "ready", 0.5, "s", 1.5), report.Figure("startup", "help", 0.25, "s")])
        assert '"help"' in capsys.readouterr().out
        raise OSError("no broker")
    with suppress(OSError), report.JsonList() as rows:
        rows.add([report.Figure("startup", "ready", 3.0, "s", 1.5), report.Figure("startup", "help", 0.25, "s")])
        raise OSError("no broker")
    found = json.loads(capsys.readouterr().out.removeprefix("\n]\n"))
    assert [(row["what"], row["ratio"]) for row in found] == [("ready", 2.0), ("help", None)]
    with report.JsonList():
        pass
    assert json.loads(capsys.readouterr().out) == []
