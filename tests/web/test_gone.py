"""A gateway that is gone: the page stays, says so where it is seen, and takes it back when the gateway answers."""

from __future__ import annotations

import signal
from pathlib import Path

from chromium import Tab
from farm import OPERATOR, Farm
from test_live import MARK

LATER = "(() => { const now = Date.now; Date.now = () => now() + 60_000; })()"
"""A minute passes in the page."""


def test_silent_gateway_is_said_at_the_top_until_it_answers(tab: Tab, farm: Farm, pictures: Path | None) -> None:
    farm.log_in(tab)
    tab.wait_for_text("#live-state", "live")
    assert tab.text("#gone") == ""
    farm.site.gateway.log.send(signal.SIGSTOP)  # its connections stay open, as those of a machine without power
    try:
        tab.js(LATER)
        tab.wait_for_text("#gone", "has not answered since 20")
        tab.js("scrollTo(0, document.body.scrollHeight)")
        assert tab.js("document.getElementById('gone').getBoundingClientRect().top") == 0
        assert "status" in tab.roles()
        if pictures is not None:
            tab.resize(360, 740)
            tab.screenshot(pictures / "gone-phone.png")
    finally:
        farm.site.gateway.log.send(signal.SIGCONT)
    tab.wait_for("document.getElementById('gone').textContent === ''")
    tab.wait_for_text("#live-state", "live")


def test_gateway_that_ended_is_said_at_once_and_forms_stay(tab: Tab, farm: Farm, pictures: Path | None) -> None:
    (only,) = farm.waiting("unsent")
    farm.log_in(tab, onward="/queue?device=unsent")
    tab.wait_for("document.getElementById('live-state').textContent === 'live'")
    farm.site.gateway.stop()
    try:
        tab.wait_for_text("#gone", "has not answered since 20")
        tab.click("#rows input", f"Select {only}")
        tab.js(f"{MARK} = true")
        tab.click("#verbs button", "Cancel")
        tab.wait_for_text("#gone", "Nothing was sent and nothing was changed")
        assert tab.js(MARK) and tab.js("document.querySelector('#rows input:checked').value") == only
        if pictures is not None:
            tab.screenshot(pictures / "gone-desk.png")
    finally:
        farm.site.gateway.start()
    assert farm.wait_for("unsent", "pending") == [only]  # the new life may be trying the hub just now
    tab.wait_for_text("#why-again", "The gateway was restarted or the session is over: log in again.")
    assert tab.url.endswith("next=%2Fqueue%3Fdevice%3Dunsent")
    if pictures is not None:
        tab.screenshot(pictures / "login-again.png")
    tab.seen.complaints.clear()  # the browser notes every connection that was refused


def test_confirmation_of_a_gateway_that_was_restarted_leads_back_through_the_login(tab: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("halfway")
    farm.log_in(tab, onward="/queue?device=halfway")
    tab.click("#rows input", f"Select {only}")
    tab.follow("#verbs button", "Cancel")
    tab.wait_for("document.getElementById('live-state').textContent === 'live'")
    farm.site.gateway.stop()
    farm.site.gateway.start()
    tab.wait_for_text("#why-again", "log in again")
    tab.seen.complaints.clear()
    tab.fill("#token", OPERATOR)
    tab.follow("#login-form button")
    assert tab.url.endswith("/queue?device=halfway")
    assert tab.texts("#rows tbody th") == [only]
    assert farm.row(only)["state"] == "pending"
