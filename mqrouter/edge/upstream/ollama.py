"""Ollama's own wire form: /api/chat, streamed as one JSON object per line, with the model's time in memory."""

from __future__ import annotations

from typing import Any

from mqrouter.core.events import Done, TierCall, TierEvent
from mqrouter.edge.upstream.fields import as_object, count_of, delta_of, model_of, raise_if_failed, text_of
from mqrouter.edge.upstream.options import OllamaOptions, UpstreamOptions
from mqrouter.edge.upstream.wire import Readings
from mqrouter.errors import TransientError

MAX_LINE_BYTES = 1 << 20
WITHOUT_AN_ANSWER = ("load", "unload")
"""Reasons of an end that tell of the model's memory, not of an answer."""


class OllamaWire:
    chat_path = "/api/chat"
    probe_path = "/api/tags"

    def __init__(self, options: UpstreamOptions, own: OllamaOptions) -> None:
        self._options = options
        self._own = own

    def body(self, call: TierCall) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        settings = {"num_predict": self._options.max_tokens, "temperature": self._options.temperature}
        thinking = {} if self._own.thinks is None else {"think": self._own.thinks}
        return self._request(messages, settings) | {"stream": True} | thinking

    def warming_body(self) -> dict[str, Any]:
        """No messages: the server loads the model, or keeps it for longer, and writes nothing."""
        return self._request([], {}) | {"stream": False}

    def _request(self, messages: list[dict[str, str]], settings: dict[str, float]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._options.model, "messages": messages}
        if self._own.context_tokens is not None:  # in every request: another size makes the server load anew
            settings = settings | {"num_ctx": self._own.context_tokens}
        if settings:
            body["options"] = settings
        if self._own.keep_alive_s is not None:
            body["keep_alive"] = self._own.keep_alive_s  # a number: as text it would need a unit
        return body

    def reader(self) -> Chat:
        return Chat(self._options.model)

    def why_not_up(self, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"HTTP {status}"
        try:
            models = as_object(body).get("models")
        except TransientError as error:
            return str(error)
        entries = models if isinstance(models, list) else []
        names = {_full_name(str(entry.get("name"))) for entry in entries if isinstance(entry, dict)}
        is_hosted = self._options.model.endswith("cloud")  # answered elsewhere, listed or not
        return None if is_hosted or _full_name(self._options.model) in names else self._missing()

    def remedy(self, status: int, detail: str) -> str:
        return self._missing() if status == 404 and "not found" in detail else ""

    def _missing(self) -> str:
        return f'the model "{self._options.model}" is not on the server: run `ollama pull {self._options.model}` there'


class Chat:
    """Reads one chat answer; what the model only thinks is left out of it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._rest = b""
        self._has_begun = False

    def feed(self, chunk: bytes) -> Readings:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise TransientError("a line of the answer never ends")
        return self._read([line for line in lines if line.strip()])

    def close(self) -> list[TierEvent]:
        events = self._read([self._rest] if self._rest.strip() else []).events
        if not any(isinstance(event, Done) for event in events):
            raise TransientError("the stream was cut before its end")
        return events

    def _read(self, lines: list[bytes]) -> Readings:
        texts: list[str] = []
        end: list[TierEvent] = []
        for line in lines:
            value = as_object(line)
            texts.append(self._text(value))
            if value.get("done") is True:
                end = [self._done(value)]
                break
        return Readings(delta_of(texts) + end, is_sign_of_life=bool(lines), has_begun=self._has_begun)

    def _text(self, value: dict[str, Any]) -> str:
        """Returns the text of one object."""
        raise_if_failed(value)
        self._model = model_of(value, self._model)
        message = value.get("message")
        text = text_of(message)
        thinks = isinstance(message, dict) and bool(message.get("thinking"))
        self._has_begun = self._has_begun or bool(text) or thinks or value.get("done") is True
        return text

    def _done(self, value: dict[str, Any]) -> Done:
        reason = value.get("done_reason")
        if reason in WITHOUT_AN_ANSWER:
            raise TransientError(f'the server ended with "{reason}" and without an answer')
        return Done(
            finish_reason="length" if reason == "length" else "stop",
            model=self._model,
            prompt_tokens=count_of(value.get("prompt_eval_count")),
            completion_tokens=count_of(value.get("eval_count")),
        )


def _full_name(name: str) -> str:
    """Returns a model's name as the server compares it: without its default parts, and in lower case."""
    short = name.casefold().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"
