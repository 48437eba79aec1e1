"""The OpenAI wire form: chat completions, streamed as server-sent events or in one piece."""

from __future__ import annotations

from typing import Any

from mqrouter.core.events import Done, TierCall, TierEvent
from mqrouter.edge.upstream.fields import as_object, count_of, delta_of, model_of, raise_if_failed, text_of
from mqrouter.edge.upstream.options import UpstreamOptions
from mqrouter.edge.upstream.sse import SseParser
from mqrouter.edge.upstream.wire import Readings
from mqrouter.errors import PermanentError, TransientError

THINKING_KEYS = ("reasoning_content", "reasoning")


class OpenAiWire:
    chat_path = "/chat/completions"
    probe_path = "/models"

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options

    def body(self, call: TierCall) -> dict[str, Any]:
        return {
            "model": self._options.model,
            "messages": [{"role": message.role, "content": message.content} for message in call.messages],
            "max_tokens": self._options.max_tokens,
            "temperature": self._options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def warming_body(self) -> dict[str, Any]:
        """One token: this API has no call that loads a model and writes nothing."""
        messages = [{"role": "user", "content": "."}]
        return {"model": self._options.model, "messages": messages, "max_tokens": 1, "stream": False}

    def reader(self) -> Completion:
        return Completion(self._options.model)

    def why_not_up(self, status: int, body: bytes) -> str | None:
        # A server without a list of models still shows that it is up; a gateway's 5xx shows the opposite.
        return None if status < 300 or status in (400, 404, 405, 422) else f"HTTP {status}"

    def remedy(self, status: int, detail: str) -> str:
        if status != 404:
            return ""
        return f'is "{self._options.model}" a model of this server, and its address right? Most end in /v1'


class Completion:
    """Reads one chat completion, whether or not the server heeded "stream"."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._sse = SseParser()
        self._whole = b""
        self._is_stream: bool | None = None
        self._has_begun = False
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> Readings:
        if self._is_stream is None and (start := (self._whole + chunk).lstrip()):
            self._is_stream = not start.startswith(b"{")  # a server that ignores "stream" sends one object
            chunk, self._whole = self._whole + chunk, b""
        if not self._is_stream:
            self._whole += chunk
            return Readings([], is_sign_of_life=bool(self._is_stream is False), has_begun=False)
        try:
            payloads = self._sse.feed(chunk)
        except ValueError as error:
            raise TransientError(str(error)) from error
        texts: list[str] = []
        end: list[TierEvent] = []
        for payload in payloads:
            if payload.strip() == b"[DONE]":
                end = [self._end()]
                break
            texts.append(self._text(as_object(payload)))
        return Readings(delta_of(texts) + end, is_sign_of_life=bool(payloads), has_begun=self._has_begun)

    def close(self) -> list[TierEvent]:
        if self._is_stream is False:
            return self._from_whole(as_object(self._whole))
        if self._finish_reason is None:
            raise TransientError("the stream was cut before its end")
        return [self._done()]

    def _end(self) -> Done:
        if self._finish_reason is None:
            raise TransientError("the stream ended without a finish_reason")
        return self._done()

    def _text(self, value: dict[str, Any]) -> str:
        """Returns the text of one event."""
        self._note(value)
        text = ""
        for choice in _choices(value):
            delta = choice.get("delta")
            text += text_of(delta)
            self._finish(choice)
            self._has_begun = self._has_begun or bool(text or self._finish_reason or _thinks(delta))
        return text

    def _from_whole(self, value: dict[str, Any]) -> list[TierEvent]:
        self._note(value)
        choices = _choices(value)
        if not choices:
            raise TransientError("the answer has no choices")
        self._finish_reason = "stop"
        self._finish(choices[0])
        return [*delta_of([text_of(choices[0].get("message"))]), self._done()]

    def _finish(self, choice: dict[str, Any]) -> None:
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if self._finish_reason == "content_filter":
            raise PermanentError("the server's filter cut the answer off")

    def _note(self, value: dict[str, Any]) -> None:
        raise_if_failed(value)
        self._model = model_of(value, self._model)
        if isinstance(value.get("usage"), dict):
            self._usage = value["usage"]

    def _done(self) -> Done:
        return Done(
            finish_reason="length" if self._finish_reason == "length" else "stop",
            model=self._model,
            prompt_tokens=count_of(self._usage.get("prompt_tokens")),
            completion_tokens=count_of(self._usage.get("completion_tokens")),
        )


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _thinks(delta: object) -> bool:
    return isinstance(delta, dict) and any(delta.get(key) for key in THINKING_KEYS)
