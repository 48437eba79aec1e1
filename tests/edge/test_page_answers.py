"""The pages without a browser: what they show, to whom, and that what devices send is text."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest
from fakes import START_MS, FlakyDatabase, request
from page_site import Pages, browsing, hidden
from structlog.testing import capture_logs
from test_web_guard import Moment
from web_site import NO_TOKENS, OPERATOR, VIEWER

from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.steering import Verb
from mqrouter.edge.store.store import Store
from mqrouter.edge.web.options import Role

PAGES = ("/", "/?span=day", "/queue", "/decisions", "/explain", "/tiers", "/config", "/actions")
MAX_WEIGHT = 60_000
CHARSETS = ("utf-7", "utf-16", "idna", "nothing")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e{{ 7*7 }}"


@pytest.fixture
async def pages(store: Store, tmp_path: Path) -> AsyncIterator[Pages]:
    async with browsing(store, tmp_path, Moment()) as pages:
        yield pages


async def shown(pages: Pages, path: str, token: str | None = VIEWER) -> str:
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
    assert len(re.findall("<th(?! scope=)(?!ead)", text)) == 0
    for name in re.findall(r"<(?:input|select|textarea)(?![^>]*hidden)[^>]*>", text):
        labelled = re.search(r'id="([\w-]+)"', name)
        is_labelled = labelled is not None and f'for="{labelled[1]}"' in text
        assert is_labelled or "aria-label" in name or re.search(rf"<label[^>]*>[^<]*{re.escape(name)}", text), name


async def test_charts_end_with_what_is_said_beside_them(pages: Pages) -> None:
    pages.trends.samples = 0
    await pages.api.queue("a", "b", "c")
    text = await shown(pages, "/")
    assert 'id="pending">3<' in text and "waiting: 3" in text and "age: 5.0 s" in text
    assert "delivered: 4" in text and "router: 84 MB" in text and "power" not in text.lower()
    pages.trends.samples = 240
    assert "delivered: 4" in await shown(pages, "/?span=day")


async def test_nothing_but_files_of_ours_is_loaded_and_no_script_stands_in_a_page(pages: Pages) -> None:
    for path in PAGES:
        async with pages.session.get(pages.api.url + path, headers={"Authorization": f"Bearer {VIEWER}"}) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
            # Of a page without any referrer browsers send forms as from "null", which is refused.
            assert response.headers["Referrer-Policy"] == "same-origin"
            text = await response.text()
        assert not re.search(r"<script(?! src=\"/static/)|<style|\sstyle=|\son\w+=|javascript:|https?://", text), path


async def test_page_with_fifty_requests_weighs_little(pages: Pages) -> None:
    await pages.api.queue(*(f"greenhouse-north-sensor-{number:03}" for number in range(60)))
    await pages.api.fails(60, "HTTP 503 Service Unavailable: the model is loading, try again")
    text = await shown(pages, "/queue", OPERATOR)
    assert text.count('name="id"') == 50
    weight = len(text.encode())
    for url in re.findall(r'"(/static/[^"]+)"', text):
        async with pages.session.get(pages.api.url + url) as response:
            assert "immutable" in response.headers["Cache-Control"]
            weight += len(await response.read())
            again = {"If-None-Match": response.headers["ETag"]}
        async with pages.session.get(pages.api.url + url, headers=again) as response:
            assert (response.status, await response.read()) == (304, b"")
    assert weight < MAX_WEIGHT


async def test_what_devices_send_is_text(pages: Pages) -> None:
    item = request(json.dumps({"question": HOSTILE, "id": HOSTILE}), topic="mqrouter/farm/ask/<b>x")
    await pages.api.store.accept([item], START_MS)
    (row,) = await pages.api.store.next_received(1, ())
    decision = {
        "route": HOSTILE,
        "reason": HOSTILE,
        "tiers": [HOSTILE],
        "score": 0.5,
        "margin": 0.1,
        "nearest": [{"example": HOSTILE, "route": HOSTILE, "similarity": 0.5}],
        "ranked": [{"route": HOSTILE, "score": 0.5, "threshold": 0.4}],
        "struck": [{"tier": HOSTILE, "reason": HOSTILE}],
    }
    await pages.api.store.queue_for_tiers(
        row, ("hub", "edge"), route=HOSTILE, confidence=0.5, decision=decision, now_ms=START_MS
    )
    await pages.api.fails(1, HOSTILE)
    for path in ("/queue", "/decisions", f"/queue/{row.id}", f"/queue/{row.id}?text=1", f"/queue?text={HOSTILE}&x=1"):
        _, text = await pages.get(path, token=OPERATOR)
        assert "<script>alert" not in text and "<img" not in text and "<b>x" not in text, path
        assert "\u202e" not in text and "{{" not in text.replace("{{ 7*7 }}", ""), path
    status, text = await pages.get("/queue/%3Cscript%3Ealert(1)%3C/script%3E", token=VIEWER)
    assert status == 404 and "<script>alert" not in text


# --- who may ----------------------------------------------------------------------------------------


async def test_pages_need_a_token_where_there_is_one(pages: Pages) -> None:
    for path in PAGES:
        status, text = await pages.get(path, allow_redirects=False)
        assert (status, text) == (303, "")
        status, text = await pages.get(path)
        assert (status, "<h1>Log in</h1>" in text) == (200, True)


async def test_session_comes_with_a_token_and_goes_with_a_logout(pages: Pages) -> None:
    assert "this is no token of this gateway" in await pages.log_in("wrong-token-0123456789")
    text = await pages.log_in()
    assert 'id="role">operator<' in text
    (cookie,) = pages.session.cookie_jar
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert OPERATOR not in cookie.value
    assert (await pages.api.ask("GET", "/v1/requests", token=None, headers={"Cookie": cookie.OutputString()}))[0] == 401
    status, text = await pages.post("/logout", hidden(text))
    assert (status, "<h1>Log in</h1>" in text) == (200, True)
    status, _ = await pages.get("/queue", headers={"Cookie": f"{cookie.key}={cookie.value}"}, allow_redirects=False)
    assert status == 303


async def test_no_session_counts_for_the_api(pages: Pages) -> None:
    await pages.log_in()
    asked = [route for route in pages.api.server.routes if route.path.startswith("/v1/")]
    assert [route.path for route in asked if route.is_page] == []
    for route in asked:
        if route.role is not Role.NOBODY:
            path = re.sub("{.*?}", "x", route.path)
            async with pages.session.request(route.method, pages.api.url + path) as response:
                assert response.status == 401, route.path


async def test_session_ends_when_nobody_uses_it(pages: Pages) -> None:
    await pages.log_in()
    pages.api.clock.advance(11 * 3600)
    assert (await pages.get("/queue", allow_redirects=False))[0] == 200
    form = hidden(await shown(pages, "/queue", None))
    pages.api.clock.advance(13 * 3600)
    assert (await pages.get("/queue", allow_redirects=False))[0] == 303
    over = "The gateway was restarted or the session is over: log in again"
    assert f"{over}." in await shown(pages, "/queue", None)
    status, text = await pages.post("/tiers/order", form | {"verb": "pause"})
    assert (status, f"{over}; nothing was changed." in text, pages.api.board.paused) == (401, True, {})
    text = await pages.log_in()
    assert 'id="role">operator<' in text
    _, text = await pages.post("/logout", hidden(text))
    assert "<h1>Log in</h1>" in text and over not in text


async def test_session_of_an_earlier_process_is_over(pages: Pages) -> None:
    sent = {"Cookie": f"{pages.site.guard.sessions.cookie}=of-before-the-restart"}
    _, text = await pages.get("/queue", headers=sent)
    assert "The gateway was restarted or the session is over: log in again." in text
    _, text = await pages.get("/queue", headers={"Cookie": "mqrouter_another=of-another-gateway"})
    assert "<h1>Log in</h1>" in text and "log in again" not in text


async def test_wrong_tokens_at_the_login_are_counted(pages: Pages) -> None:
    for _ in range(10):
        assert "this is no token" in await pages.log_in("guess")
    assert "too many wrong tokens" in await pages.log_in()
    pages.api.clock.advance(7)
    assert 'id="role">operator<' in await pages.log_in()


async def test_login_leads_on_to_this_site_only(pages: Pages) -> None:
    assert hidden((await pages.get("/queue?state=any"))[1])["next"] == "/queue?state=any"
    for onward in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\n/evil"):
        _, form = await pages.get("/login")
        fields = hidden(form) | {"token": OPERATOR, "next": onward}
        async with pages.session.post(pages.api.url + "/login", data=fields, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/"), onward


async def test_without_tokens_this_machine_looks_and_is_told_how_to_change(store: Store, tmp_path: Path) -> None:
    async with browsing(store, tmp_path, Moment(), NO_TOKENS) as pages:
        await pages.api.queue("a")
        text = await shown(pages, "/queue", None)
        assert "set http.operator_token on the gateway" in text
        assert 'name="id"' not in text and "<button name=" not in text
        status, _ = await pages.post("/queue/order", hidden(text) | {"verb": "cancel", "all": "1", "step": "do"})
        assert status == 403
        assert store.counts["pending"] == 1


async def test_viewer_changes_nothing_and_reads_no_texts(pages: Pages) -> None:
    (name,) = await pages.api.queue("a")
    text = await pages.log_in(VIEWER)
    assert 'id="role">viewer<' in text
    for path in ("/queue", f"/queue/{name}", "/tiers"):
        text = await shown(pages, path, None)
        assert "<button name=" not in text and "log in with the operator&#39;s token" in text, path
        assert "what says" not in text
        assert 'name="text"' not in text
    assert (await pages.get(f"/queue/{name}?text=1"))[0] == 403
    assert (await pages.get("/queue?text=what"))[0] == 403
    for path, fields in (("/queue/order", {"verb": "cancel", "id": name, "step": "do"}), ("/tiers/order", {})):
        assert (await pages.post(path, hidden(text) | fields))[0] == 403
    assert pages.api.store.counts["pending"] == 1


async def test_every_page_that_changes_something_needs_operator_and_form_token(pages: Pages) -> None:
    (name,) = await pages.api.queue("a")
    changing = [route for route in pages.site.routes if route.method != "GET"]
    assert {(route.path, route.role) for route in changing} == {
        ("/queue/order", Role.OPERATOR),
        ("/queue/{id}/verdict", Role.OPERATOR),
        ("/tiers/order", Role.OPERATOR),
        ("/explain", Role.VIEWER),
        ("/login", Role.NOBODY),
        ("/logout", Role.NOBODY),
    }
    await pages.log_in()
    right = hidden(await shown(pages, "/queue", None))["csrf"]
    for route in changing:
        path = route.path.replace("{id}", name)
        for token in ("", "0" * 32, right[:-1]):
            fields = {"csrf": token, "verb": "cancel", "id": name, "step": "do", "question": "x", "token": OPERATOR}
            status, text = await pages.post(path, fields)
            assert (status, "this form is out of date" in text.lower()) == (403, True), route.path
        fields = {"csrf": right, "verb": "cancel", "id": name, "step": "do"}
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            status, text = await pages.post(path, fields, headers=headers)
            assert (status, "another site" in text.lower()) == (403, True), route.path
        for kind in ("application/json", *(f"application/x-www-form-urlencoded; charset={name}" for name in CHARSETS)):
            status, _ = await pages.post(path, json.dumps(fields), headers={"Content-Type": kind})
            assert status == 415, kind
    assert pages.api.store.counts["pending"] == 1


async def test_form_token_of_one_session_is_not_that_of_another(pages: Pages) -> None:
    await pages.log_in()
    mine = hidden(await shown(pages, "/queue", None))["csrf"]
    pages.session.cookie_jar.clear()
    await pages.log_in()
    assert hidden(await shown(pages, "/queue", None))["csrf"] != mine
    assert (await pages.post("/tiers/order", {"csrf": mine, "verb": "pause"}))[0] == 403


async def test_page_through_the_forwarded_socket_needs_no_token_and_no_other_site_gets_in(pages: Pages) -> None:
    local = pages.api.local
    async with local.get("/tiers", headers={"Host": "localhost:8087"}) as response:
        text = await response.text()
        assert (response.status, "Pause all tiers" in text) == (200, True)
    fields = {"csrf": hidden(text)["csrf"], "verb": "pause"}
    for headers in (
        {"Host": "evil.example"},
        {"Host": "localhost:8087", "Origin": "https://evil.example"},
        {"Host": "localhost:8087", "Sec-Fetch-Site": "cross-site"},
    ):
        async with local.post("/tiers/order", data=fields, headers=headers) as response:
            assert response.status in (403, 421)
    assert not pages.api.board.paused
    async with local.get("/v1/requests", headers={"Host": "evil.example:8087"}) as response:
        assert response.status == 421
    async with local.post("/v1/pause", headers={"Host": "localhost", "Origin": "https://evil.example"}) as response:
        assert response.status == 403
    headers = {"Host": "localhost:8087", "Origin": "http://localhost:8087"}
    async with local.post("/tiers/order", data=fields, headers=headers, allow_redirects=False) as response:
        assert response.status == 303
    assert set(pages.api.board.paused) == {"hub", "edge"}


# --- requests ---------------------------------------------------------------------------------------


async def devices(pages: Pages, query: str) -> list[str]:
    text = await shown(pages, f"/queue?{query}", OPERATOR)
    return re.findall(r"<td>(d\w*)</td>", text)


async def test_filters_narrow_and_an_empty_field_means_any(pages: Pages) -> None:
    await pages.api.queue("da", "db")
    await pages.api.queue("dc", tiers=("edge",), route="talk")
    await pages.api.fails(1, "HTTP 503 Busy")
    assert await devices(pages, "") == ["dc", "db", "da"]
    empty = "route=&tier=&device=&priority=&older_than_s=&newer_than_s=&error=&text="
    assert await devices(pages, f"state=&{empty}&sort=oldest") == ["da", "db", "dc"]
    assert await devices(pages, "route=talk") == ["dc"]
    assert await devices(pages, "tier=hub") == ["db", "da"]
    assert await devices(pages, "error=http+503") == ["da"]
    assert await devices(pages, "text=SAYS+db") == ["db"]
    assert await devices(pages, "state=delivered") == []
    assert await devices(pages, "state=any&older_than_s=300") == []


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("state=nonsense", "&#39;nonsense&#39; is no state: the states are received, pending, leased,"),
        ("state=pending&state=x", "&#39;x&#39; is no state: the states are"),
        ("sort=age", "&#39;age&#39; is no sort: requests are sorted by newest, oldest,"),
        ("priority=12", "&#39;12&#39; is no priority: priorities go from 0 to 9"),
        ("older_than_s=long", "&#39;long&#39; is no age: give it in seconds"),
        ("limit=0", "&#39;0&#39; is no number of requests: a page shows 1 to 500"),
        ("after=x", "&#39;x&#39; is no place to go on: go on from the first page"),
        (f"device={'x' * 501}", "is no device: give a text of at most 500 characters"),
        ("route=a&route=b", "Route is given more than once"),
    ],
)
async def test_filter_that_cannot_be_is_told_in_plain_words(pages: Pages, query: str, told: str) -> None:
    status, text = await pages.get(f"/queue?{query}", token=VIEWER)
    assert (status, told in text, "nput should" in text) == (400, True, False), text
    assert 'role="alert"' in text and 'href="/queue">To the queue' in text


async def test_pages_of_requests_follow_one_another(pages: Pages) -> None:
    await pages.api.queue(*(f"d{number}" for number in range(7)))
    path: str | None = "/queue?limit=3&state=any"
    found: list[str] = []
    while path is not None:
        text = await shown(pages, path)
        found += re.findall(r"<td>(d\d)</td>", text)
        more = re.search(r'href="([^"]+)" rel="next"', text)
        path = None if more is None else more[1].replace("&amp;", "&")
    assert found == [f"d{number}" for number in range(6, -1, -1)]


async def test_export_is_of_what_the_page_lists(pages: Pages) -> None:
    await pages.api.queue("barn", "trough")
    await pages.log_in()
    _, page = await pages.get("/queue?device=trough")
    found = re.search(r'<a href="(/queue/export[^"]*)"', page)
    assert found is not None
    status, lines = await pages.get(unescape(found[1]))
    assert (status, [json.loads(line)["payload"] for line in lines.splitlines()]) == (
        200,
        ['{"question": "what says trough?"}'],
    )
    await pages.log_in(VIEWER)
    assert "/queue/export" not in (await pages.get("/queue"))[1]
    assert (await pages.get("/queue/export"))[0] == 403


async def test_item_masks_the_question_until_an_operator_asks(pages: Pages) -> None:
    (name,) = await pages.api.queue("a")
    await pages.api.fails(1, "HTTP 503")
    text = await shown(pages, f"/queue/{name}", OPERATOR)
    assert "what says" not in text and "The question has 28 characters" in text
    assert "hub: HTTP 503" in text and "mqrouter/farm/ask/a" in text
    assert "what says a?" in await shown(pages, f"/queue/{name}?text=1", OPERATOR)


async def test_what_is_not_there_is_said_on_a_page(pages: Pages) -> None:
    await pages.log_in()
    for path in ("/queue/nobody", "/nothing", "/static/app.000000000000.css"):
        status, text = await pages.get(path)
        assert (status, 'role="alert"' in text, "<nav" in text) == (404, True, True), path
    status, text = await pages.post("/queue", {})
    assert (status, 'role="alert"' in text) == (405, True)
    status, body = await pages.api.ask("GET", "/v1/nothing")
    assert (status, body["error"]["code"]) == (404, "not_found")


async def test_database_that_cannot_be_read_is_said_on_a_page(pages: Pages, tmp_path: Path) -> None:
    await pages.log_in()
    (tmp_path / "mqrouter.db").rename(tmp_path / "elsewhere.db")
    status, text = await pages.get("/queue")
    assert (status, "database cannot do this now" in text) == (503, True)


# --- verbs ------------------------------------------------------------------------------------------


async def ordered(pages: Pages, path: str, fields: dict[str, str]) -> str:
    """Returns the page after a form with these fields was sent from that page."""
    given = hidden(await shown(pages, path, None))
    status, text = await pages.post("/queue/order", given | fields)
    assert status == 200, text
    return text


def note_of(text: str) -> str:
    found = re.search(r'id="note">([^<]+)<', text)
    assert found is not None, text
    return found[1]


@pytest.mark.parametrize(
    ("verb", "more", "changed"),
    [
        ("retry", {}, {"attempts": 0, "next_attempt_in_s": None}),
        ("cancel", {"message": "harvest is over"}, {"state": "cancelled"}),
        ("move", {"tier": "edge"}, {"waiting_for": "edge"}),
        ("priority", {"priority": "9"}, {"priority": 9}),
        ("ttl", {"ttl_min": "2"}, {"expires_in_s": 120.0}),
    ],
)
async def test_verb_is_shown_first_and_then_done(
    pages: Pages, verb: str, more: dict[str, str], changed: dict[str, object]
) -> None:
    await pages.log_in()
    first, other = await pages.api.queue("a", "b")
    await pages.api.fails(1, "HTTP 503")
    before = (await pages.api.ask("GET", f"/v1/requests/{first}"))[1]
    text = await ordered(pages, "/queue?device=a", {"verb": verb, "all": "1"})
    assert "Nothing has changed yet" in text and 'id="changed">1<' in text
    assert (await pages.api.ask("GET", f"/v1/requests/{first}"))[1] == before
    _, text = await pages.post("/queue/order", hidden(text) | {"verb": verb, "step": "do"} | more)
    assert "1 of 1 requests changed" in note_of(text)
    after = (await pages.api.ask("GET", f"/v1/requests/{first}"))[1]
    assert {name: after[name] for name in changed} == changed
    assert (await pages.api.ask("GET", f"/v1/requests/{other}"))[1]["state"] == "pending"
    assert verb in await shown(pages, "/actions", None)


async def test_all_that_match_are_changed_however_many(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.flow.desk.MAX_ORDERED", 2)
    await pages.log_in()
    await pages.api.queue("a", "b", "c", "d", "e")
    await pages.api.queue("x", route="talk")
    text = await ordered(pages, "/queue?route=frost", {"verb": "cancel", "all": "1"})
    assert "there are more of them" in text
    _, text = await pages.post("/queue/order", hidden(text) | {"step": "do"})
    assert "5 of 5 requests changed" in note_of(text)
    assert pages.api.store.counts["pending"] == 1


async def test_order_that_takes_long_goes_on_where_it_stopped(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.flow.desk.MAX_ORDERED", 2)
    monkeypatch.setattr("mqrouter.edge.web.pages.ordering.AT_ONCE_S", -1.0)
    await pages.log_in()
    ids = await pages.api.queue("a", "b", "c")
    text = await ordered(pages, "/queue", {"verb": "priority", "all": "1"})
    _, text = await pages.post("/queue/order", hidden(text) | {"step": "do", "priority": "7"})
    assert "There are more of them: order it again to go on" in text and 'id="matched">1<' in text
    _, text = await pages.post("/queue/order", hidden(text) | {"step": "do", "priority": "7"})
    assert "1 of 1 requests changed" in note_of(text)
    assert [(await pages.api.ask("GET", f"/v1/requests/{name}"))[1]["priority"] for name in ids] == [7, 7, 7]


async def test_request_is_found_by_its_id(pages: Pages) -> None:
    (name,) = await pages.api.queue("a")
    assert f"<h1>Request {name}</h1>" in await shown(pages, f"/queue?state=&request=+{name}+&route=")
    assert (await pages.get("/queue?request=no%2Fbody", token=VIEWER))[0] == 404


@pytest.mark.parametrize("sort", ["priority", "expiry", "attempts"])
@pytest.mark.parametrize("state", ["", "any", "delivered", "dropped"])
async def test_every_order_goes_with_every_state(pages: Pages, sort: str, state: str) -> None:
    await pages.api.queue("a")
    assert "<h1>Queue</h1>" in await shown(pages, f"/queue?sort={sort}&state={state}&limit=1")


async def test_nothing_selected_and_values_out_of_range_are_said(pages: Pages) -> None:
    await pages.log_in()
    (name,) = await pages.api.queue("a")
    assert "Nothing was selected" in note_of(await ordered(pages, "/queue", {"verb": "cancel"}))
    given = hidden(await shown(pages, "/queue", None)) | {"id": name, "step": "do"}
    for fields, expected in (
        ({"verb": "dance"}, 400),
        ({"verb": "priority", "priority": "10"}, 400),
        ({"verb": "priority", "priority": "x"}, 400),
        ({"verb": "ttl", "ttl_min": "0"}, 400),
        ({"verb": "ttl", "ttl_min": "nan"}, 400),
        ({"verb": "move", "tier": "moon"}, 404),
    ):
        status, text = await pages.post("/queue/order", given | fields)
        assert (status, 'role="alert"' in text) == (expected, True), fields
    assert pages.api.store.counts["pending"] == 1
    offered = re.findall(r'name="verb" value="(\w+)"', await shown(pages, "/queue", None))
    assert offered == [verb.value for verb in Verb]


async def test_tiers_are_paused_and_resumed(pages: Pages) -> None:
    await pages.log_in()
    given = {"csrf": hidden(await shown(pages, "/tiers", None))["csrf"], "back": "/tiers"}
    _, text = await pages.post("/tiers/order", given | {"verb": "pause", "tier": "hub"})
    assert note_of(text) == "Paused: hub." and "Resume hub" in text and "Pause edge" in text
    assert set(pages.api.board.paused) == {"hub"}
    _, text = await pages.post("/tiers/order", given | {"verb": "resume"})
    assert note_of(text) == "Resumed: hub, edge." and not pages.api.board.paused
    assert (await pages.post("/tiers/order", given | {"verb": "pause", "tier": "moon"}))[0] == 404
    assert (await pages.post("/tiers/order", given | {"verb": "dance"}))[0] == 400


async def test_routes_are_paused_and_all_are_resumed_together(pages: Pages) -> None:
    await pages.log_in()
    await pages.api.queue("a")
    given = {"csrf": hidden(await shown(pages, "/tiers", None))["csrf"], "back": "/tiers"}
    _, text = await pages.post("/tiers/order", given | {"verb": "pause", "route": "frost"})
    assert note_of(text) == "Paused: frost." and "Resume frost" in text and "Pause talk" in text
    assert set(pages.api.store.paused_routes) == {"frost"} and not pages.api.board.paused
    assert "Paused routes" in await shown(pages, "/", None)
    assert "route frost is paused" in await shown(pages, "/queue", None)
    await pages.post("/tiers/order", given | {"verb": "pause", "tier": "hub"})
    _, text = await pages.post("/tiers/order", given | {"verb": "resume"})
    assert note_of(text) == "Resumed: hub, edge, frost."
    assert not pages.api.board.paused and not pages.api.store.paused_routes
    assert (await pages.post("/tiers/order", given | {"verb": "pause", "route": "moon"}))[0] == 404


async def test_dropped_requests_are_brought_back(pages: Pages) -> None:
    await pages.log_in()
    first, _ = await pages.api.queue("a", "b")
    text = await ordered(pages, "/queue", {"verb": "drop", "all": "1"})
    assert 'id="changed">2<' in text
    _, text = await pages.post("/queue/order", hidden(text) | {"step": "do"})
    assert "Choose the state dropped to bring them back" in note_of(text) and "No such request" in text
    assert "can be brought back for" in await shown(pages, f"/queue/{first}", None)
    assert "2 dropped" in await shown(pages, "/", None)
    note = note_of(await ordered(pages, f"/queue/{first}", {"verb": "undo"}))
    assert "1 of 1 requests changed" in note
    text = await ordered(pages, "/queue", {"verb": "undo", "all": "1"})  # what is dropped is meant, whatever is listed
    assert 'id="matched">1<' in text
    await pages.post("/queue/order", hidden(text) | {"step": "do"})
    assert pages.api.store.counts["pending"] == 2


async def judged(pages: Pages, name: str, **given: str) -> tuple[int, str]:
    form = hidden(await shown(pages, f"/queue/{name}", None))
    return await pages.post(f"/queue/{name}/verdict", form | given)


async def test_answer_is_judged_on_its_page(pages: Pages) -> None:
    await pages.log_in()
    (name,) = await pages.api.queue("a")
    (row,) = await pages.api.store.claim("hub", ["hub>edge"], 1, START_MS)
    text = await shown(pages, f"/queue/{name}", None)
    assert '<option value="good" disabled>' in text and "It is leased: there is no answer to judge yet." in text
    assert '<option value="wrong_route">wrong route</option>' in text and "<option>talk</option>" in text
    assert "<option>frost</option>" not in text, "the route it took is offered as the right one"
    status, text = await judged(pages, name, verdict="good", route="", note="")
    assert (status, "there is no answer to judge yet" in note_of(text), "by operator" in text) == (200, True, False)
    await pages.api.store.finish(row, Answer("no frost"), State.ANSWERED, START_MS, lease=row.lease)
    text = await shown(pages, f"/queue/{name}", None)
    assert '<option value="good">' in text and "no answer to judge" not in text
    status, text = await judged(pages, name, verdict="good", route="", note=" it froze not ")
    assert (status, note_of(text)) == (200, "Verdict: good.")
    assert "Verdict: good, by operator: it froze not" in text
    assert f"{name} good" in await shown(pages, "/actions", None)


async def test_wrong_route_is_told_with_the_right_one(pages: Pages) -> None:
    await pages.log_in()
    (name,) = await pages.api.queue("a")
    _, text = await judged(pages, name, verdict="wrong_route", route="talk", note="")
    assert note_of(text) == "Verdict: wrong route, right is talk." and "right is talk, by operator" in text
    for given, told in (
        ({"verdict": "wrong_route", "route": ""}, "Without the right one nothing is learnt from it"),
        ({"verdict": "wrong_route", "route": "moon"}, "there is no route"),
        ({"verdict": "bad", "route": "talk"}, "No verdict was taken: a route goes with"),
        ({"verdict": "dance"}, "No verdict was taken: the verdict must be one of"),
        ({}, "No verdict was taken: the verdict must be one of"),
    ):
        status, text = await judged(pages, name, **given)
        assert (status, told in note_of(text)) == (200, True), note_of(text)
    form = hidden(await shown(pages, f"/queue/{name}", None))
    assert (await pages.post("/queue/nobody/verdict", form | {"verdict": "wrong_route"}))[0] == 404
    pages.session.cookie_jar.clear()
    assert (await pages.post(f"/queue/{name}/verdict", form | {"verdict": "bad"}, token=VIEWER))[0] == 403


async def test_no_link_can_say_what_was_done(pages: Pages) -> None:
    assert 'id="note"' not in await shown(pages, "/queue?note=All+requests+were+cancelled")


async def test_question_is_explained(pages: Pages) -> None:
    given = hidden(await shown(pages, "/explain"))
    status, text = await pages.post("/explain", given | {"question": "frost?"}, token=VIEWER)
    assert (status, 'id="found"' in text, ">frost?</textarea>" in text) == (200, True, True)
    for fields in ({"question": " "}, {"question": "x" * 16_001}, {"question": "x", "strategy": "moon"}):
        status, text = await pages.post("/explain", given | fields, token=VIEWER)
        assert (status, 'role="alert"' in text) == (400, True)


# --- live -------------------------------------------------------------------------------------------


async def test_stream_tells_what_changed_and_ends_with_the_server(store: Store, tmp_path: Path) -> None:
    async with browsing(store, tmp_path, Moment()) as pages, asyncio.timeout(20):
        headers = {"Authorization": f"Bearer {VIEWER}"}
        response = await pages.session.get(pages.api.url + "/events", headers=headers)
        assert response.content_type == "text/event-stream"

        async def told() -> dict[str, object]:
            while not (line := await response.content.readline()).startswith(b"data: "):
                assert line, "the stream ended"
            found: dict[str, object] = json.loads(line[6:])
            return found

        assert (await told())["requests"] == {"received": 0, "pending": 0, "leased": 0, "dropped": 0}
        await pages.api.queue("a")
        while (await told())["requests"] != {"received": 0, "pending": 1, "leased": 0, "dropped": 0}:
            pass
        await pages.api.server.__aexit__()
        while await response.content.readline():
            pass


@pytest.mark.parametrize("end", ["logout", "silence", "another login"])
async def test_stream_ends_with_its_session_and_no_other_does(pages: Pages, end: str) -> None:
    other = await pages.session.get(pages.api.url + "/events", headers={"Authorization": f"Bearer {VIEWER}"})
    text = await pages.log_in()
    cookie = "; ".join(f"{one.key}={one.value}" for one in pages.session.cookie_jar)
    response = await pages.session.get(pages.api.url + "/events", headers={"Cookie": cookie})
    async with asyncio.timeout(20):
        while not (await response.content.readline()).startswith(b"data: "):
            pass
        assert pages.site.streams == 2
        match end:
            case "logout":
                await pages.post("/logout", hidden(text))
            case "silence":
                pages.api.clock.advance(13 * 3600)
            case "another login":
                await pages.log_in(VIEWER)
        await pages.api.queue("a")
        while line := await response.content.readline():
            assert b'"pending": 1' not in line, "who logged out is told"
        assert (response.status, pages.site.streams) == (200, 1)
        while b'"pending": 1' not in await other.content.readline():
            pass
    other.close()


async def test_stream_begins_with_what_is_true_as_it_opens(pages: Pages) -> None:
    await pages.api.ask("GET", "/live", token=VIEWER)  # taken, and kept for a while
    await pages.api.queue("a")
    async with (
        asyncio.timeout(20),
        pages.session.get(pages.api.url + "/events", headers={"Authorization": f"Bearer {VIEWER}"}) as response,
    ):
        while not (line := await response.content.readline()).startswith(b"data: "):
            assert line, "the stream ended"
    assert json.loads(line[6:])["requests"]["pending"] == 1


async def test_stream_with_nothing_to_tell_is_heard_beating(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.edge.web.pages.live.HEARTBEAT_S", 0.0)
    async with (
        asyncio.timeout(20),
        pages.session.get(pages.api.url + "/events", headers={"Authorization": f"Bearer {VIEWER}"}) as response,
    ):
        while (line := await response.content.readline()) != b"event: beat\n":
            assert line, "the stream ended"
        assert (await response.content.readline()).startswith(b"data: ")  # without data a browser tells no page


async def test_streams_are_few_and_gone_with_their_browsers(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.edge.web.pages.live.MAX_STREAMS", 2)
    headers = {"Authorization": f"Bearer {VIEWER}"}
    url = pages.api.url + "/events"
    first, second = await pages.session.get(url, headers=headers), await pages.session.get(url, headers=headers)
    async with pages.session.get(url, headers=headers) as third:
        assert third.status == 503
    assert (await pages.api.ask("GET", "/live", token=VIEWER))[1]["requests"]["pending"] == 0
    first.close()
    second.close()
    async with asyncio.timeout(20):
        while (again := await pages.session.get(url, headers=headers)).status == 503:
            again.close()
    again.close()


@pytest.mark.parametrize("path", ["/events", "/", "/queue"])
async def test_browser_that_is_gone_before_its_answer_is_no_fault(pages: Pages, path: str) -> None:
    with capture_logs() as logs:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", pages.api.server.port)
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VIEWER}\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            writer.transport.abort()
        async with asyncio.timeout(20):
            while pages.site.streams:
                await shown(pages, "/tiers")
        assert await shown(pages, "/tiers")
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


# --- reading ----------------------------------------------------------------------------------------


async def test_pages_read_by_index_only(pages: Pages, database: FlakyDatabase, tmp_path: Path) -> None:
    from test_query_plans import BOUNDED, Statements, reads_too_much

    from mqrouter.core.steering import Selection
    from mqrouter.core.timeline import Now
    from mqrouter.edge.store.decisions import page_of_decisions
    from mqrouter.edge.store.reading import list_actions, open_read_only

    await pages.api.queue("a")
    statements = Statements()
    with open_read_only(tmp_path / "mqrouter.db") as db:
        db.set_trace_callback(statements.seen.add)
        for wanted in (Selection(), Selection(route="frost"), Selection(device="a"), Selection(route="r", device="a")):
            page_of_decisions(db, wanted, limit=5, now=Now(START_MS), after=None)
        list_actions(db, 5, Now(START_MS))
        plans = statements.plans(db)
    assert len(plans) > 4
    found = [f"{statement}: {plan}" for statement, plan in plans.items() if reads_too_much(plan)]
    assert [text for text in found if not any(part in text for part in (*BOUNDED, "FROM actions", "json_each"))] == []
