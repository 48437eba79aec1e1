"""The OpenAI wire form, over a real connection: what is sent, and what is made of every answer and refusal."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai_server import (
    CALL,
    DONE,
    USAGE,
    WHOLE,
    Server,
    ask,
    chunk,
    openai,
    raw_server,
    text_of,
)

from mqrouter.core.events import Delta, Done
from mqrouter.edge.upstream.refusals import retry_after_s
from mqrouter.errors import CredentialsError, PermanentError, TransientError, UnreachableError


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


# --- what is sent and what comes back ---------------------------------------------------------------


async def test_streamed_answer_comes_in_pieces_with_its_usage(server: Server) -> None:
    server.handler = server.streamed(chunk(""), chunk("Ye"), chunk("s."), chunk(finish="stop"), USAGE, DONE)
    events = await ask(server.url)
    assert (text_of(events), events[-1]) == ("Yes.", Done("stop", "real-model", 11, 2))


async def test_text_is_handed_on_as_it_comes(server: Server) -> None:
    pause = asyncio.Event()
    server.handler = server.streamed(chunk("Ye"), chunk("s.", finish="stop"), pause=pause)
    async with openai(server.url) as tier:
        stream = tier.stream(CALL)
        assert await anext(stream) == Delta("Ye")
        pause.set()
        assert await anext(stream) == Delta("s.")
        await stream.aclose()


async def test_stream_without_done_marker_ends_with_its_finish_reason(server: Server) -> None:
    server.handler = server.streamed(chunk("Half"), chunk(finish="length"))
    assert (await ask(server.url))[-1] == Done("length", "real-model", 0, 0)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_server_that_does_not_stream_is_understood(server: Server, content_type: str) -> None:
    body = b"\n " + json.dumps(WHOLE).encode()
    server.handler = server.streamed(body[:1], body[1:20], body[20:], content_type=content_type)
    assert await ask(server.url) == [Delta("Very wet."), Done("stop", "real-model", 11, 2)]


async def test_request_carries_no_null_and_the_same_key_for_every_attempt(server: Server) -> None:
    await ask(server.url)
    await ask(server.url + "/")
    for headers, body in server.requests:
        assert headers["Idempotency-Key"] == "r1"
        assert headers["Authorization"] == "Bearer sk-secret"
        assert body == {
            "model": "asked-model",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "wet?"}],
            "max_tokens": 64,
            "temperature": 0.2,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


async def test_server_without_a_key_gets_none(server: Server) -> None:
    await ask(server.url, api_key=None)
    assert "Authorization" not in server.requests[0][0]


async def test_characters_cut_between_packets_are_whole(server: Server) -> None:
    data = 'data: {"choices": [{"delta": {"content": "größer 🐄"}, "finish_reason": "stop"}]}\n\n'.encode()
    server.handler = server.streamed(*(data[i : i + 1] for i in range(len(data))))
    assert text_of(await ask(server.url)) == "größer 🐄"


async def test_name_of_the_model_is_bounded_and_can_be_written(server: Server) -> None:
    server.handler = server.streamed(chunk("x", finish="stop", model="m\ud800" + "x" * 100_000), DONE)
    done = (await ask(server.url))[-1]
    assert isinstance(done, Done)
    assert len(done.model.encode()) <= 512


# --- answers that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([chunk("Half")], "cut before its end"),
        ([chunk("Half"), DONE], "without a finish_reason"),
        ([chunk("Half"), chunk(finish="stop")[:-2]], "cut before its end"),
        ([], "cut before its end"),
        ([b" \n"], "cut before its end"),
        ([b"data: {not json}\n\n"], "not valid JSON"),
        ([b"data: [1]\n\n"], "not a JSON object"),
        ([b'{"choices": ['], "not valid JSON"),
        ([b'{"choices": []}'], "no choices"),
        ([chunk("Half"), b'data: {"error": {"message": "out of memory"}}\n\n'], "failed in its answer"),
        ([b'{"error": {"message": "out of memory"}}'], "failed in its answer"),
        ([b"<html>busy</html>"], "cut before its end"),
        ([b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'], "not text"),
        ([b'data: {"choices": [{"delta": "text"}]}\n\n'], "not text"),
        ([b'{"choices": [{"message": {"content": ["x"]}, "finish_reason": "stop"}]}'], "not text"),
        ([b"data: " + b"x" * (1 << 20) + b"y"], "never ends"),
    ],
)
async def test_half_and_broken_answers_are_failed_attempts(server: Server, chunks: list[bytes], reason: str) -> None:
    server.handler = server.streamed(*chunks)
    with pytest.raises(TransientError, match=reason) as caught:
        await ask(server.url)
    assert not isinstance(caught.value, UnreachableError)


async def test_words_of_a_failing_server_are_kept_apart(server: Server) -> None:
    server.handler = server.streamed(b'data: {"error": {"message": "you asked: wet?\\ud800"}}\n\n')
    with pytest.raises(TransientError) as caught:
        await ask(server.url)
    assert "wet" not in str(caught.value)
    assert caught.value.detail.startswith("you asked: wet?")
    caught.value.detail.encode()


async def test_body_shorter_than_announced_is_a_failed_attempt() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = chunk("Half", finish="stop")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with raw_server(handle) as url:
        with pytest.raises(TransientError, match="broke off"):
            await ask(url)


async def test_filtered_answer_is_refused_and_not_taken_for_whole(server: Server) -> None:
    server.handler = server.streamed(chunk("Half"), chunk(finish="content_filter"), DONE)
    with pytest.raises(PermanentError, match="filter"):
        await ask(server.url)


async def test_web_page_in_place_of_an_answer_is_said_to_be_one(server: Server) -> None:
    server.handler = server.streamed(b"<html>Log in here</html>", content_type="text/html; charset=utf-8")
    with pytest.raises(TransientError, match="web page"):
        await ask(server.url)


async def test_endless_answer_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.edge.upstream.body.MAX_ANSWER_BYTES", 10_000)
    server.handler = server.streamed(*[chunk("x" * 1000)] * 50)
    with pytest.raises(TransientError, match="larger than 10000 bytes"):
        await ask(server.url)


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_refusal_is_permanent(server: Server, status: int) -> None:
    server.handler = server.status(status)
    with pytest.raises(PermanentError, match=f"HTTP {status}") as caught:
        await ask(server.url)
    assert not isinstance(caught.value, CredentialsError)
    assert caught.value.detail == "said so"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_is_told_apart_and_not_quoted(server: Server, status: int) -> None:
    server.handler = server.status(status)
    with pytest.raises(CredentialsError) as caught:
        await ask(server.url)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
async def test_trouble_may_pass(server: Server, status: int) -> None:
    server.handler = server.status(status)
    with pytest.raises(TransientError, match=f"HTTP {status}") as caught:
        await ask(server.url)
    assert not isinstance(caught.value, UnreachableError)
    assert len(server.requests) == 1


async def test_retry_after_in_seconds(server: Server) -> None:
    server.handler = server.status(429, **{"Retry-After": "17"})
    with pytest.raises(TransientError) as caught:
        await ask(server.url)
    assert caught.value.retry_after_s == 17.0


async def test_retry_after_as_a_date(server: Server) -> None:
    server.handler = server.status(503, **{"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)})
    with pytest.raises(TransientError) as caught:
        await ask(server.url)
    assert caught.value.retry_after_s == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 5 ", 5.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 400, 86_400.0),
        ("999999999", 86_400.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_with_care(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, 1_700_000_000.0) == expected


@pytest.mark.parametrize("body", ["plain", ["a"], {"detail": "x"}, {"error": None}])
async def test_refusal_without_an_error_object_has_no_detail(server: Server, body: Any) -> None:
    server.handler = server.status(400, body)
    with pytest.raises(PermanentError) as caught:
        await ask(server.url)
    assert caught.value.detail == ""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_question_is_never_sent_on_to_another_address(server: Server, status: int) -> None:
    async with Server().running() as elsewhere:
        server.handler = server.status(status, Location=f"{elsewhere.url}/chat/completions")
        with pytest.raises(UnreachableError, match=f"HTTP {status}"):
            await ask(server.url)
        assert elsewhere.requests == []
