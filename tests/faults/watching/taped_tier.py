"""A tier that keeps each byte it is sent, and fails at random in every way it knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from random import Random
from typing import SupportsIndex

from bad_tier import BadTier, Part, RawCall, Script, echo, reply, whole_object
from soaking.replies import babble, break_off, fail, rebuff

GOOD = 0.6
"""The share of calls that are answered as they should be."""


class TapedTier(BadTier):
    def __init__(self, name: str, seed: int) -> None:
        super().__init__()
        self.tape = bytearray()
        self.is_up = False
        self._chance = Random(f"tier {name} {seed}")
        self.script = self._misbehave

    def start(self) -> TapedTier:
        super().start()
        self.is_up = True
        return self

    def down(self) -> None:
        """Connections are closed and new ones refused."""
        self._run(self._stop())
        self.is_up = False

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_TapedReader(self.tape), self._connected, loop=loop)

        self._server = await loop.create_server(protocol, "127.0.0.1", self.port)

    def _misbehave(self, call: RawCall) -> Iterable[Part]:
        script: Script = echo if self._chance.random() < GOOD else self._chance.choice(FAILURES)
        return script(call)


class _TapedReader(asyncio.StreamReader):
    def __init__(self, tape: bytearray) -> None:
        super().__init__()
        self._tape = tape

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self._tape += bytes(data)
        super().feed_data(data)


def tell(call: RawCall) -> Iterable[Part]:
    """A refusal that quotes the question, as gateways do."""
    body = json.dumps({"error": {"message": f"refused: {call.question}"}}).encode()
    return [reply(body, status="400 Bad Request")]


def hang_up(_call: RawCall) -> Iterable[Part]:
    return []


def stall(_call: RawCall) -> Iterable[Part]:
    return [1.5]


def whole(call: RawCall) -> Iterable[Part]:
    """The good answer, in one piece."""
    return [reply(whole_object(f"echo: {call.question}"))]


FAILURES: tuple[Script, ...] = (fail, rebuff, babble, break_off, tell, hang_up, stall, whole)
