"""Which tier takes a request now, and who hears of a change."""

from __future__ import annotations

import pytest
from fakes import FakeClock

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker, BreakerState
from mqrouter.core.records import Pause
from mqrouter.flow.tiers import TierBoard
from mqrouter.routing.signals import TierSignal


@pytest.fixture
def board() -> TierBoard:
    breakers = {name: Breaker(2, Backoff(1.0, 60.0)) for name in ("hub", "edge")}
    return TierBoard(breakers, FakeClock(), lambda: 0.0)


def woken(board: TierBoard) -> set[str]:
    return {name for name, wakeup in board.wakeups.items() if wakeup._event.is_set()}


def test_first_tier_that_is_up_takes_a_list(board: TierBoard) -> None:
    lists = ["hub>edge", "edge>hub", "edge", "gone>edge", "gone"]
    assert board.todo_lists_of("hub", lists) == ["hub>edge"]
    assert board.todo_lists_of("edge", lists) == ["edge>hub", "edge", "gone>edge"]
    board.unreachable("hub", "down")
    assert board.todo_lists_of("hub", lists) == []
    assert board.todo_lists_of("edge", lists) == ["hub>edge", "edge>hub", "edge", "gone>edge"]
    board.unreachable("edge", "down")
    assert board.first_available(["hub", "edge"]) is None


def test_only_the_tier_whose_turn_it_is_is_woken(board: TierBoard) -> None:
    board.wake_for(["gone", "hub", "edge"])
    assert woken(board) == {"hub"}


def test_everyone_hears_of_a_breaker_that_changes(board: TierBoard) -> None:
    board.failed("hub", "500")
    assert woken(board) == set()
    board.failed("hub", "500")
    assert woken(board) == {"hub", "edge"}


def test_probe_half_opens_and_a_failed_one_waits(board: TierBoard) -> None:
    breaker = board.breakers["hub"]
    board.unreachable("hub", "down")
    first = breaker.probe_at_s
    board.probed("hub", False)
    assert (breaker.state, breaker.probe_at_s > first) == (BreakerState.OPEN, True)
    board.probed("hub", True)
    assert breaker.state.value == "half_open"
    board.succeeded("hub")
    assert board.is_available("hub")


def test_held_tier_is_not_available_and_others_are_told(board: TierBoard) -> None:
    board.hold("hub", 30.0)
    assert not board.is_available("hub")
    assert woken(board) == {"hub", "edge"}


def test_signals_tell_who_is_up_and_how_quick(board: TierBoard) -> None:
    assert board.signals() == {"hub": TierSignal(True, None), "edge": TierSignal(True, None)}
    board.answered("hub", 120.0)
    board.unreachable("edge", "down")
    assert board.signals() == {"hub": TierSignal(True, 120.0), "edge": TierSignal(False, None)}


@pytest.mark.parametrize("stop", ["pause", "hold"])
def test_tier_that_is_held_back_is_not_up(board: TierBoard, stop: str) -> None:
    if stop == "pause":
        board.pause("hub", Pause(0, "me"))
    else:
        board.hold("hub", 30.0)
    assert not board.signals()["hub"].is_up
    board.resume("hub")
    assert board.signals()["hub"].is_up == (stop == "pause")


def test_answer_closes_the_breaker_too(board: TierBoard) -> None:
    board.unreachable("hub", "down")
    board.probed("hub", True)
    board.answered("hub", 5.0)
    assert board.breakers["hub"].state is BreakerState.CLOSED
