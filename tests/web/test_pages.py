"""Every page in a real browser, on a phone and at a desk: whole, quiet, light, readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Tab
from contrast import too_faint
from farm import Farm

PAGES = ("/", "/queue", "/queue/{id}", "/decisions", "/explain", "/tiers", "/config", "/actions", "/login")
SIZES = {"phone": (360, 740), "desk": (1280, 900)}
MAX_BYTES = 60_000


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PAGES)
def path(request: pytest.FixtureRequest, farm: Farm) -> str:
    return str(request.param).replace("{id}", farm.of("orchard")[0]["id"])


def test_page_fits_and_is_whole(
    tab: Tab, farm: Farm, path: str, size: str, pictures: Path | None, request: pytest.FixtureRequest
) -> None:
    farm.log_in(tab)
    tab.resize(*SIZES[size])
    tab.seen.weights.clear()
    tab.call("Network.setCacheDisabled", cacheDisabled=True)
    tab.open(path)
    assert tab.count("h1") == 1
    assert tab.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    nameless = [role for role, name in tab.controls() if not name.strip()]
    assert not nameless
    weights = {url: n for url, n in tab.seen.weights.items() if not url.endswith("/events")}
    assert 1_000 < sum(weights.values()) < MAX_BYTES, weights
    assert not too_faint(tab)
    if pictures is not None:
        tab.screenshot(
            pictures / f"{request.node.callspec.params['path'].strip('/').replace('/', '_') or 'overview'}-{size}.png"
        )
    tab.prefer(color_scheme="dark", reduced_motion="reduce")
    assert not too_faint(tab)
    if pictures is not None:
        tab.screenshot(
            pictures
            / f"{request.node.callspec.params['path'].strip('/').replace('/', '_') or 'overview'}-{size}-dark.png"
        )
