"""When a model is kept loaded although nobody asks it: pure, its clocks come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DailyHours:
    """A part of every day, in minutes since midnight, the end not included; it may cross midnight."""

    start_min: int
    end_min: int

    def covers(self, minute: int) -> bool:
        if self.start_min == self.end_min:  # from six to six is all day
            return True
        if self.start_min < self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


def parse_hours(text: str) -> DailyHours:
    """Returns the hours of a text like "06:00-20:00", which the settings have checked."""
    start, end = (60 * int(time[:2]) + int(time[3:]) for time in text.split("-"))
    return DailyHours(start, end)


@dataclass(frozen=True, slots=True)
class WarmRule:
    every_s: float
    hours: DailyHours | None = None
    """None: around the clock."""

    def is_due(self, unused_s: float, minute: int) -> bool:
        """True where the model has not been used for so long, seconds, and the minute of the day is one for it."""
        return unused_s >= self.every_s and (self.hours is None or self.hours.covers(minute))
