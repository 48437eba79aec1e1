"""What a soak counted, and its verdict, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

MAX_SHOWN = 40


@dataclass(frozen=True)
class Report:
    minutes: float
    seed: int
    sent: int
    asked: Mapping[str, int]
    acknowledged: int
    rows: int
    answers: int
    duplicates: int
    """Answers heard once more."""
    absorbed: int
    """Repeated questions that the daemon recognised."""
    ended: Mapping[str, int]
    """Rows by final state, and reason."""
    kills: int
    connections: Mapping[str, int]
    """Of the daemon to the broker, by protocol."""
    faults: Mapping[str, int]
    left_out: Mapping[str, int]
    broker_losses: Sequence[str]
    """Of each kill of the broker: what was with it alone."""
    lost_by_broker: Mapping[str, int]
    """What that came to."""
    longest_start_s: float
    """Spawn to ready, where nothing else was wrong."""
    starts: int
    peak_mb: float
    grown_mb: float
    """From ready to the peak, in the life that grew most."""
    offences: Sequence[str]
    histories: Sequence[str]

    @property
    def is_ok(self) -> bool:
        return not self.offences

    @property
    def reproduction(self) -> str:
        return f"tools/soak --minutes {self.minutes:g} --seed {self.seed}"

    def as_json(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(values | {"ok": self.is_ok, "reproduction": self.reproduction}, indent=2)

    def as_text(self) -> str:
        lines = [
            f"soak of {self.minutes:g} minutes, seed {self.seed}",
            f"  sent          {self.sent} questions ({_listed(self.asked)})",
            f"  acknowledged  {self.acknowledged} by the daemon, {self.rows} rows, {self.absorbed} duplicates absorbed",
            f"  answers       {self.answers} heard, {self.duplicates} of them repetitions",
            f"  ended         {_listed(self.ended)}",
            f"  faults        {sum(self.faults.values())}: {_listed(self.faults)}; kill -9 in all {self.kills}",
            f"  left out      {_listed(self.left_out)}",
            f"  broker        killed {len(self.broker_losses)} times, lost {_listed(self.lost_by_broker)}",
            *(f"                {loss}" for loss in self.broker_losses if not self.is_ok),
            f"  connections   {_listed(self.connections)}",
            f"  longest start {self.longest_start_s:.2f} s to ready, of {self.starts} undisturbed ones",
            f"  memory        peak {self.peak_mb:.0f} MB, at most {self.grown_mb:.0f} MB above that when ready",
        ]
        if self.is_ok:
            return "\n".join([*lines, "  kept          every promise"])
        more = max(0, len(self.offences) - MAX_SHOWN)
        offences = [*self.offences[:MAX_SHOWN], *([f"and {more} more: --json shows all"] if more else [])]
        found = [f"  {line}" for line in (*offences, "what became of those named:", *self.histories)]
        return "\n".join([*lines, f"BROKEN: {len(self.offences)} lines", *found, f"again: {self.reproduction}"])


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "nothing"
