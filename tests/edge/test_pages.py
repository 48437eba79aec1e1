"""The pages without a browser: what they show, to whom, and that what devices send is text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import START_MS, request
from page_site import Pages, browsing
from test_web_guard import Moment
from web_site import NO_TOKENS, OPERATOR, VIEWER

from mqrouter.edge.store.store import Store

PAGES = ("/", "/?span=day", "/queue", "/decisions", "/explain", "/tiers", "/config", "/actions")
MAX_WEIGHT = 60_000


@pytest.fixture
async def pages(store: Store, tmp_path: Path) -> AsyncIterator[Pages]:
    async with browsing(store, tmp_path, Moment()) as pages:
        yield pages


async def shown(pages: Pages, path: str, token: str = VIEWER) -> str:
    status, text = await pages.get(path, token=token)
    assert status == 200, text
    return text


@pytest.mark.parametrize("path", PAGES)
async def test_page_is_shown_with_and_without_data(pages: Pages, path: str) -> None:
    pages.trends.samples = 0
    assert "<h1>" in await shown(pages, path)
    pages.trends.samples = 240
    await pages.api.queue("a", "b")
    await pages.api.fails(1, "HTTP 503")
    await pages.api.ask("POST", "/v1/tiers/hub/pause")
    text = await shown(pages, path)
    assert 'lang="en"' in text and "<title>" in text and "None" not in text
