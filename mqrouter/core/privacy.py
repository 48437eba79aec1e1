"""What makes a question private: its sender's mark, where it came from, or what stands in it. Nothing lowers that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from mqrouter.core.personal_data import NOUNS, Kind, find
from mqrouter.core.request import Question
from mqrouter.core.topics import matches


class Mark(StrEnum):
    """Makes the whole question private, whatever stands in it."""

    REQUEST = "request"
    TOPIC = "topic"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class PrivateBy:
    """Why a question is private; never the data itself."""

    marks: tuple[Mark, ...] = ()
    kinds: tuple[Kind, ...] = ()

    @property
    def is_private(self) -> bool:
        return bool(self.marks or self.kinds)

    @property
    def is_redactable(self) -> bool:
        """True where nothing but the data found in it makes it private."""
        return bool(self.kinds) and not self.marks

    @property
    def names(self) -> list[str]:
        return [*self.marks, *self.kinds]

    @property
    def reason(self) -> str:
        marks = {
            Mark.REQUEST: "its sender says so",
            Mark.TOPIC: "its topic is private",
            Mark.DEVICE: "its device is private",
        }
        parts = [marks[mark] for mark in self.marks]
        return ", ".join([*parts, *([f"it holds {_listed(self.kinds)}"] if self.kinds else [])])

    def __or__(self, other: PrivateBy) -> PrivateBy:
        return private_by([*self.names, *other.names])


NOT_PRIVATE = PrivateBy()


def private_by(names: Sequence[str]) -> PrivateBy:
    """Returns what `PrivateBy.names` said; a name that this version does not know counts as a mark."""
    known = set(names)
    marks = {Mark.REQUEST} if known - set(Mark) - set(Kind) else set()
    return PrivateBy(
        tuple(mark for mark in Mark if mark in known | marks), tuple(kind for kind in Kind if kind in known)
    )


@dataclass(frozen=True, slots=True)
class Privacy:
    """The configured rules: topic filters, devices by name or pattern with *, and kinds of data to look for."""

    topics: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    detect: frozenset[Kind] = frozenset()
    region: str | None = None

    def look(self, question: Question, topic: str | None = None, device: str | None = None) -> PrivateBy:
        """Returns what makes a question private by these rules, as far as they are told where it came from."""
        marks = []
        if question.is_private:
            marks.append(Mark.REQUEST)
        if topic is not None and any(matches(topic_filter, topic) for topic_filter in self.topics):
            marks.append(Mark.TOPIC)
        if device is not None and any(_pattern(name).fullmatch(device) for name in self.devices):
            marks.append(Mark.DEVICE)
        texts = [message.content for message in question.messages]
        return PrivateBy(tuple(marks), self.kinds_in([*texts, question.context or ""]))

    def kinds_in(self, texts: Sequence[str]) -> tuple[Kind, ...]:
        found = {kind for text in texts for kind in _kinds_of(text, self.detect, self.region)}
        return tuple(kind for kind in Kind if kind in found)


@lru_cache(maxsize=32)
def _kinds_of(text: str, kinds: frozenset[Kind], region: str | None) -> frozenset[Kind]:
    """A question is looked at when it is decided and at each attempt; a long one takes a tenth of a second."""
    return frozenset(one.kind for one in find(text, kinds, region))


@lru_cache(maxsize=256)
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL)


def _listed(kinds: Sequence[Kind]) -> str:
    nouns = [NOUNS[kind] for kind in kinds]
    return nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} and {nouns[-1]}"
