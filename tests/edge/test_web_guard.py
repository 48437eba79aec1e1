"""Who may do what over HTTP, held over the whole table of routes."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes import FakeClock
from web_site import NO_TOKENS, TOKENS, VIEWER, Api, serving

from mqrouter.edge.store.store import Store
from mqrouter.edge.web.options import Role, WebOptions
from mqrouter.edge.web.server import WebServer
from mqrouter.errors import ConfigError


class Moment(FakeClock):
    """Its time does not move the event loop: sockets are waited for."""


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(store, tmp_path, Moment()) as api:
        yield api


def url_of(path: str) -> str:
    return re.sub(r"{\w+}", "hub", path)


async def test_every_route_that_changes_something_needs_the_operator(api: Api) -> None:
    changing = [route for route in api.server.routes if route.method != "GET"]
    assert len(changing) > 12
    for route in changing:
        assert route.role is Role.OPERATOR
        for token, expected in ((None, 401), ("wrong", 401), (VIEWER, 403)):
            api.clock.advance(60)
            status, body = await api.ask(route.method, url_of(route.path), token=token, json={})
            assert (status, set(body)) == (expected, {"error"}), route.path
    assert await api.ask("GET", "/v1/actions") == (200, {"actions": []})


async def test_looking_needs_a_token_where_there_is_one(api: Api) -> None:
    for route in api.server.routes:
        if route.method == "GET" and route.role is Role.VIEWER:
            assert (await api.ask("GET", url_of(route.path), token=None))[0] == 401, route.path
            assert (await api.ask("GET", url_of(route.path), token=VIEWER))[0] in (200, 404), route.path


async def test_without_tokens_this_machine_looks_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    async with serving(store, tmp_path, Moment(), NO_TOKENS) as api:
        assert (await api.ask("GET", "/v1/requests", token=None))[0] == 200
        status, body = await api.ask("POST", "/v1/pause", token=None)
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert "http.operator_token" in body["error"]["message"]
        assert (await api.ask("POST", "/v1/pause", token=""))[0] == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8087", "", "localhost.evil.example", "[::2]", "a b"])
async def test_other_names_are_refused(api: Api, host: str) -> None:
    for route in api.server.routes:
        status, body = await api.ask(route.method, url_of(route.path), headers={"Host": host})
        assert (status, body["error"]["code"]) == (421, "wrong_host"), route.path


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8087", "127.0.0.1", "[::1]:8087", "gateway.lan", "gateway.lan."]
)
async def test_own_names_are_taken(api: Api, host: str) -> None:
    assert (await api.ask("GET", "/v1/requests", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_pages_of_other_sites_get_nothing_even_with_the_token(api: Api, headers: dict[str, str]) -> None:
    for route in api.server.routes:
        status, body = await api.ask(route.method, url_of(route.path), headers=headers, json={})
        assert (status, body["error"]["code"]) == (403, "cross_site"), route.path


async def test_link_on_another_site_may_be_followed_and_not_embedded(api: Api) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await api.ask("GET", "/v1/status", headers=link))[0] == 200
    assert (await api.ask("GET", "/v1/status", headers=link | {"Sec-Fetch-Dest": "iframe"}))[0] == 403
    assert (await api.ask("GET", "/v1/status", headers=link | {"Origin": "https://evil.example"}))[0] == 403
    assert (await api.ask("POST", "/v1/pause", headers=link))[0] == 403


async def test_own_pages_change_things(api: Api) -> None:
    headers = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    assert (await api.ask("POST", "/v1/pause", headers=headers))[0] == 200


async def test_wrong_tokens_are_counted_by_address_and_a_right_one_waits_too(api: Api) -> None:
    for _ in range(10):
        assert (await api.ask("GET", "/v1/requests", token="guess"))[0] == 401
    status, body = await api.ask("GET", "/v1/requests")
    assert (status, body["error"]["code"]) == (429, "too_many_failures")
    api.clock.advance(7)  # one guess every six seconds
    assert (await api.ask("GET", "/v1/requests"))[0] == 200


async def test_missing_tokens_are_no_guesses(api: Api) -> None:
    for _ in range(20):
        assert (await api.ask("GET", "/v1/requests", token=None))[0] == 401
    assert (await api.ask("GET", "/v1/requests"))[0] == 200


async def test_every_answer_has_the_headers(api: Api) -> None:
    for path, method in (("/livez", "GET"), ("/nothing", "GET"), ("/v1/requests", "POST"), ("/v1/status", "GET")):
        async with api.session.request(method, api.url + path) as response:
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Server"] == "mqrouter"
            assert "error" in await response.json() or response.status == 200


async def test_socket_is_the_owners_and_needs_no_token(api: Api) -> None:
    mode = api.path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) & 0o077 == 0
    async with api.local.post("/v1/tiers/hub/pause") as response:
        assert response.status == 200
    _, body = await api.ask("GET", "/v1/actions")
    assert [row["actor"] for row in body["actions"]] == [pwd.getpwuid(os.getuid()).pw_name]


async def test_change_over_tcp_is_on_record_with_role_and_address(api: Api) -> None:
    await api.ask("POST", "/v1/tiers/hub/pause")
    _, body = await api.ask("GET", "/v1/actions")
    (row,) = body["actions"]
    assert (row["actor"], row["action"], row["target"]) == ("operator at 127.0.0.1", "pause", "hub")


async def test_fault_of_ours_says_nothing_of_what_is_inside(api: Api) -> None:
    api.is_broken = True
    status, body = await api.ask("GET", "/v1/status")
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "secret" not in str(body)
    api.is_broken = False
    assert (await api.ask("GET", "/v1/status"))[0] == 200


async def test_socket_of_an_earlier_life_is_replaced_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("left over")
    for _ in range(2):
        async with WebServer(WebOptions(path), [], Moment().monotonic_s):
            assert path.is_socket()
        assert not path.exists()


async def test_taken_address_leaves_the_socket(api: Api, tmp_path: Path) -> None:
    assert api.server.port is not None
    taken = WebOptions(tmp_path / "other.sock", TOKENS.__class__("127.0.0.1", api.server.port))
    async with WebServer(taken, [], Moment().monotonic_s) as other:
        assert "in use" in str(other.error)
        assert (tmp_path / "other.sock").is_socket()


async def test_reader_of_nothing_does_not_hold_up_a_stop(store: Store, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving(store, tmp_path, Moment(), NO_TOKENS))
        await api.queue(*(f"{number} {'x' * 200}" for number in range(400)))
        loop, reader = asyncio.get_running_loop(), stack.enter_context(socket.socket())
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.setblocking(False)
        await loop.sock_connect(reader, ("127.0.0.1", api.server.port))
        await loop.sock_sendall(reader, 30 * b"GET /v1/requests?limit=500 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await loop.sock_recv(reader, 1)
        for _ in range(100):  # meanwhile there is no more room for what is sent
            assert (await api.ask("GET", "/livez", token=None))[0] == 200
        async with asyncio.timeout(30):  # aiohttp's own limits add up to 120 s
            await api.server.__aexit__()


async def test_socket_with_too_long_a_name_is_a_matter_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        async with WebServer(WebOptions(tmp_path / ("x" * 120)), [], Moment().monotonic_s):
            pass
