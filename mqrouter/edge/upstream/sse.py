"""Server-sent events, as far as OpenAI-compatible servers use them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

MAX_LINE_BYTES = 1 << 20


class SseParser:
    """Feed it bytes as they come; it returns the `data` of every event completed by them."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises ValueError for a line longer than any event has reason to be."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError("a line of the event stream never ends")
        events: list[bytes] = []
        for line in lines:
            self._take(line.removesuffix(b"\r"), events)
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
            self._data = []
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
