"""An OpenAI-compatible tier, over a real connection: what it sends, and what it makes of every way to fail."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.edge.upstream.refusals import retry_after_s
from mqrouter.errors import ConfigError, CredentialsError, PermanentError, TransientError, UnreachableError

OPTIONS = UpstreamOptions(
    name="hub",
    url="http://127.0.0.1:1/v1",
    model="asked-model",
    api_key=SecretStr("sk-secret"),
    max_tokens=64,
    temperature=0.2,
    concurrency=2,
    connect_timeout_s=2.0,
    first_token_timeout_s=2.0,
    idle_timeout_s=2.0,
)
CALL = TierCall("r1", (Message("system", "Be brief."), Message("user", "wet?")), 30.0)


def openai(url: str = OPTIONS.url, **options: Any) -> UpstreamClient:
    chosen = replace(OPTIONS, url=url, **options)
    return UpstreamClient(chosen, OpenAiWire(chosen))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(text: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    value = {"model": "real-model", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | more
    return b"data: " + json.dumps(value).encode() + b"\n\n"


USAGE = chunk(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
WHOLE = {
    "model": "real-model",
    "choices": [{"message": {"role": "assistant", "content": "Very wet."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2},
}


class Server:
    """Answers chat completions as `handler` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.handler: Handler = self.streamed(chunk("Yes"), chunk(finish="stop"), DONE)
        self.models_status = 200
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.url = ""

    @staticmethod
    def streamed(
        *chunks: bytes, pause: asyncio.Event | None = None, content_type: str = "text/event-stream"
    ) -> Handler:
        """With `pause` the server falls silent before the last chunk."""

        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": content_type})
            await response.prepare(request)
            for number, data in enumerate(chunks):
                if pause is not None and number == len(chunks) - 1:
                    await pause.wait()
                await response.write(data)
            return response

        return handle

    @staticmethod
    def status(status: int, body: Any = None, **headers: str) -> Handler:
        async def handle(_: web.Request) -> web.StreamResponse:
            return web.json_response(
                {"error": {"message": "said so"}} if body is None else body, status=status, headers=headers
            )

        return handle

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.json()))
        return await self.handler(request)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": []}, status=self.models_status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self.chat), web.get("/v1/models", self.models)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


async def ask(url: str, **options: Any) -> list[TierEvent]:
    async with openai(url, **options) as tier:
        return [event async for event in tier.stream(CALL)]


def text_of(events: list[TierEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that is free to break HTTP."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


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


# --- the connection ---------------------------------------------------------------------------------


async def test_refused_connection_is_unreachable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(UnreachableError, match="cannot connect"):
        await ask(url)


async def test_unknown_name_is_unreachable() -> None:
    with pytest.raises(UnreachableError):
        await ask("http://no-such-host.invalid/v1")


async def test_connection_that_is_never_made_is_unreachable() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        async with AsyncExitStack() as stack:
            for _ in range(4):  # the backlog is full: further connections hang
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            with pytest.raises(UnreachableError, match=r"no connection within 0\.2 s"):
                await ask(f"http://127.0.0.1:{full.getsockname()[1]}/v1", connect_timeout_s=0.2)


async def test_slow_first_token_is_cut(server: Server) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.handler = silent
    with pytest.raises(TransientError, match=r"no answer within 0\.2 s") as caught:
        await ask(server.url, first_token_timeout_s=0.2)
    assert not isinstance(caught.value, UnreachableError)


async def test_headers_without_a_first_token_are_cut(server: Server) -> None:
    server.handler = server.streamed(b"", DONE, pause=asyncio.Event())
    with pytest.raises(TransientError, match=r"no token within 0\.2 s"):
        await ask(server.url, first_token_timeout_s=0.2, idle_timeout_s=30.0)


async def test_first_token_has_one_limit_from_the_request_on(server: Server) -> None:
    async def headers_late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.6)  # the server's own delay: most of the limit
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    server.handler = headers_late
    started_s = time.monotonic()
    with pytest.raises(TransientError, match="no token within 1 s"):
        await ask(server.url, first_token_timeout_s=1.0)
    assert time.monotonic() - started_s < 1.5


@pytest.mark.parametrize("sign", [b": still here\n\n", chunk(), chunk("")])
async def test_signs_without_a_token_do_not_prolong_the_wait_for_one(server: Server, sign: bytes) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(sign)
            await asyncio.sleep(0.01)

    server.handler = busy
    with pytest.raises(TransientError, match=r"no token within 0\.3 s"):
        await ask(server.url, first_token_timeout_s=0.3, idle_timeout_s=30.0)


async def test_comments_do_not_hide_silence_between_tokens(server: Server) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("Half"))
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(0.01)

    server.handler = busy
    with pytest.raises(TransientError, match=r"silent for 0\.3 s"):
        await ask(server.url, first_token_timeout_s=30.0, idle_timeout_s=0.3)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_thinking_is_a_sign_of_life_and_no_part_of_the_answer(server: Server, key: str) -> None:
    async def think(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(8):
            await response.write(chunk(choices=[{"delta": {key: "hm", "content": None}, "finish_reason": None}]))
            await asyncio.sleep(0.1)
        await response.write(chunk("Yes.", finish="stop"))
        return response

    server.handler = think
    assert text_of(await ask(server.url, first_token_timeout_s=0.5, idle_timeout_s=0.5)) == "Yes."


async def test_silence_between_tokens_is_cut(server: Server) -> None:
    server.handler = server.streamed(chunk("Half"), DONE, pause=asyncio.Event())
    with pytest.raises(TransientError, match=r"silent for 0\.2 s"):
        await ask(server.url, first_token_timeout_s=30.0, idle_timeout_s=0.2)


@dataclass(frozen=True)
class TlsServer:
    url: str
    ca_file: Path


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[TlsServer]:
    """Answers over TLS for 127.0.0.1, with a certificate that only `ca_file` vouches for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    body = json.dumps(WHOLE).encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        yield TlsServer(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", tmp_path / "ca.crt")


async def test_server_of_ones_own_authority_is_trusted_by_its_file(tls_server: TlsServer) -> None:
    assert text_of(await ask(tls_server.url, ca_file=tls_server.ca_file)) == "Very wet."


async def test_certificate_of_nobody_known_is_said_to_be_the_reason(tls_server: TlsServer) -> None:
    with pytest.raises(UnreachableError, match=r"certificate of 127\.0\.0\.1:\d+ is not accepted: .*ca_file"):
        await ask(tls_server.url)


async def test_certificate_for_another_name_is_said_to_be_the_reason(tls_server: TlsServer) -> None:
    with pytest.raises(UnreachableError, match=r"is not accepted: .*localhost"):
        await ask(tls_server.url.replace("127.0.0.1", "localhost"), ca_file=tls_server.ca_file)


async def test_https_to_a_server_without_it_says_so(server: Server) -> None:
    with pytest.raises(UnreachableError, match=r"no TLS with 127\.0\.0\.1"):
        await ask(server.url.replace("http:", "https:"))


async def test_authority_that_is_no_certificate_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"tiers\.hub\.ca_file: .* is no file of certificates"):
        await ask(OPTIONS.url, ca_file=tmp_path / "ca.crt")


@pytest.mark.parametrize("with_reset", [False, True])
async def test_dropped_kept_alive_connection_is_replaced_at_once(with_reset: bool) -> None:
    connections = 0
    body = json.dumps(WHOLE).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(answer)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the second request on the same connection
        if with_reset:
            linger = struct.pack("ii", 1, 0)  # close with a reset instead of an orderly end
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        writer.close()

    async with raw_server(handle) as url, openai(url) as tier:
        for _ in range(2):
            assert text_of([event async for event in tier.stream(CALL)]) == "Very wet."
    assert connections == 2


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(length)


async def test_server_that_always_hangs_up_is_tried_twice_and_no_more() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.close()

    async with raw_server(handle) as url:
        with pytest.raises(TransientError) as caught:
            await ask(url)
    assert not isinstance(caught.value, UnreachableError)
    assert connections == 2


async def test_answer_that_is_not_http_is_a_failed_attempt() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    async with raw_server(handle) as url:
        with pytest.raises(TransientError):
            await ask(url)


async def test_reader_that_leaves_ends_the_generation(server: Server) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(chunk("and "))
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    server.handler = endless
    async with openai(server.url) as tier:
        stream = tier.stream(CALL)
        assert await anext(stream) == Delta("and ")
        await stream.aclose()
        async with asyncio.timeout(5):
            await gone.wait()


# --- probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "is_up"),
    [(200, True), (404, True), (405, True), (401, False), (403, False), (429, False), (500, False), (503, False)],
)
async def test_probe_asks_for_the_models_and_never_for_a_generation(server: Server, status: int, is_up: bool) -> None:
    server.models_status = status
    async with openai(server.url) as tier:
        assert await tier.probe() is is_up
    assert server.requests == []


async def test_probe_of_nobody_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai() as tier:
        assert await tier.probe() is False

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr("mqrouter.edge.upstream.client.PROBE_TIMEOUT_S", 0.2)
    async with raw_server(silent) as url, openai(url) as tier:
        assert await tier.probe() is False


# --- keeping warm -----------------------------------------------------------------------------------


async def test_warming_asks_for_one_token(server: Server) -> None:
    async with openai(server.url) as tier:
        await tier.warm()
    ((headers, body),) = server.requests
    assert (body["max_tokens"], body["stream"], body["model"]) == (1, False, "asked-model")
    assert "Idempotency-Key" not in headers


async def test_warming_nobody_says_so() -> None:
    async with openai() as tier:
        with pytest.raises(UnreachableError):
            await tier.warm()


async def test_reason_why_a_probe_failed_is_logged_once(server: Server) -> None:
    server.models_status = 503
    with capture_logs() as logged:
        async with openai(server.url) as tier:
            for _ in range(3):
                await tier.probe()
    assert [(event["event"], event["error"]) for event in logged] == [("upstream.probe_failed", "HTTP 503")]
