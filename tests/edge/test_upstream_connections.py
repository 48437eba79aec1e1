"""Connections to a model server: every way to fail, limits, TLS, probes, and keeping its model warm."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from openai_server import (
    CALL,
    DONE,
    OPTIONS,
    WHOLE,
    Server,
    ask,
    chunk,
    openai,
    raw_server,
    read_request,
    text_of,
)
from structlog.testing import capture_logs

from mqrouter.core.events import Delta
from mqrouter.errors import ConfigError, TransientError, UnreachableError


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


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
        await asyncio.sleep(1.6)  # the server's own delay: most of the limit
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    server.handler = headers_late
    started_s = time.monotonic()
    with pytest.raises(TransientError, match="no token within 2 s"):
        await ask(server.url, first_token_timeout_s=2.0)
    assert time.monotonic() - started_s < 3.5  # with a second limit from the headers on it would be 3.6 s at least


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
        async with asyncio.timeout(60):
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
