"""GET /v1/export, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fakes import START_MS, FlakyDatabase
from structlog.testing import capture_logs
from test_web_guard import Moment
from web_site import OPERATOR, VIEWER, Api, serving

from mqrouter.core.steering import Selection
from mqrouter.core.timeline import Now
from mqrouter.edge.store.export import export
from mqrouter.edge.store.reader import Reader
from mqrouter.edge.store.store import Store
from mqrouter.edge.web.lines import STEP
from mqrouter.errors import StoreError


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving(store, tmp_path, Moment()) as api:
        yield api


async def lines(api: Api, query: str = "") -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with api.session.get(f"{api.url}/v1/export{query}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        return [json.loads(line) for line in (await response.read()).splitlines()]


async def test_export_is_that_of_the_command_however_many_there_are(api: Api, database: FlakyDatabase) -> None:
    await api.queue(*(f"d{number}" for number in range(STEP + 3)))
    everything = await database.read(lambda db: list(export(db, Selection(), Now(START_MS))))
    assert await lines(api) == everything
    assert len(everything) == STEP + 3
    assert [line["device"] for line in await lines(api, "?device=d7")] == ["d7"]
    assert await lines(api, "?state=expired") == []


async def test_whole_requests_are_for_operators(api: Api) -> None:
    assert (await api.ask("GET", "/v1/export", token=VIEWER))[0] == 403


async def test_part_is_never_taken_for_the_whole(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.queue(*(f"d{number}" for number in range(STEP + 3)))
    read = Reader.export

    async def fails_later(reader: Reader, wanted: Selection, *, limit: int, after: int | None) -> Any:
        if after is not None:
            raise StoreError("the disk is gone")
        return await read(reader, wanted, limit=limit, after=after)

    monkeypatch.setattr(Reader, "export", fails_later)
    with capture_logs() as logs, pytest.raises(aiohttp.ClientError):
        await lines(api)
    assert [line["event"] for line in logs] == ["http.store_failed"]


async def test_what_cannot_be_read_at_all_is_said(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_reader: Reader, _wanted: Selection, *, limit: int, after: int | None) -> Any:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(Reader, "export", fails)
    status, body = await api.ask("GET", "/v1/export")
    assert (status, body["error"]["code"]) == (503, "store_failed")
