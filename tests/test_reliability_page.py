"""The page on reliability promises what tests show: each fault it names has one, and each fault's test is on it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "deploy/reliability/README.md").read_text(encoding="utf-8")


def _named() -> set[str]:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 4]
    return {number for row in rows for number in re.findall(r"\b\d\d\b", row.rsplit("|", 2)[1])}


def _tested() -> set[str]:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests/faults").glob("test_fault_*.py"))
    return {number for source in sources for number in re.findall(r"def test_fault_(\d\d)_", source)}


def test_every_fault_that_is_named_is_tested_and_every_tested_one_named() -> None:
    assert _named() == _tested() == {f"{number:02}" for number in range(1, 43)}
