"""What a device hears while its answer is under way: chunks, coalesced, for those who asked for them."""

from __future__ import annotations

import asyncio
from typing import Self

from mqrouter.core.chunks import Chunks
from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Question
from mqrouter.core.topics import TopicMap
from mqrouter.flow.ports import Announcer, Saying


class Progress:
    """Nothing of it is kept: what the link does not take at once is dropped, and its number is missing."""

    def __init__(self, announcer: Announcer, topics: TopicMap, interval_s: float) -> None:
        self._announcer = announcer
        self._topics = topics
        self._interval_s = interval_s

    def begin(self, request: StoredRequest, question: Question) -> Saying:
        topic = self._topics.progress_topic(request.topic) if question.wants_progress else None
        if topic is None:
            return SILENCE
        chunks = Chunks(topic, request.reply, request.id, request.lease)
        return _Spoken(chunks, self._announcer, self._interval_s)


class _Spoken:
    """Says the first words at once, then what has come every interval, sooner where a message is full."""

    def __init__(self, chunks: Chunks, announcer: Announcer, interval_s: float) -> None:
        self._chunks = chunks
        self._announcer = announcer
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()

    def add(self, text: str) -> None:
        self._chunks.add(text)
        if self._timer is None or self._chunks.is_full:
            self._say()

    def end(self) -> None:
        """The answer is whole: what still waits goes out before it."""
        self._say()
        self._cancel()

    def _say(self) -> None:
        self._cancel()
        messages = self._chunks.take()
        for message in messages:
            self._announcer.announce(message)
        if messages:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._say)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Silence:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def add(self, text: str) -> None:
        return

    def end(self) -> None:
        return


SILENCE = _Silence()


class NoProgress:
    """Nobody is told anything."""

    def begin(self, _request: StoredRequest, _question: Question) -> Saying:
        return SILENCE
