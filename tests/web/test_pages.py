"""Every page in a real browser, on a phone and at a desk: whole, quiet, light, readable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import Tab
from contrast import too_faint
from farm import Farm

PAGES = ("/", "/queue", "/queue/{id}", "/decisions", "/explain", "/tiers", "/config", "/actions", "/login")
SIZES = {"phone": (360, 740), "desk": (1280, 900)}
MAX_BYTES = 60_000
ROWS = 50
VISIBLE_ROWS = "[...document.querySelectorAll('tr')].filter((row) => row.checkVisibility()).length"


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PAGES)
def path(request: pytest.FixtureRequest, farm: Farm) -> str:
    return str(request.param).replace("{id}", farm.of("orchard")[0]["id"])


@pytest.fixture
def picture(request: pytest.FixtureRequest, pictures: Path | None, size: str) -> Callable[[Tab, str], None]:
    """Takes one of the page, where pictures are wanted."""
    name = request.node.callspec.params["path"].strip("/").replace("/{id}", "-item") or "overview"

    def take(tab: Tab, mode: str) -> None:
        if pictures is not None:
            tab.screenshot(pictures / f"{name}-{size}{mode}.png")

    return take


def test_page_fits_and_is_whole(
    tab: Tab, farm: Farm, path: str, size: str, picture: Callable[[Tab, str], None]
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
    assert tab.roles().count("row") >= tab.js(VISIBLE_ROWS)
    assert 1_000 < tab.seen.weight < MAX_BYTES
    assert not too_faint(tab)
    picture(tab, "")
    tab.prefer(color_scheme="dark", reduced_motion="reduce")
    assert not too_faint(tab)
    picture(tab, "-dark")


@pytest.mark.parametrize("path", ["/queue?device=full", "/decisions?device=full"])
def test_full_page_is_light(tab: Tab, farm: Farm, path: str) -> None:
    if not farm.of("full"):
        farm.waiting("full", ROWS + 1)
    farm.log_in(tab)
    tab.call("Network.setCacheDisabled", cacheDisabled=True)
    tab.seen.weights.clear()
    tab.open(path)
    assert tab.count("tbody tr") == ROWS
    assert tab.seen.weight < MAX_BYTES
    tab.follow("a", "Next page")
    assert tab.count("tbody tr") == 1
