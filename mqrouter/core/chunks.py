"""An answer under way, in chunks for a device: joined, they are the answer's text from its beginning."""

from __future__ import annotations

import json
from bisect import bisect_left

from mqrouter.core.answer_check import mended
from mqrouter.core.request import OutMessage, ReplyAddress

MAX_CHUNK_BYTES = 1024


class Chunks:
    """Of one attempt: takes text as it comes, and gives it out in messages numbered from 0.

    White space at either end of what has come so far waits, for the answer will not have it there; so does half of
    a surrogate pair. Nothing goes out beyond the requester's `max_bytes`: the answer will be cut there too.
    """

    def __init__(self, topic: str, reply: ReplyAddress, request_id: str, attempt: int) -> None:
        self._topic = topic
        self._reply = reply
        self._id = reply.client_id if reply.client_id is not None else request_id
        self._attempt = attempt
        self._max_bytes = min(MAX_CHUNK_BYTES, reply.max_bytes or MAX_CHUNK_BYTES)
        self._pending = ""
        self._sent_bytes = 0
        self._number = 0

    @property
    def is_full(self) -> bool:
        """True where more is waiting than one message carries."""
        return len(self._pending) >= self._max_bytes

    def add(self, text: str) -> None:
        self._pending += text
        if self._number == 0:
            self._pending = self._pending.lstrip()

    def take(self) -> list[OutMessage]:
        """Returns messages with all that may go out now."""
        text = self._pending.rstrip()
        if text and 0xD800 <= ord(text[-1]) < 0xDC00:
            text = text[:-1]
        self._pending = self._pending[len(text) :]
        if self._reply.max_bytes is not None and self._sent_bytes > self._reply.max_bytes:
            return []
        self._sent_bytes += len(text.encode("utf-8", "surrogatepass"))
        return self._messages(mended(text))

    def _messages(self, text: str) -> list[OutMessage]:
        messages = []
        while text:
            part = text[: self._longest(text)]
            messages.append(self._message(part))
            self._number += 1
            text = text[len(part) :]
        return messages

    def _longest(self, text: str) -> int:
        """Returns how many characters of it one message carries: at least one."""
        most = min(len(text), self._max_bytes)
        too_long = bisect_left(
            range(1, most + 1), True, key=lambda n: len(self._message(text[:n]).payload) > self._max_bytes
        )
        return max(1, too_long)

    def _message(self, text: str) -> OutMessage:
        body = {"id": self._id, "attempt": self._attempt, "seq": self._number, "text": text}
        return OutMessage(
            topic=self._topic,
            payload=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
            correlation=self._reply.correlation,
            content_type="application/json",
            user_properties=(),
        )
