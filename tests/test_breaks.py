"""The breaks of tools/breaks still fit the sources."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BREAKS = tomllib.loads((ROOT / "tests/faults/breaks.toml").read_text(encoding="utf-8"))["breaks"]


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: str(one["name"]))
def test_line_to_break_is_there_once(one: dict[str, Any]) -> None:
    text = (ROOT / one["file"]).read_text(encoding="utf-8")
    assert (text.count(one["old"]), one["old"] != one["new"], bool(one["tests"])) == (1, True, True)
