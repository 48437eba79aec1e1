"""Pages follow what changes without being loaded again, and work without scripts, without a mouse, without a stream."""

from __future__ import annotations

from chromium import Tab
from farm import Farm

MARK = "window.isSameDocument"
"""Lost where the page is loaded again."""
OVERHEAR = """
    window.EventSource = class extends EventSource {
        constructor(url) {
            super(url);
            this.addEventListener('message', (event) => { window.told = JSON.parse(event.data); });
        }
    };
"""
HASTY = "const patient = setInterval; window.setInterval = (work, ms) => patient(work, Math.min(ms, 200));"
"""Polls at once what it would ask for every ten seconds."""


def test_overview_follows_over_the_stream(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab)
    tab.js(f"{MARK} = true")
    tab.wait_for("document.getElementById('live-state').textContent === 'live'")
    farm.waiting("streamed", 2)
    tab.wait_for(f"Number(document.getElementById('pending').textContent) === {farm.pending}")
    assert tab.js(MARK)
    assert not any(url.endswith("/live") for url in tab.seen.urls)


def test_queue_shows_what_came_in_meanwhile(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab, onward="/queue?device=appeared")
    tab.js(f"{MARK} = true")
    assert tab.has("#nothing")
    (only,) = farm.waiting("appeared")
    tab.wait_for_text("#rows", only)
    assert tab.js(MARK)


def test_page_somebody_works_in_stays_as_it_is(tab: Tab, farm: Farm) -> None:
    (first,) = farm.waiting("worked")
    tab.before_scripts(OVERHEAR)
    farm.log_in(tab, onward="/queue?device=worked")
    tab.click("#rows input", f"Select {first}")
    farm.ask("worked")
    farm.wait_for("worked", "pending", 2)
    tab.wait_for(f"window.told?.requests.pending === {farm.pending}")
    assert tab.count("#rows tbody tr") == 1
    assert tab.seen.urls.count(f"{farm.url}/queue?device=worked") == 1
    tab.click("#rows input", f"Select {first}")
    tab.js("document.activeElement.blur()")
    tab.wait_for("document.querySelectorAll('#rows tbody tr').length === 2")


def test_polling_takes_over_where_no_stream_gets_through(tab: Tab, farm: Farm) -> None:
    tab.before_scripts(f"delete window.EventSource; {HASTY}")
    farm.log_in(tab)
    tab.js(f"{MARK} = true")
    tab.wait_for_text("#live-state", "asked every 10 s")
    farm.waiting("polled")
    tab.wait_for(f"Number(document.getElementById('pending').textContent) === {farm.pending}")
    assert tab.js(MARK)
    assert not any(url.endswith("/events") for url in tab.seen.urls)


def test_a_proxy_that_refuses_the_stream_is_noticed(tab: Tab, farm: Farm) -> None:
    tab.answer_for_the_server("*/events", 503)
    farm.log_in(tab)
    tab.wait_for_text("#live-state", "asked every 10 s")
    tab.seen.complaints.clear()  # the browser notes the 503


def test_forms_work_without_scripts(tab: Tab, farm: Farm) -> None:
    tab.disable_scripts()
    ids = farm.waiting("scriptless", 2)
    farm.log_in(tab, onward="/queue?device=scriptless")
    assert "loaded again" in tab.text("#live-state")
    assert not tab.js("document.getElementById('select-page').checkVisibility()")
    tab.click("#rows input", f"Select {ids[0]}")
    tab.follow("#verbs button", "Cancel")
    tab.follow("#do")
    assert "1 of 1 requests changed" in tab.text("#note")
    tab.choose_by_hand("#filter [name=state]", "cancelled")
    tab.follow("#filter button")
    assert tab.texts("#rows tbody th") == [ids[0]]
    tab.open("/explain")
    tab.fill("#question", "frost warning")
    tab.follow("#explain button")
    assert "frost" in tab.text("#found")
    tab.follow("#logout button")
    assert tab.path == "/login"


def test_keyboard_alone_filters_and_steers(tab: Tab, farm: Farm) -> None:
    (only,) = farm.waiting("typed")
    farm.log_in(tab, onward="/queue")
    tab.press("Tab")
    assert "Skip" in tab.focused()
    tab.press("Enter")
    tab.tab_to("INPUT device")
    tab.write("typed")
    with tab.loading("Enter in the filter"):
        tab.press("Enter")
    assert tab.texts("#rows tbody th") == [only]
    tab.tab_to(f"INPUT id {only}")
    tab.press(" ")
    tab.tab_to("BUTTON verb Cancel")
    with tab.loading("Enter at the verb"):
        tab.press("Enter")
    tab.tab_to("BUTTON do Cancel")
    with tab.loading("Enter at the confirmation"):
        tab.press("Enter")
    assert farm.row(only)["state"] in ("cancelled", "delivered", "undelivered", "answered")
    assert "1 of 1 requests changed" in tab.text("#note")


def test_focus_is_seen_wherever_it_goes(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab, onward="/queue")
    for _ in range(25):
        tab.press("Tab")
        outline = tab.js("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", tab.focused()


def test_nothing_moves_for_who_wants_that(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab)
    assert tab.js("document.getAnimations().length") == 0
    show_a_change = "document.getElementById('pending').classList.add('changed'), document.getAnimations().length"
    assert tab.js(show_a_change) == 1
    tab.prefer(reduced_motion="reduce")
    assert tab.js("document.getAnimations().length") == 0


def test_colours_follow_the_device(tab: Tab, farm: Farm) -> None:
    farm.log_in(tab)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.js(ground)
    tab.prefer(color_scheme="dark")
    assert tab.js(ground) != light


def test_text_from_devices_is_no_markup(tab: Tab, farm: Farm) -> None:
    (only,) = farm.waiting(
        "<img src=x onerror=alert(1)>", question="<script>document.title='taken'</script>frost tonight"
    )
    farm.log_in(tab, onward="/queue?text=taken")
    assert tab.texts("#rows tbody th") == [only]
    assert "<img src=x" in tab.text("#rows")
    tab.open(f"/queue/{only}?text=1")
    assert "<script>" in tab.text("#question")
    assert "taken" not in tab.js("document.title")
    assert not tab.has("main img, main script")
