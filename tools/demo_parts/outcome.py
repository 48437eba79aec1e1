"""What became of one question of the demo."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What --json prints; `state_history` is in the order of events."""

    question: str
    route: str | None
    tier: str | None
    model: str | None
    state_history: list[str]
    answer: str
    latency_ms: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
