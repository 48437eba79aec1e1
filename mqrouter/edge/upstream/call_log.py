"""How one call of a tier goes, in the log at the level debug: sizes and times, never what is asked or answered."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import structlog

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.edge.upstream.options import UpstreamOptions

log = structlog.get_logger("upstream")


class CallLog:
    """Use as a context manager around the call."""

    def __init__(self, options: UpstreamOptions, call: TierCall) -> None:
        self._log = log.bind(tier=options.name, request_id=call.request_id)
        self._options = options
        self._question_bytes = sum(len(message.content.encode()) for message in call.messages)
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._has_begun = self._has_ended = False

    def __enter__(self) -> CallLog:
        host = urlsplit(self._options.url).netloc.rpartition("@")[2]
        self._log.debug("upstream.request_sent", host=host, model=self._options.model, bytes=self._question_bytes)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not self._has_ended:
            why = "given up" if error is None or not isinstance(error, Exception) else str(error)
            self._log.debug("upstream.answer_failed", error=why, elapsed_ms=self._elapsed_ms())

    def came(self, event: TierEvent) -> None:
        match event:
            case Delta() if not self._has_begun:
                self._has_begun = True
                self._log.debug("upstream.first_token_received", elapsed_ms=self._elapsed_ms())
            case Done():
                self._has_ended = True
                self._log.debug(
                    "upstream.answer_ended",
                    finish_reason=event.finish_reason,
                    model=event.model,
                    prompt_tokens=event.prompt_tokens,
                    completion_tokens=event.completion_tokens,
                    elapsed_ms=self._elapsed_ms(),
                )

    def _elapsed_ms(self) -> float:
        return round(1000 * (self._loop.time() - self._began_s), 1)
