"""What goes wrong and in which order: nothing but the seed decides it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

TIERS = ("hub", "den")
LINKS = ("broker", *TIERS)
WAYS = tuple(f"{link} {way}" for link in LINKS for way in ("up", "down"))
BROKER_PROCESS = "the broker's process"
PAUSE_S = (0.3, 1.8)


@dataclass(frozen=True, slots=True)
class Step:
    """One action. `draw`, from 0 to 1, is for whatever the action itself has to choose."""

    pause_s: float
    name: str
    target: str
    draw: float


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault at one of `targets`; `end` is the step that undoes it, where it does not pass by itself.

    At most one fault at a time holds a `thing` of one target.
    """

    name: str
    weight: int
    targets: tuple[str, ...] = ("",)
    end: str = ""
    thing: str = ""

    def holds(self, target: str) -> str:
        return f"{self.thing} {target.partition(' ')[0]}" if self.thing else ""


KINDS = (
    Kind("kill", 5),
    Kind("kill_at_work", 7),
    Kind("kill_while_starting", 2),
    Kind("terminate", 4),
    Kind("freeze", 3, end="thaw", thing="daemon"),
    Kind("stop_broker", 2, end="start_broker", thing=BROKER_PROCESS),
    Kind("kill_broker", 2, end="start_broker", thing=BROKER_PROCESS),
    Kind("forget_sessions", 3, thing=BROKER_PROCESS),
    Kind("reset", 3, LINKS),
    Kind("tear", 5, WAYS, end="heal", thing="link"),
    Kind("stall", 2, WAYS, end="heal", thing="link"),
    Kind("swallow", 3, WAYS, end="heal", thing="link"),
    Kind("slice", 2, WAYS, end="heal", thing="link"),
    Kind("throttle", 2, WAYS, end="heal", thing="link"),
    Kind("delay", 2, WAYS, end="heal", thing="link"),
    Kind("shut", 3, TIERS, end="heal", thing="link"),
    Kind("fail", 2, TIERS, end="mend", thing="tier"),
    Kind("rebuff", 2, TIERS, end="mend", thing="tier"),
    Kind("babble", 2, TIERS, end="mend", thing="tier"),
    Kind("break_off", 2, TIERS, end="mend", thing="tier"),
    Kind("trickle", 2, TIERS, end="mend", thing="tier"),
    Kind("linger", 2, TIERS, end="mend", thing="tier"),
    Kind("pause", 3, TIERS, end="resume", thing="lane"),
    Kind("cancel", 4),
    Kind("cancel_at_work", 5),
    Kind("retry", 4),
    Kind("list", 4),
)

ENDS = frozenset(kind.end for kind in KINDS if kind.end)


def steps(seed: int) -> Iterator[Step]:
    """Yields the schedule, without end: the same for the same seed."""
    random = Random(f"faults {seed}")
    ends: list[tuple[int, str, str, str]] = []
    """Of what lasts: at which step it ends, how, where, and what it holds."""
    number = 0
    while True:
        number += 1
        due = next((end for end in ends if end[0] <= number), None)
        if due is not None:
            ends.remove(due)
            name, target = due[1:3]
        else:
            kind, target = _chosen(random, {held for *_, held in ends})
            name = kind.name
            if kind.end:
                ends.append((number + random.randint(1, 3), kind.end, target, kind.holds(target)))
        yield Step(random.uniform(*PAUSE_S), name, target, random.random())


def _chosen(random: Random, held: set[str]) -> tuple[Kind, str]:
    weights = [kind.weight for kind in KINDS]
    while True:
        [kind] = random.choices(KINDS, weights)
        target = random.choice(kind.targets)
        if kind.holds(target) == "" or kind.holds(target) not in held:
            return kind, target
