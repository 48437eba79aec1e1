"""Which tier takes a request now, and who hears of a change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from fakes import FakeClock

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker, BreakerState
from mqrouter.core.load import Capacity, TierLoad
from mqrouter.core.records import Pause
from mqrouter.flow.load import REFRESH_S, Load
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


# --- load -------------------------------------------------------------------------------------------


def test_overloaded_tier_is_relieved_by_the_next_that_is_up(board: TierBoard) -> None:
    board.loads = {"hub": TierLoad(31.0, 2.0, 30.0)}
    lists = ["hub>edge", "edge>hub", "hub"]
    assert board.todo_lists_of("hub", lists) == ["hub>edge", "hub"]
    assert board.todo_lists_of("edge", lists) == ["hub>edge", "edge>hub"]
    board.wake_for(["hub", "edge"])
    assert woken(board) == {"hub", "edge"}
    board.unreachable("edge", "down")
    assert board.todo_lists_of("edge", lists) == []
    assert board.todo_lists_of("hub", lists) == lists


def test_latency_that_strategies_see_includes_the_wait(board: TierBoard) -> None:
    board.latencies["edge"].add(2000.0)
    board.loads = {"edge": TierLoad(6.0, 2.0, 30.0), "hub": TierLoad(0.0, 0.0, None)}
    assert board.signals() == {"hub": TierSignal(True, None), "edge": TierSignal(True, 8000.0)}


@dataclass
class Queue:
    """A store as far as it counts what waits."""

    due: dict[str, int]
    todo_lists: tuple[str, ...] = ()
    reads: int = 0

    @property
    def counts(self) -> Counter[str]:
        return Counter({"pending": sum(self.due.values())})

    async def count_due(self, limit: int) -> dict[str, int]:
        self.reads += 1
        return {todo: min(count, limit) for todo, count in self.due.items()}


async def test_load_counts_what_waits_and_what_is_under_way(board: TierBoard) -> None:
    queue, clock = Queue({"edge>hub": 3, "hub": 8}), FakeClock()
    load = Load(queue, board, clock, {"edge": Capacity(1, 7.0), "hub": Capacity(4, None)})
    board.latencies["edge"].add(2000.0)
    board.latencies["hub"].add(1000.0)
    board.in_flight.update({"edge": 1, "hub": 4})
    await load.refresh()
    assert board.loads == {"edge": TierLoad(8.0, 2.0, 7.0), "hub": TierLoad(2.25, 1.0, None)}
    assert woken(board) == {"hub", "edge"}  # there is something to relieve


async def test_load_is_counted_no_oftener_than_it_matters(board: TierBoard) -> None:
    queue, clock = Queue({"edge>hub": 3}), FakeClock()
    load = Load(queue, board, clock, {"edge": Capacity(1, 7.0)})
    for _ in range(3):
        await load.refresh()
    assert queue.reads == 1
    clock.advance(REFRESH_S)
    queue.due = {}
    await load.refresh()
    assert queue.reads == 1  # nothing waits: nothing is read
    queue.due = {"edge>hub": 9}
    board.latencies["edge"].add(2000.0)
    for _ in range(3):
        clock.advance(REFRESH_S / 2)
        await load.refresh()
    assert queue.reads == 3  # once it is overloaded, every look is a fresh one
