"""What `mqrouter top` makes of what it reads: rates, ages, reasons, the filter line, the log's end, its refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mqrouter.cli import top
from mqrouter.cli.top.figures import History, attempts, coarse_age, joined, labelled, quiet, sparkline, why
from mqrouter.cli.top.filter_line import FilterError, parse
from mqrouter.cli.top.log_tail import TAIL_BYTES, tail
from mqrouter.cli.top.source import Overview, RefusedError, Source
from mqrouter.core.waiting import Standing, TierStanding
from mqrouter.settings import Gateway

PENDING: dict[str, Any] = dict.fromkeys(("tier", "reason", "detail", "next_attempt_in_s", "last_failure", "is_suspect"))
PENDING |= {"state": "pending", "route": "frost", "waiting_for": "hub>edge", "attempts": 0}


def look(at_s: float, *, new: int, delivered: int, pending: int = 0) -> Overview:
    requests = {"received": 0, "pending": pending, "leased": 0}
    return Overview({"accepted": {"new": new}, "delivered": delivered, "requests": requests}, {}, at_s=at_s)


def test_rates_are_of_the_latest_minute() -> None:
    history = History()
    history.add(look(0, new=100, delivered=0))
    history.add(look(30, new=110, delivered=5))
    assert history.per_minute() == {"in": 20, "out": 10}
    history.add(look(90, new=110, delivered=65))
    assert history.per_minute() == {"in": 0, "out": 60}


def test_rates_begin_anew_with_another_life_of_the_daemon() -> None:
    history = History()
    history.add(look(0, new=100, delivered=90))
    history.add(look(10, new=3, delivered=0))
    assert history.per_minute() == {}
    history.add(Overview(None, {"requests": {"pending": 4}}))
    history.add(look(30, new=9, delivered=0))
    assert history.per_minute() == {}
    assert list(history.depths) == [0, 0, 4, 0]


def test_sparkline_reaches_from_nothing_to_the_most() -> None:
    assert sparkline([0, 7, 14]) == "▁▅█"
    assert sparkline([0, 0]) == "▁▁"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "<1m"), (59.9, "<1m"), (60, "1m"), (3599, "59m"), (3600, "1h"), (90_000, "25h"), (200_000, "2d")],
)
def test_age_changes_at_most_once_a_minute(seconds: float | None, shown: str) -> None:
    assert coarse_age(seconds) == shown


def test_greatest_counts_come_first_and_the_rest_is_counted() -> None:
    assert joined([("a", 1), ("b", 5), ("c", 5)], most=2) == "b 5 · c 5 · 1 more"


def test_attempts_are_those_of_one_tier() -> None:
    samples = {
        'mqrouter_attempt_seconds_count{outcome="answered",tier="hub"}': 3.0,
        'mqrouter_attempt_seconds_count{outcome="retry",tier="hub"}': 1.0,
        'mqrouter_attempt_seconds_count{outcome="answered",tier="edge"}': 9.0,
    }
    assert attempts(samples, "hub") == {"answered": 3, "retry": 1}
    assert labelled({'mqrouter_power_watts{sensor="a \\"b\\""}': 1.5}, "power_watts") == [
        ({"sensor": 'a \\"b\\"'}, 1.5)
    ]


def test_reason_to_wait_changes_seldom_and_names_how_it_ended() -> None:
    hub = TierStanding(is_up=False, is_open=True, reason="refused", probe_in_s=7.0)
    standing = quiet(Standing({"hub": hub, "edge": TierStanding(held_s=61.0)}))
    assert why(PENDING, standing) == "hub is down (refused); edge asked to be left alone for 2.0 min"
    later = [why(PENDING | {"next_attempt_in_s": in_s}, standing) for in_s in (41.0, 59.0, 61.0)]
    assert later == ["next try in 1.0 min", "next try in 1.0 min", "next try in 2.0 min"]
    assert why(PENDING | {"state": "expired", "reason": "expired"}, standing) == "expired"
    assert why(PENDING | {"state": "leased", "tier": "hub"}, standing) == "hub is working on it"


def test_filter_line_is_the_filter_of_the_api() -> None:
    line = 'state:pending,leased route:frost older-than:2h priority:9 error:"HTTP 503" brown spots'
    assert parse(line) == {
        "state": ["pending", "leased"],
        "route": "frost",
        "older_than_s": 7200.0,
        "priority": 9,
        "error": "HTTP 503",
        "text": "brown spots",
    }
    assert parse("  ") == {}
    assert "dead" in parse("state:all")["state"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("colour:red", "colour is not known"),
        ("state:waiting", "states are received"),
        ("older-than:2", "no length of time"),
        ("priority:10", "0 to 9"),
        ("route:", "says nothing"),
        ("route:a route:b", "given twice"),
        ('error:"HTTP', "close the quotation"),
    ],
)
def test_filter_line_that_makes_no_sense_is_refused(line: str, why: str) -> None:
    with pytest.raises(FilterError, match=why):
        parse(line)


def test_end_of_the_log_is_shown_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    file = tmp_path / "mqrouter.log"
    event = {"timestamp": "2026-01-02T03:04:05Z", "level": "info", "event": "tier.up", "tier": "hub\u001b[2J"}
    file.write_text(f"{json.dumps(event)}\nplain \x1b[31mline\n", encoding="utf-8")
    first, second = tail(file, 10)
    assert first.endswith("info    tier.up  tier=hub�[2J") and first[2] == ":"
    assert second == "plain �[31mline"
    assert tail(file, 1) == [second]


def test_long_log_is_read_from_near_its_end(tmp_path: Path) -> None:
    file = tmp_path / "mqrouter.log"
    file.write_text("".join(f"line {number:06d}\n" for number in range(20_000)), encoding="utf-8")
    found = tail(file, 10_000)
    assert found[-1] == "line 019999"
    assert all(len(line) == len("line 000000") for line in found) and len(found) < TAIL_BYTES / 10


def test_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    (line,) = tail(tmp_path / "none.log", 10)
    assert "No such file" in line


def test_read_only_view_refuses_orders_whatever_key_was_pressed(tmp_path: Path) -> None:
    source = Source(Gateway(data_dir=tmp_path), log_file=None, is_read_only=True)
    with pytest.raises(RefusedError, match="read-only"):
        source.order("cancel", ["a"], {})
    with pytest.raises(RefusedError, match="read-only"):
        source.steer("tiers", "hub", "pause")


def test_order_to_a_daemon_that_is_down_says_so(tmp_path: Path) -> None:
    source = Source(Gateway(data_dir=tmp_path), log_file=None, is_read_only=False)
    with pytest.raises(RefusedError, match="not running"):
        source.order("cancel", ["a"], {})


def test_gateway_that_never_ran_says_so(tmp_path: Path) -> None:
    overview = Source(Gateway(data_dir=tmp_path), log_file=None, is_read_only=True).overview()
    assert not overview.is_running
    assert "there is no database" in str(overview.trouble)


def test_missing_extra_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "find_spec", lambda _name: None)
    result = CliRunner().invoke(top.command, [])
    assert (result.exit_code, "pip install 'mqrouter[top]'" in result.stderr) == (1, True)


def test_view_without_a_terminal_points_to_once() -> None:
    result = CliRunner().invoke(top.command, [])
    assert (result.exit_code, "top --once" in result.stderr) == (2, True)


def test_json_goes_with_once() -> None:
    result = CliRunner().invoke(top.command, ["--json"])
    assert (result.exit_code, "--json goes with --once" in result.stderr) == (2, True)


def test_textual_is_imported_for_the_view_alone(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from mqrouter.cli.top import command, snapshot, source; print('textual' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout == "False\n", done.stderr
