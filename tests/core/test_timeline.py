"""The gateway's own time: what a restart makes of the machine's clocks."""

from __future__ import annotations

import pytest

from mqrouter.core.timeline import MAX_OFF_MS, Anchor, Clocks, resume

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
ANCHOR = Anchor(NOW_MS, Clocks(wall_ms=NOW_MS + 500, since_boot_ms=10_000, boot_id="one"))


def test_first_start_takes_the_wall_clock() -> None:
    assert resume(None, 0, Clocks(NOW_MS, 5, "one")) == NOW_MS


@pytest.mark.parametrize("set_by_ms", [0, 365 * DAY_MS, -365 * DAY_MS, -NOW_MS])
def test_within_a_boot_a_clock_that_was_set_moves_nothing(set_by_ms: int) -> None:
    clocks = Clocks(NOW_MS + 500 + 7_000 + set_by_ms, 17_000, "one")
    assert resume(ANCHOR, NOW_MS + 100, clocks) == NOW_MS + 7_000


@pytest.mark.parametrize("off_ms", [0, 5_000, DAY_MS, MAX_OFF_MS])
def test_across_boots_the_wall_clock_tells_how_long_the_machine_was_off(off_ms: int) -> None:
    assert resume(ANCHOR, NOW_MS, Clocks(NOW_MS + 500 + off_ms, 3, "two")) == NOW_MS + off_ms


@pytest.mark.parametrize("wall_ms", [0, NOW_MS - 365 * DAY_MS, NOW_MS + 365 * DAY_MS, NOW_MS - 1])
def test_across_boots_a_wall_clock_that_cannot_be_true_tells_nothing(wall_ms: int) -> None:
    assert resume(ANCHOR, NOW_MS + 60_000, Clocks(wall_ms, 3, "two")) == NOW_MS + 60_000


def test_time_never_goes_back_behind_what_happened() -> None:
    assert resume(ANCHOR, NOW_MS + 9_000, Clocks(NOW_MS, 10_001, "one")) == NOW_MS + 9_000
    assert resume(None, NOW_MS, Clocks(0, 5, "one")) == NOW_MS


def test_quiet_weeks_and_a_purged_history_do_not_turn_time_back() -> None:
    late = Anchor(NOW_MS + 40 * DAY_MS, Clocks(NOW_MS + 40 * DAY_MS, 1, "one"))
    assert resume(late, 0, Clocks(NOW_MS + 42 * DAY_MS, 5, "two")) == NOW_MS + 42 * DAY_MS


def test_anchor_of_a_board_that_began_in_1970_stays_good() -> None:
    anchor = Anchor(60_000, Clocks(NOW_MS, 60_000, "one"))  # the clock was set after a minute
    assert anchor.offset_ms == NOW_MS - 60_000
    assert resume(anchor, 3_600_000, Clocks(NOW_MS + DAY_MS, 5, "two")) == 60_000 + DAY_MS
