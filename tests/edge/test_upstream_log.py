"""What the log says of a call at the level debug: where to, how large, how long, and no word of it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from openai_server import CALL, DONE, USAGE, Server, ask, chunk, openai

from mqrouter import logs
from mqrouter.core.events import Delta
from mqrouter.errors import TransientError


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    config, stream = structlog.get_config(), io.StringIO()
    logs.configure(level="info", levels={"upstream": "debug"}, fmt="json", include_text=False, stream=stream)
    yield stream
    structlog.configure(**config)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


async def test_call_is_told_by_sizes_and_times_and_never_by_its_words(server: Server, written: io.StringIO) -> None:
    server.handler = server.streamed(chunk(""), chunk("Wom"), chunk("bat."), chunk(finish="stop"), USAGE, DONE)
    url = urlsplit(server.url)
    await ask(f"http://user:hidden@{url.netloc}{url.path}", api_key=None)
    sent, first, ended = lines(written)
    assert (sent["event"], sent["host"], sent["model"]) == ("upstream.request_sent", url.netloc, "asked-model"), sent
    assert sent["bytes"] == sum(len(message.content) for message in CALL.messages)
    assert first["event"] == "upstream.first_token_received" and first["elapsed_ms"] <= ended["elapsed_ms"]
    assert (ended["event"], ended["finish_reason"], ended["model"]) == ("upstream.answer_ended", "stop", "real-model")
    assert (ended["prompt_tokens"], ended["completion_tokens"]) == (11, 2)
    assert {(line["request_id"], line["level"]) for line in (sent, first, ended)} == {("r1", "debug")}
    assert not any(word in written.getvalue() for word in ("wet?", "Be brief", "Wom", "bat", "hidden"))


async def test_call_that_fails_or_is_given_up_says_so(server: Server, written: io.StringIO) -> None:
    server.handler = server.streamed(chunk("Wom"))
    with pytest.raises(TransientError):
        await ask(server.url)
    assert [line["event"] for line in lines(written)[1:]] == ["upstream.first_token_received", "upstream.answer_failed"]
    assert "cut before its end" in lines(written)[-1]["error"]
    async with openai(server.url) as tier:
        stream = tier.stream(CALL)
        assert await anext(stream) == Delta("Wom")
        await stream.aclose()
    assert (lines(written)[-1]["event"], lines(written)[-1]["error"]) == ("upstream.answer_failed", "given up")
    assert "sk-secret" not in written.getvalue()


async def test_what_a_server_says_of_a_question_is_not_told(server: Server, written: io.StringIO) -> None:
    server.handler = server.status(503, {"error": {"message": "cannot answer: is it wet?"}})
    with pytest.raises(TransientError) as caught:
        await ask(server.url)
    assert "wet" in caught.value.detail
    assert [line["event"] for line in lines(written)] == ["upstream.request_sent", "upstream.answer_failed"]
    assert "wet" not in written.getvalue()
