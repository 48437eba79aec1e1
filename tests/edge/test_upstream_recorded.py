"""What real servers said, played back to the byte: the client reads today what it read when it was recorded.

The requests are compared as well: one that is no longer as recorded gets a 418. Record anew with tools/record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from exchanges import Exchange, Replay, as_bytes, as_text, read

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.edge.upstream.openai import Completion
from mqrouter.errors import PermanentError, TransientError

SERVERS = ("llama-cpp-python", "litellm")
ANSWER = "One animal of a farm is the African elephant."
QUESTION = (Message("system", "Be brief."), Message("user", "Name one animal of a farm."))
TOO_LONG = (Message("user", "a " * 2100),)
OPTIONS = UpstreamOptions(
    name="hub",
    url="",
    model="smollm2-135m-instruct",
    api_key=None,
    max_tokens=48,
    temperature=0.0,
    concurrency=2,
    connect_timeout_s=5.0,
    first_token_timeout_s=10.0,
    idle_timeout_s=10.0,
)


async def ask(server: str, messages: tuple[Message, ...] = QUESTION, **options: Any) -> list[TierEvent]:
    async with Replay(read(server)).running() as replay:
        chosen = replace(OPTIONS, url=f"{replay.url}/v1", **options)
        async with UpstreamClient(chosen, OpenAiWire(chosen)) as tier:
            return [event async for event in tier.stream(TierCall("r1", messages, 30.0))]


def text_of(events: list[TierEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def streams() -> list[Any]:
    return [
        pytest.param(exchange, id=f"{server}-{number}")
        for server in SERVERS
        for number, exchange in enumerate(read(server))
        if exchange.method == "POST" and exchange.status == 200 and exchange.request["stream"] and exchange.chunks
    ]


@pytest.mark.parametrize(("server", "usage"), [("llama-cpp-python", (0, 0)), ("litellm", (21, 10))])
async def test_recorded_answer_is_read_as_it_was(server: str, usage: tuple[int, int]) -> None:
    *deltas, done = await ask(server)
    assert text_of(deltas) == ANSWER
    assert done == Done("stop", "smollm2-135m-instruct", *usage)


@pytest.mark.parametrize("server", SERVERS)
async def test_recorded_answer_that_was_cut_says_so(server: str) -> None:
    done = (await ask(server, max_tokens=3))[-1]
    assert isinstance(done, Done)
    assert done.finish_reason == "length"


async def test_stream_of_llama_cpp_that_ended_without_a_word_is_a_failure() -> None:
    with pytest.raises(TransientError, match="cut before its end"):
        await ask("llama-cpp-python", TOO_LONG, max_tokens=4)


async def test_empty_answer_that_litellm_made_of_it_has_no_text() -> None:
    assert text_of(await ask("litellm", TOO_LONG, max_tokens=4)) == ""


async def test_unknown_model_at_litellm_is_refused_for_good() -> None:
    with pytest.raises(PermanentError, match="HTTP 400") as caught:
        await ask("litellm", model="nobody")
    assert "Invalid model name" in caught.value.detail


async def test_upstream_of_litellm_that_is_down_may_come_back() -> None:
    with pytest.raises(TransientError, match="HTTP 500"):
        await ask("litellm", model="down")


@pytest.mark.parametrize("server", SERVERS)
async def test_recorded_server_is_probed_and_warmed(server: str) -> None:
    async with Replay(read(server)).running() as replay:
        chosen = replace(OPTIONS, url=f"{replay.url}/v1")
        async with UpstreamClient(chosen, OpenAiWire(chosen)) as tier:
            assert await tier.probe() is True
            await tier.warm()


async def test_request_that_was_never_recorded_is_told_apart() -> None:
    with pytest.raises(PermanentError, match="HTTP 418"):
        await ask("litellm", max_tokens=4711)


@pytest.mark.parametrize("exchange", streams())
def test_recorded_stream_reads_the_same_in_any_pieces(exchange: Exchange) -> None:
    whole = read_all([exchange.body])
    assert isinstance(whole[-1], Done)
    assert text_of(read_all([bytes([byte]) for byte in exchange.body])) == text_of(whole)


@pytest.mark.parametrize("exchange", streams())
def test_recorded_stream_cut_before_its_reason_is_never_an_answer(exchange: Exchange) -> None:
    body = exchange.body
    reason_at = body.rindex(b'"finish_reason":', 0, body.rindex(b'"stop"' if b'"stop"' in body else b'"length"'))
    for length in range(0, reason_at, 7):
        with pytest.raises(TransientError):
            read_all([body[:length]])


def read_all(pieces: list[bytes]) -> list[TierEvent]:
    reader = Completion("m")
    events: list[TierEvent] = []
    for piece in pieces:
        events += reader.feed(piece).events
        if events and isinstance(events[-1], Done):
            return events
    return events + reader.close()


@pytest.mark.parametrize("chunk", [b"", b"plain", "größer".encode(), "größer".encode()[:3], b"base64:", b"\xff\x00"])
def test_any_piece_can_be_written_down(chunk: bytes) -> None:
    assert as_bytes(as_text(chunk)) == chunk
