"""The daemon's own door, over its real socket."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mqrouter.edge.control import ControlSocket, Verbs


class Daemon:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.is_broken = False

    def status(self) -> dict[str, Any]:
        if self.is_broken:
            raise RuntimeError("secret inside")
        return {"version": "1", "requests": {"pending": 3}}

    async def on_request(self, request_id: str, actor: str) -> str | None:
        self.asked.append((request_id, actor))
        return "pending" if request_id == "r 1/ä" else None

    async def on_tier(self, tier: str, actor: str) -> bool:
        self.asked.append((tier, actor))
        return tier == "hub"

    @property
    def verbs(self) -> Verbs:
        return Verbs(self.status, self.on_request, self.on_request, self.on_tier, self.on_tier)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
async def session(path: Path, daemon: Daemon) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(path))
    async with (
        ControlSocket(path, daemon.verbs),
        aiohttp.ClientSession("http://mqrouter", connector=connector) as session,
    ):
        yield session


async def test_status_is_json(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/status") as response:
        assert (response.status, await response.json()) == (200, {"version": "1", "requests": {"pending": 3}})


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_verb_names_the_state_it_found(session: aiohttp.ClientSession, daemon: Daemon, verb: str) -> None:
    async with session.post(f"/v1/requests/r%201%2F%C3%A4/{verb}") as response:
        assert (response.status, await response.json()) == (200, {"found": "pending"})
    async with session.post(f"/v1/requests/other/{verb}") as response:
        assert response.status == 404
        assert "no such request" in (await response.json())["error"]
    me = pwd.getpwuid(os.getuid()).pw_name
    assert daemon.asked == [("r 1/ä", me), ("other", me)]


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_tier_verb_needs_a_tier_that_exists(session: aiohttp.ClientSession, verb: str) -> None:
    async with session.post(f"/v1/tiers/hub/{verb}") as response:
        assert response.status == 200
    async with session.post(f"/v1/tiers/moon/{verb}") as response:
        assert (response.status, await response.json()) == (404, {"error": "there is no such tier"})


async def test_unknown_path_and_broken_status_leave_the_door_open(
    session: aiohttp.ClientSession, daemon: Daemon
) -> None:
    async with session.get("/v1/nothing") as response:
        assert response.status == 404
    daemon.is_broken = True
    async with session.get("/v1/status") as response:
        assert response.status == 500
        assert "secret" not in await response.text()
    daemon.is_broken = False
    async with session.get("/v1/status") as response:
        assert response.status == 200


async def test_only_the_owner_may_knock(session: aiohttp.ClientSession, path: Path) -> None:
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o077 == 0


async def test_socket_of_an_earlier_life_is_replaced_and_gone_afterwards(path: Path, daemon: Daemon) -> None:
    path.write_text("left over")
    for _ in range(2):
        async with ControlSocket(path, daemon.verbs):
            assert path.is_socket()
        assert not path.exists()
