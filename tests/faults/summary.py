"""One line of counts for each judgement at the end of a test run."""

from __future__ import annotations

from collections.abc import Iterator

import oracle
import pytest

COUNTS = "counts"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-kill-points", action="store_true", help="kill at each of the first 200 syncs, and writes")


@pytest.fixture
def all_kill_points(request: pytest.FixtureRequest) -> bool:
    # Not known where this folder is not named on the command line.
    return bool(request.config.getoption("--all-kill-points", default=False))


@pytest.fixture(autouse=True)
def counts_in_the_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(oracle, "on_judged", lambda counts: request.node.user_properties.append((COUNTS, str(counts))))
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {counts}"
        for report in reports
        if report.when == "call"
        for name, counts in report.user_properties
        if name == COUNTS
    ]
    if lines:
        terminalreporter.section("faults: what was counted")
        for line in sorted(lines):
            terminalreporter.line(line)
