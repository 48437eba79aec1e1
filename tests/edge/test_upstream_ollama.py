"""Ollama's own wire form against a server that follows its documentation: what is sent, kept, refused and said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from ollama_server import Behaviour, OllamaServer
from structlog.testing import capture_logs

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OllamaOptions, OllamaWire, UpstreamClient, UpstreamOptions
from mqrouter.edge.upstream.ollama import Chat
from mqrouter.errors import PermanentError, TransientError, UnreachableError

OPTIONS = UpstreamOptions(
    name="hub",
    url="http://127.0.0.1:1",
    model="llama3.2",
    api_key=None,
    max_tokens=64,
    temperature=0.2,
    concurrency=2,
    connect_timeout_s=2.0,
    first_token_timeout_s=5.0,
    idle_timeout_s=5.0,
)
CALL = TierCall("r1", (Message("system", "Be brief."), Message("user", "wet?")), 30.0)


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer().running() as server:
        yield server


def ollama(server: OllamaServer, *, own: OllamaOptions | None = None, **options: Any) -> UpstreamClient:
    chosen = replace(OPTIONS, **{"url": server.url, **options})
    return UpstreamClient(chosen, OllamaWire(chosen, own or OllamaOptions()))


async def ask(server: OllamaServer, *, own: OllamaOptions | None = None, **options: Any) -> list[TierEvent]:
    async with ollama(server, own=own, **options) as tier:
        return [event async for event in tier.stream(CALL)]


def text_of(events: list[TierEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def says(server: OllamaServer, **behaviour: Any) -> None:
    server.behaviour = lambda _question: Behaviour(**behaviour)


# --- what is sent and what comes back ---------------------------------------------------------------


async def test_answer_comes_in_pieces_with_its_usage(server: OllamaServer) -> None:
    says(server, text="Very wet.")
    events = await ask(server)
    assert (text_of(events), events[-1]) == ("Very wet.", Done("stop", "llama3.2", 3, 2))


async def test_request_says_what_is_configured_and_no_more(server: OllamaServer) -> None:
    await ask(server)
    await ask(server, own=OllamaOptions(keep_alive_s=1800.0, context_tokens=8192, thinks=False))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "wet?"}]
    options = {"num_predict": 64, "temperature": 0.2}
    plain = {"model": "llama3.2", "messages": messages, "options": options, "stream": True}
    chosen = plain | {"options": options | {"num_ctx": 8192}, "keep_alive": 1800.0, "think": False}
    assert server.requests == [plain, chosen]
    assert [headers["Idempotency-Key"] for headers in server.headers] == ["r1", "r1"]


async def test_answer_cut_by_its_length_says_so(server: OllamaServer) -> None:
    says(server, text="one two three")
    assert (await ask(server, max_tokens=2))[-1] == Done("length", "llama3.2", 3, 2)


async def test_thoughts_of_the_model_stay_out_of_the_answer(server: OllamaServer) -> None:
    says(server, thinking="what do they mean by wet", text="Yes.")
    assert await ask(server) == [Delta("Yes."), Done("stop", "llama3.2", 3, 1)]


async def test_older_server_without_a_reason_has_ended_well(server: OllamaServer) -> None:
    says(server, text="Yes.", done_reason=None)
    assert (await ask(server))[-1] == Done("stop", "llama3.2", 3, 1)


def test_object_cut_anywhere_is_read_whole() -> None:
    data = '{"model":"m","message":{"role":"assistant","content":"größer 🐄"},"done":false}\n'
    data += '{"model":"m","message":{"role":"assistant","content":""},"done":true,"eval_count":3}\n'
    reader = Chat("m")
    found = [event for byte in data.encode() for event in reader.feed(bytes([byte])).events]
    assert found == [Delta("größer 🐄"), Done("stop", "m", 0, 3)]


async def test_text_is_handed_on_as_it_comes(server: OllamaServer) -> None:
    pause = asyncio.Event()
    says(server, text="Yes.", pause=pause)
    async with ollama(server) as tier:
        stream = tier.stream(CALL)
        assert await anext(stream) == Delta("Yes.")
        pause.set()
        assert await anext(stream) == Done("stop", "llama3.2", 3, 1)


def test_answer_in_one_piece_is_understood() -> None:
    reader = Chat("m")
    reader.feed(b'{"message":{"role":"assistant","content":"Yes."},"done":true,"done_reason":"stop"}')
    assert reader.close() == [Delta("Yes."), Done("stop", "m", 0, 0)]


# --- answers that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"is_cut": True}, "broke off"),
        ({"error": "an error was encountered while running the model"}, "failed in its answer"),
        ({"done_reason": "load"}, 'ended with "load"'),
        ({"done_reason": "unload"}, 'ended with "unload"'),
    ],
)
async def test_half_an_answer_is_a_failed_attempt(server: OllamaServer, behaviour: Any, reason: str) -> None:
    says(server, text="Half of", **behaviour)
    with pytest.raises(TransientError, match=reason) as caught:
        await ask(server)
    assert not isinstance(caught.value, UnreachableError)
    assert caught.value.detail == behaviour.get("error", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut before its end"),
        (b'{"message":{"role":"assistant","content":"Half"},"done":false}\n', "cut before its end"),
        (b'{"message":{"role":"assistant","content":"Ha', "not valid JSON"),
        (b"[1]\n", "not a JSON object"),
        (b'{"message":{"content":7},"done":true}\n', "not text"),
        (b"x" * ((1 << 20) + 1), "never ends"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(data: bytes, reason: str) -> None:
    reader = Chat("m")
    with pytest.raises(TransientError, match=reason):
        reader.feed(data)
        reader.close()


async def test_silence_between_tokens_is_cut(server: OllamaServer) -> None:
    says(server, pause=asyncio.Event())
    with pytest.raises(TransientError, match=r"silent for 0\.2 s"):
        await ask(server, idle_timeout_s=0.2)


# --- refusals ---------------------------------------------------------------------------------------


async def test_missing_model_is_refused_for_good_and_the_remedy_named(server: OllamaServer) -> None:
    with pytest.raises(PermanentError, match=r'model "qwen3:8b" is not on the server: run `ollama pull qwen3:8b`'):
        await ask(server, model="qwen3:8b")


async def test_address_that_is_not_ollamas_does_not_blame_the_model(server: OllamaServer) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(server, url=f"{server.url}/elsewhere")
    assert "pull" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (400, '"llama3.2" does not support chat', PermanentError),
        (500, "llama runner process has terminated: exit status 2", TransientError),
        (503, "server busy, please try again.  maximum pending requests exceeded", TransientError),
        (499, "request canceled", TransientError),
    ],
)
async def test_refusal_keeps_the_servers_words(
    server: OllamaServer, status: int, words: str, error: type[PermanentError | TransientError]
) -> None:
    says(server, status=status, error=words)
    with pytest.raises(error, match=f"HTTP {status}") as caught:
        await ask(server)
    assert caught.value.detail == words  # type: ignore[attr-defined]


# --- the model's time in memory ---------------------------------------------------------------------


async def test_cold_load_is_waited_for(server: OllamaServer) -> None:
    load = asyncio.Event()
    says(server, load=load, text="Yes.")
    asyncio.get_running_loop().call_later(0.5, load.set)
    events = await ask(server, idle_timeout_s=0.1, first_token_timeout_s=30.0)
    assert events[0] == Delta("Yes.")
    assert server.loads == 1


async def test_load_beyond_the_limit_to_the_first_token_is_given_up(server: OllamaServer) -> None:
    says(server, load=asyncio.Event())
    with pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
        await ask(server, first_token_timeout_s=0.2)
    async with asyncio.timeout(60):
        while not server.abandoned_loads:
            await asyncio.sleep(0)


@pytest.mark.parametrize(("keep_alive_s", "is_kept"), [(None, True), (0.0, False), (100.0, False), (-1.0, True)])
async def test_model_stays_as_long_as_configured(
    server: OllamaServer, keep_alive_s: float | None, is_kept: bool
) -> None:
    await ask(server, own=OllamaOptions(keep_alive_s=keep_alive_s))
    server.advance(200.0)
    assert bool(server.loaded) is is_kept


async def test_warming_loads_the_model_as_a_question_will_want_it_and_writes_nothing(server: OllamaServer) -> None:
    own = OllamaOptions(keep_alive_s=600.0, context_tokens=8192)
    async with ollama(server, own=own) as tier:
        await tier.warm()
        assert server.requests[0]["messages"] == []
        _ = [event async for event in tier.stream(CALL)]
    assert server.loads == 1


async def test_warming_again_prolongs_the_models_stay(server: OllamaServer) -> None:
    async with ollama(server) as tier:
        for _ in range(4):
            await tier.warm()
            server.advance(200.0)
    assert server.loads == 1


async def test_warming_a_missing_model_says_what_to_do(server: OllamaServer) -> None:
    async with ollama(server, model="qwen3:8b") as tier:
        with pytest.raises(PermanentError, match="ollama pull"):
            await tier.warm()


# --- probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "is_up"),
    [
        ("llama3.2", True),
        ("llama3.2:latest", True),
        ("LLaMA3.2", True),
        ("registry.ollama.ai/library/llama3.2", True),
        ("llama3.2:1b", False),
        ("library/other", False),
        ("gpt-oss:120b-cloud", True),
    ],
)
async def test_tier_is_up_where_its_model_is_there(server: OllamaServer, model: str, is_up: bool) -> None:
    async with ollama(server, model=model) as tier:
        assert await tier.probe() is is_up
    assert server.requests == []


async def test_probe_without_the_model_says_what_to_do(server: OllamaServer) -> None:
    server.models = ()
    with capture_logs() as logged:
        async with ollama(server) as tier:
            assert await tier.probe() is False
    assert "run `ollama pull llama3.2` there" in logged[0]["error"]


async def test_probe_of_nobody_is_false() -> None:
    async with ollama(OllamaServer(port=1)) as tier:
        assert await tier.probe() is False


# --- the server itself ------------------------------------------------------------------------------


async def test_server_writes_what_the_documentation_shows(server: OllamaServer) -> None:
    says(server, text="The sky")
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": "why is the sky blue?"}]}
    async with aiohttp.ClientSession(server.url) as session, session.post("/api/chat", json=body) as response:
        head = (response.headers["Content-Type"], response.headers["Transfer-Encoding"])
        lines = (await response.read()).splitlines(keepends=True)
    assert head == ("application/x-ndjson", "chunked")
    stamp = b'"created_at":"2026-11-21T06:00:00.123456Z"'
    first = b'{"model":"llama3.2",%s,"message":{"role":"assistant","content":"The"},"done":false}\n' % stamp
    last = (
        b'{"model":"llama3.2",%s,"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",' % stamp
    )
    last += b'"total_duration":4000000000,"load_duration":3001334875,"prompt_eval_count":5,'
    last += b'"prompt_eval_duration":342546000,"eval_count":2,"eval_duration":20000000}\n'
    assert (lines[0], lines[-1]) == (first, last)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "missing request body"),
        (b"what?", 400, "invalid character 'w' looking for beginning of value"),
        (b"{}", 400, "model is required"),
        (b'{"model":"other"}', 404, "model 'other' not found"),
        (b'{"model":"llama3.2","keep_alive":"-1"}', 400, 'time: missing unit in duration "-1"'),
    ],
)
async def test_server_refuses_as_documented(server: OllamaServer, body: bytes, status: int, error: str) -> None:
    async with aiohttp.ClientSession(server.url) as session, session.post("/api/chat", data=body) as response:
        assert (response.status, await response.json()) == (status, {"error": error})


async def test_server_lists_what_is_there_and_what_is_loaded(server: OllamaServer) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        for path in ("/api/version", "/api/tags", "/api/ps"):
            async with session.get(path) as response:
                assert response.status == 200
        body = {"model": "llama3.2", "messages": [], "keep_alive": "5m"}
        async with session.post("/api/chat", json=body) as response:
            assert (await response.json())["done_reason"] == "load"
        async with session.get("/api/ps") as response:
            assert (await response.json())["models"][0]["expires_at"] == "2026-11-21T06:05:00.123456Z"
        async with session.post("/api/chat", json=body | {"keep_alive": 0}) as response:
            assert (await response.json())["done_reason"] == "unload"
        async with session.get("/api/ps") as response:
            assert await response.json() == {"models": []}
