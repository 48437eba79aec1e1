"""A gateway with its page, a browser, and where the pictures go: MQROUTER_SCREENSHOTS=FOLDER keeps one of each page."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "e2e"), str(Path(__file__).parent)]

from chromium import Chromium, Tab  # noqa: E402
from farm import Farm, running_farm  # noqa: E402


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def tab(browser: Chromium, farm: Farm) -> Iterator[Tab]:
    """A tab at a desk, of somebody who has not logged in; at its end nothing was complained about in it."""
    with browser.tab(farm.url) as tab:
        tab.resize(1280, 900)
        yield tab
        assert not tab.seen.complaints
        assert all(url.startswith(f"{farm.url}/") for url in tab.seen.urls), tab.seen.urls


@pytest.fixture(scope="session")
def pictures() -> Path | None:
    folder = os.environ.get("MQROUTER_SCREENSHOTS")
    return None if folder is None else Path(folder)
