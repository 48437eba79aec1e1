"""What a watch found, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Report:
    requests: int
    seed: int
    private: int
    outcomes: Mapping[str, int]
    """Of the private questions, by tier or error code."""
    faults: Mapping[str, int]
    restored: int
    """Answers of a redacting tier in which the data stood again."""
    tier_bytes: Mapping[str, int]
    """What each tier was sent."""
    open_seen: int
    """Bytes of signs of questions that are not private, at tiers that are not trusted: the watch can see."""
    private_bytes: Mapping[str, int]
    """Bytes of private questions where none may be: by socket, log or command."""
    offences: Sequence[str]

    @property
    def is_ok(self) -> bool:
        return not self.offences and not any(self.private_bytes.values())

    def as_json(self) -> str:
        return json.dumps({"ok": self.is_ok} | asdict(self), indent=2)

    def as_text(self) -> str:
        def line(name: str, counts: Mapping[str, int]) -> str:
            return f"{name:<22} {', '.join(f'{key} {value}' for key, value in sorted(counts.items()))}"

        lines = [
            f"{self.requests} questions, {self.private} of them private, seed {self.seed}",
            line("faults", self.faults),
            line("private ended", self.outcomes),
            line("bytes at tiers", self.tier_bytes),
            f"{'open bytes seen':<22} {self.open_seen}",
            f"{'restored answers':<22} {self.restored}",
            line("private bytes at", self.private_bytes),
            f"private bytes on foreign sockets, in logs and listings: {sum(self.private_bytes.values())}",
            *(f"OFFENCE: {offence}" for offence in self.offences),
        ]
        if not self.is_ok:
            lines.append(f"again: tools/privacy_watch --requests {self.requests} --seed {self.seed}")
        return "\n".join(lines)
