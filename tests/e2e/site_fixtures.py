"""A site that the tests of a module share; a module names this file in `pytest_plugins`."""

from collections.abc import Iterator

import pytest
from harness import Site, running_site


@pytest.fixture(scope="module")
def shared_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One broker, tier and daemon for a module; its `CONFIG` is added to the configuration."""
    text = getattr(request.module, "CONFIG", "")
    with running_site(tmp_path_factory.mktemp("site"), text=text) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The shared site with a tier that is up and answers."""
    shared_site.tier.reset()
    yield shared_site
    shared_site.tier.reset()
