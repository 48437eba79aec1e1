"""What is kept of listings: for how long, for whom, and how much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_web_guard import Moment
from web_site import OPERATOR, VIEWER, Api, serving

from mqrouter.edge.store.store import Store
from mqrouter.edge.web.recent import FRESH_S, MAX_BYTES, MAX_ENTRIES, MAX_FRESH_S, Recent


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
async def api(store: Store, tmp_path: Path, moment: Moment) -> AsyncIterator[Api]:
    async with serving(store, tmp_path, moment) as api:
        yield api


async def waiting(api: Api, *, token: str = OPERATOR) -> int:
    status, body = await api.ask("GET", "/v1/requests?state=pending", token=token)
    assert status == 200
    return len(body["requests"])


async def test_listing_is_the_same_for_a_moment_and_no_longer(api: Api, moment: Moment) -> None:
    await api.queue("barn")
    assert await waiting(api) == 1
    await api.queue("trough")
    assert await waiting(api) == 1
    assert await waiting(api, token=VIEWER) == 2  # nobody gets what another role was shown
    moment.advance(FRESH_S)
    assert await waiting(api) == 2


async def test_what_somebody_changed_is_seen_at_once(api: Api) -> None:
    first, _ = await api.queue("barn", "trough")
    assert await waiting(api) == 2
    assert (await api.ask("POST", f"/v1/requests/{first}/cancel", json={}))[0] == 200
    assert await waiting(api) == 1


async def test_answer_is_for_those_only_who_may_have_it(api: Api) -> None:
    await api.queue("barn")
    path = "/v1/requests?text=says"
    assert (await api.ask("GET", path))[0] == 200
    assert (await api.ask("GET", path, token=VIEWER))[0] == 403
    assert (await api.ask("GET", path, token="guess"))[0] == 401


def test_look_that_began_before_a_change_is_not_kept(moment: Moment) -> None:
    recent = Recent(moment.monotonic_s)
    begun = recent.now()
    recent.forget()
    recent.keep("listing", b"old", begun)
    assert recent.get("listing") is None


def test_what_took_long_is_kept_for_longer(moment: Moment) -> None:
    recent = Recent(moment.monotonic_s)
    for took_s, fresh_s in ((0.001, FRESH_S), (0.15, 1.5), (0.5, MAX_FRESH_S)):
        begun = recent.now()
        moment.advance(took_s)
        recent.keep(took_s, b"{}", begun)
        moment.advance(fresh_s - took_s - 0.001)
        assert recent.get(took_s) == b"{}"
        moment.advance(0.002)
        assert recent.get(took_s) is None


def test_what_is_kept_is_bounded(moment: Moment) -> None:
    recent = Recent(moment.monotonic_s)
    for number in range(5):
        recent.keep(number, bytes(MAX_BYTES // 2), recent.now())
    assert [number for number in range(5) if recent.get(number)] == [4]
    for number in range(MAX_ENTRIES + 1):
        recent.keep(f"look {number}", b"{}", recent.now())
    assert sum(recent.get(f"look {number}") is not None for number in range(MAX_ENTRIES + 1)) < MAX_ENTRIES
