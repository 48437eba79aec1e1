"""What an operator changes by clicks, as a user makes them: each verb, on one request and on several, and on tiers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Tab
from farm import VIEWER, Farm


@pytest.fixture
def desk(tab: Tab, farm: Farm) -> Iterator[Tab]:
    """A tab of somebody who may change things."""
    farm.log_in(tab)
    yield tab


def select(desk: Tab, device: str, *ids: str) -> None:
    """Finds the requests of a device by the filter and ticks some of them."""
    desk.open("/queue")
    desk.fill("#filter [name=device]", device)
    desk.follow("#filter button")
    for request_id in ids:
        desk.click("#rows input", f"Select {request_id}")


def order(desk: Tab, verb: str) -> None:
    """Presses the verb's button, and the one on the page that shows what would change."""
    desk.follow("#verbs button", verb)
    desk.follow("#do")


def test_filter_shows_what_matches(desk: Tab, farm: Farm) -> None:
    first, second = farm.waiting("filtered", 2)
    desk.open("/queue")
    desk.choose("#filter [name=state]", "pending")
    desk.fill("#filter [name=route]", "frost")
    desk.fill("#filter [name=device]", "filtered")
    desk.choose("#filter [name=sort]", "oldest")
    desk.follow("#filter button")
    assert desk.texts("#rows tbody th") == [first, second] or desk.texts("#rows tbody th") == [second, first]
    desk.fill("#filter [name=text]", "a word that nobody said")
    desk.follow("#filter button")
    assert desk.count("#rows tbody tr") == 0
    assert desk.text("#nothing")
    desk.follow("#filter a", "Clear")
    assert desk.js("document.querySelector('#filter [name=device]').value") == ""


def test_whole_page_is_selected_at_once(desk: Tab, farm: Farm) -> None:
    ids = farm.waiting("ticked", 3)
    select(desk, "ticked")
    desk.click("#select-page")
    desk.follow("#verbs button", "Set priority")
    assert desk.text("#matched") == "3"
    assert sorted(desk.texts("#outcomes tbody th")) == sorted(ids)


def test_nothing_selected_changes_nothing_and_says_so(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("untouched")
    select(desk, "untouched")
    desk.follow("#verbs button", "Cancel")
    assert "Nothing was selected" in desk.text("#note")
    assert farm.row(only)["state"] == "pending"


def test_leaving_the_confirmation_changes_nothing(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("kept")
    select(desk, "kept", only)
    desk.follow("#verbs button", "Cancel")
    assert desk.text("#changed") == "1"
    desk.follow("#back")
    assert desk.path == "/queue"
    assert farm.row(only)["state"] == "pending"


def test_several_are_cancelled_and_their_devices_are_told(desk: Tab, farm: Farm) -> None:
    ids = farm.waiting("cancelled", 3)
    select(desk, "cancelled", *ids[:2])
    desk.follow("#verbs button", "Cancel")
    desk.fill("#message", "the hub is being moved")
    desk.follow("#do")
    assert "2 of 2 requests changed" in desk.text("#note")
    assert sorted(desk.texts("#rows tbody th")) == [ids[2]]
    farm.devices.wait_for(lambda message: "the hub is being moved" in message.text)
    assert farm.row(ids[2])["state"] == "pending"


def test_all_that_match_are_meant_where_that_is_ticked(desk: Tab, farm: Farm) -> None:
    ids = farm.waiting("many", 3)
    select(desk, "many")
    desk.click("#all-matching")
    desk.follow("#verbs button", "Set priority")
    desk.fill("#priority", "7")
    desk.follow("#do")
    assert [farm.row(one)["priority"] for one in ids] == [7, 7, 7]
    assert farm.of("orchard")[0]["priority"] == 0


def test_others_are_moved_to_another_tier(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("moved")
    select(desk, "moved", only)
    desk.follow("#verbs button", "Move to a tier")
    desk.choose("#tier", "regional")
    desk.follow("#do")
    assert "1 of 1 requests changed" in desk.text("#note")
    assert farm.row(only)["waiting_for"] == "regional"


def test_time_to_live_is_set_from_now(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("dated")
    select(desk, "dated", only)
    desk.follow("#verbs button", "Set time to live")
    desk.fill("#ttl", "90")
    desk.follow("#do")
    assert 5_000 < farm.row(only)["expires_in_s"] <= 5_400


def test_form_keeps_the_browser_from_sending_what_is_out_of_range(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("ranged")
    select(desk, "ranged", only)
    desk.follow("#verbs button", "Set priority")
    desk.fill("#priority", "12")
    desk.click("#do")
    assert desk.js("document.querySelector('#priority').validity.rangeOverflow")
    assert farm.row(only)["priority"] == 0


def test_one_request_is_steered_from_its_own_page(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("single")
    select(desk, "single")
    desk.follow("#rows a", only)
    assert desk.path == f"/queue/{only}"
    assert "frost" in desk.text("#decision")
    desk.follow("#show-text")
    assert "will there be frost tonight" in desk.text("#question")
    desk.follow("#hide-text")
    assert not desk.has("#question")
    order(desk, "Cancel")
    assert "cancelled" in desk.text("#state")
    assert desk.js("[...document.querySelectorAll('#verbs button')].every((one) => one.disabled)")


def test_hub_that_is_back_answers_what_is_retried(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("retried")
    farm.site.tier.start()
    try:
        desk.open(f"/queue/{only}")
        desk.follow("#verbs button", "Retry now")
        farm.wait_for("retried", "delivered")
        desk.wait_for_text("#state", "delivered")
    finally:
        farm.site.tier.stop()
    assert farm.row(only)["attempts"] == 1


@pytest.mark.parametrize("has_scripts", [True, False])
def test_answer_is_judged_on_its_page(tab: Tab, farm: Farm, *, has_scripts: bool) -> None:
    if not has_scripts:
        tab.disable_scripts()
    (answered,) = farm.wait_for("barn", "delivered")
    farm.log_in(tab, onward=f"/queue/{answered}")
    assert not tab.js("document.querySelector('#verdict').checkValidity()"), "a verdict that nobody chose can be sent"
    tab.choose("#verdict [name=verdict]", "good")
    tab.fill("#verdict [name=note]", f"scripts: {has_scripts}")
    tab.follow("#judge-it")
    assert tab.text("#note") == "Verdict: good."
    assert f"good, by operator: scripts: {has_scripts}" in tab.text("#verdicts")


def test_wrong_route_is_told_of_what_waits(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("misrouted")
    desk.open(f"/queue/{only}")
    assert desk.js("document.querySelector('#verdict option[value=good]').disabled")
    assert desk.texts("#verdict [name=route] option") == ["not named", "urgent"]
    desk.choose("#verdict [name=verdict]", "wrong_route")
    desk.choose("#verdict [name=route]", "urgent")
    desk.follow("#judge-it")
    assert "right is urgent, by operator" in desk.text("#verdicts")


def test_tier_is_paused_and_resumed(desk: Tab, farm: Farm) -> None:
    desk.open("/tiers")
    desk.follow("#tier-hub button", "Pause hub")
    assert "paused" in desk.text("#tier-hub h2")
    assert farm.site.gateway.status()["tiers"]["hub"]["paused_by"]
    desk.follow("#tier-hub button", "Resume hub")
    assert "paused" not in desk.text("#tier-hub h2")
    desk.follow("#all-tiers button", "Pause all tiers")
    assert all(tier["paused_by"] for tier in farm.site.gateway.status()["tiers"].values())
    desk.follow("#all-tiers button", "Resume all tiers and routes")
    assert not any(tier["paused_by"] for tier in farm.site.gateway.status()["tiers"].values())
    desk.follow("nav a", "Actions")
    assert "pause" in desk.text("main table")


def test_dropped_requests_are_brought_back(desk: Tab, farm: Farm) -> None:
    ids = farm.waiting("dropped", 2)
    select(desk, "dropped", *ids)
    order(desk, "Drop")
    assert "2 of 2 requests changed" in desk.text("#note")
    assert desk.count("#rows tbody tr") == 0
    desk.choose("#filter [name=state]", "dropped")
    desk.follow("#filter button")
    assert sorted(desk.texts("#rows tbody th")) == sorted(ids)
    desk.click("#rows input", f"Select {ids[0]}")
    desk.follow("#verbs button", "Bring back")
    assert farm.row(ids[0])["state"] == "pending"
    assert farm.row(ids[1])["state"] == "dropped"
    desk.open(f"/queue/{ids[1]}")
    desk.follow("#verbs button", "Bring back")
    assert "pending" in desk.text("#state")


def test_route_is_paused_and_its_requests_say_so(desk: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("routed")
    desk.open("/tiers")
    row = "#routes tr:has(a[href='/queue?route=frost'])"
    desk.follow(f"{row} button", "Pause frost")
    assert "paused" in desk.text(row)
    select(desk, "routed")
    assert "paused" in desk.text("#rows tbody tr")
    desk.open("/")
    assert "frost" in desk.text("#paused-routes")
    desk.open("/tiers")
    desk.follow(f"{row} button", "Resume frost")
    assert "paused" not in desk.text(row)
    assert farm.row(only)["state"] == "pending"


def test_question_is_explained_without_being_asked(desk: Tab, farm: Farm) -> None:
    before = len(farm.site.gateway.requests())
    desk.open("/explain")
    desk.fill("#question", "is it going to freeze this night?")
    desk.follow("#explain button")
    assert "frost" in desk.text("#found dl")
    assert "is it going to freeze this night?" in desk.text("#nearest")
    assert len(farm.site.gateway.requests()) == before


def test_viewer_sees_no_verbs_and_no_texts(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab, VIEWER, "/queue")
    assert tab.count("#rows tbody tr") > 0
    assert tab.count("main form button:not(#filter button)") == 0
    assert "operator's token" in tab.text("#why-not")
    request_id = farm.of("orchard")[0]["id"]
    tab.open(f"/queue/{request_id}")
    assert not tab.has("#show-text, #verbs, #verdict")
    tab.open("/tiers")
    assert not tab.has("main button")


def test_viewer_reads_the_metrics_and_no_session_counts_for_the_api(tab: Tab, farm: Farm) -> None:
    tab.open("/metrics")
    assert tab.path == "/login"
    farm.log_in(tab, VIEWER, "/metrics")
    assert "mqrouter_queue_requests{" in tab.text()
    tab.open("/v1/status")
    assert "send a valid token" in tab.text()
    tab.seen.complaints.clear()  # the browser notes the 401


def test_nobody_is_asked_for_a_token_and_a_wrong_one_is_refused(tab: Tab, farm: Farm) -> None:
    tab.open("/queue?device=orchard")
    assert tab.path == "/login"
    tab.fill("#token", "not the token")
    tab.follow("#login-form button")
    assert "no token of this gateway" in tab.text("#problem")
    tab.seen.complaints.clear()  # the browser notes the 401
    tab.fill("#token", VIEWER)
    tab.follow("#login-form button")
    assert tab.url.endswith("/queue?device=orchard")
    tab.follow("#logout button")
    tab.open("/tiers")
    assert tab.path == "/login"
