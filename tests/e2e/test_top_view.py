"""`mqrouter top` against a real daemon, by the keyboard alone."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Site, poll, running_site
from textual.app import App
from textual.pilot import Pilot

from mqrouter.cli.top.app import Top
from mqrouter.cli.top.panes import OverviewPane
from mqrouter.cli.top.source import Source
from mqrouter.cli.top.widgets import Table, Text
from mqrouter.settings import Gateway

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

CONFIG = """
[tiers.spare]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "spare"
"""
WAIT_S = 60.0


class View:
    """The view as an operator has it: what stands there, and keys."""

    def __init__(self, app: Top, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    def text(self, name: str) -> str:
        return self.app.screen_stack[0].query_one(name, Text).text

    def overview(self) -> str:
        return self.app.screen_stack[0].query_one(OverviewPane).text

    def rows(self, name: str = "#requests") -> list[tuple[str, ...]]:
        return self.app.screen_stack[0].query_one(name, Table).lines

    def devices(self) -> list[str]:
        return [cells[5] for cells in self.rows()]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def write(self, text: str) -> None:
        await self.press(*(CHARACTERS.get(char, char) for char in text))

    async def until(self, found: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not found():
            assert time.monotonic() < deadline_s, f"{what}: {self.text('#headline')!r} {self.text('#message')!r}"
            await self.pilot.pause(0.01)

    async def asked(self, words: str) -> None:
        """A dialog with these words is there."""
        await self.until(lambda: words in self.dialog(), f"asks {words!r}")

    def dialog(self) -> str:
        from textual.widgets import Static

        if len(self.app.screen_stack) < 2:
            return ""
        return " ".join(str(part.render()) for part in self.app.screen.query(Static))


CHARACTERS = {":": "colon", "-": "minus", " ": "space", ",": "comma"}


@asynccontextmanager
async def viewing(site: Site, *, is_read_only: bool = False, log_file: Path | None = None) -> AsyncIterator[View]:
    gateway = Gateway(data_dir=site.gateway.folder / "data")
    app = Top(Source(gateway, log_file=log_file, is_read_only=is_read_only), 0.1)
    async with app.run_test(size=(120, 40)) as pilot:
        view = View(app, pilot)
        await view.until(lambda: app.looks, "the first look")
        yield view


def hold(site: Site, *devices: str) -> None:
    """A question of each device waits, for its tier is paused."""
    assert site.gateway.cli("queue", "pause").returncode == 0
    with site.requester() as requester:
        for device in devices:
            requester.publish(f"mqrouter/farm/ask/{device}/1-{time.monotonic_ns()}", b"will there be frost tonight?")
    for device in devices:
        site.gateway.wait_for_request(device=device, state="pending")


def row_of(site: Site, device: str) -> dict[str, Any]:
    return next(row for row in site.gateway.requests() if row["device"] == device)


async def test_overview_tells_link_queue_and_tiers(site: Site) -> None:
    hold(site, "overview-1", "overview-2")
    async with viewing(site) as view:
        await view.until(lambda: "2 pending" in view.overview(), "two wait")
        facts = view.overview()
        assert view.text("#headline").startswith("farm: ready, broker connected")
        for words in (
            "connected, MQTT 5",
            "for tiers hub ",
            "by route  frost ",
            "memory    router",
            "hub       paused",
        ):
            assert words in facts, facts
        await view.until(lambda: "most " in view.overview() and "a minute" in view.overview(), "rates")


async def test_queue_is_filtered_and_sorted_by_keys(site: Site) -> None:
    hold(site, "filter-1", "filter-2", "filter-3")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: "filter-1" in view.devices(), "the queue")
        assert "hub is paused by" in view.rows()[0][-1]
        await view.press("s")
        await view.until(
            lambda: view.devices().index("filter-1") < view.devices().index("filter-3"), "the oldest first"
        )
        await view.press("slash")
        await view.write("device:filter-2")
        await view.press("enter")
        await view.until(lambda: view.devices() == ["filter-2"], "one is left")
        await view.press("escape")
        await view.until(lambda: len(view.devices()) >= 3, "all again")
        await view.press("slash")
        await view.write("colour:red")
        await view.press("enter")
        await view.until(lambda: "colour is not known" in view.text("#message"), "what is wrong with it")


async def test_request_is_shown_with_its_decision_its_reason_and_its_history(site: Site) -> None:
    hold(site, "detail")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["detail"], "the newest first")
        await view.press("enter")
        await view.until(lambda: "history:" in view.text("#card"), "the card")
        card = view.text("#card")
        for words in ("waits:    hub is paused", "route:    frost, because", "pending", "characters (--text"):
            assert words in card, card
        assert "frost tonight" not in card.split("near:")[0]
        await view.press("escape")
        assert not view.app.query_one("#detail").display


async def test_marked_requests_are_cancelled_after_a_yes(site: Site) -> None:
    hold(site, "keep", "end-1", "end-2")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:3] == ["end-2", "end-1", "keep"], "the newest first")
        await view.press("space", "space", "c")
        await view.asked("what is its sender told?")
        await view.write("too late")
        await view.press("enter")
        await view.asked("cancel 2 requests")
        await view.press("y")
        await view.until(lambda: "2 are cancelled" in view.text("#message"), "what became of them")
        await view.until(lambda: view.devices()[:1] == ["keep"], "they are gone from the list")
    assert row_of(site, "keep")["state"] == "pending"
    assert row_of(site, "end-1")["reason"] == "cancelled"
    assert "too late" in row_of(site, "end-2")["detail"]


async def test_no_changes_nothing(site: Site) -> None:
    hold(site, "stays")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["stays"], "the newest first")
        await view.press("t")
        await view.asked("retry request")
        await view.press("n")
        await view.until(lambda: len(view.app.screen_stack) == 1, "the dialog is gone")
        assert view.text("#message") == ""
    assert {entry["event"] for entry in card_of(site, "stays")["history"]} == {"received", "pending"}


async def test_priority_tier_and_time_to_live_are_changed(site: Site) -> None:
    hold(site, "steered")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["steered"], "the newest first")
        for key, question, answers, told in (
            ("p", "0 to 9", ("10", "9"), "is given that priority"),
            ("m", "to which tier?", ("nowhere", "spare"), "is moved"),
            ("l", "to expire how long", ("5", "30min"), "is given that time"),
        ):
            await view.press(key)
            await view.asked(question)
            wrong, right = answers
            await view.write(wrong)
            await view.press("enter")
            await view.until(lambda: "Enter: go on" not in view.dialog(), "what is wrong")
            await view.press(*["backspace"] * len(wrong))
            await view.write(right)
            await view.press("enter")
            await view.asked("[y] yes")
            await view.press("y")
            await view.until(lambda told=told: told in view.text("#message"), told)  # type: ignore[misc]
    row = row_of(site, "steered")
    assert (row["priority"], row["waiting_for"]) == (9, "spare")
    assert 1500 < row["expires_in_s"] <= 1800


async def test_tier_is_paused_and_resumed(site: Site) -> None:
    assert site.gateway.cli("queue", "resume").returncode == 0
    async with viewing(site) as view:
        await view.press("3")
        await view.until(lambda: [cells[0] for cells in view.rows("#tier-rows")] == ["hub", "spare"], "the tiers")
        await view.press("p")
        await view.asked("pause tier hub?")
        await view.press("y")
        await view.until(lambda: view.rows("#tier-rows")[0][1] == "paused", "it is paused")
        await view.press("p")
        await view.asked("resume tier hub?")
        await view.press("y")
        await view.until(lambda: view.rows("#tier-rows")[0][1] == "up", "it is up")


async def test_dropped_request_is_brought_back_and_its_route_held(site: Site) -> None:
    hold(site, "back")
    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["back"], "the newest first")
        await view.press("d")
        await view.asked("drop request")
        await view.press("y")
        await view.until(lambda: "is dropped" in view.text("#message"), "it is dropped")
        await view.press("slash")
        await view.write("state:dropped")
        await view.press("enter")
        await view.until(lambda: view.devices() == ["back"], "it can be found")
        await view.press("u")
        await view.asked("undo request")
        await view.press("y")
        await view.until(lambda: "back in the queue" in view.text("#message"), "it is back")
        await view.press("escape")
        await view.until(lambda: view.devices()[:1] == ["back"], "it waits again")
        await view.press("o")
        await view.asked("pause route frost?")
        await view.press("y")
        await view.until(lambda: view.rows()[0][-1].startswith("route frost is paused by"), "why it waits")
        await view.press("3")
        await view.until(lambda: view.rows("#tier-rows")[-1:] and view.rows("#tier-rows")[-1][0] == "route frost", "it")
        await view.press("down", "down", "p")
        await view.asked("resume route frost?")
        await view.press("y")
        await view.until(lambda: len(view.rows("#tier-rows")) == 2, "it goes on")


async def test_log_shows_endings_and_actions_or_the_file(site: Site, tmp_path: Path) -> None:
    hold(site, "ends")
    assert site.gateway.cli("queue", "cancel", "--device", "ends", "--yes").returncode == 0
    async with viewing(site) as view:
        await view.press("4")
        await view.until(lambda: "cancelled  ends" in view.text("#log-lines"), "how it ended")
        assert "device=ends" in view.text("#log-lines")
    file = tmp_path / "mqrouter.log"
    file.write_text(json.dumps({"timestamp": "2026-01-02T03:04:05Z", "level": "info", "event": "a.b"}) + "\n")
    async with viewing(site, log_file=file) as view:
        await view.press("4")
        await view.until(lambda: "a.b" in view.text("#log-lines"), "the file")


async def test_read_only_view_offers_no_key_that_changes_anything(site: Site) -> None:
    hold(site, "untouched")
    async with viewing(site, is_read_only=True) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["untouched"], "the newest first")
        assert "[read-only]" in view.text("#headline")
        offered = {entry.binding.action for entry in view.app.screen.active_bindings.values()}
        assert not any(action.startswith("order(") for action in offered) and "filter" in offered
        await view.press("c", "t", "m", "p", "l")
        await view.press("3", "p")
        await view.until(lambda: view.rows("#tier-rows"), "the tiers")
        assert len(view.app.screen_stack) == 1


async def test_nothing_is_drawn_while_nothing_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(site, "still")
    drawn: list[object] = []
    display = App._display

    def count(app: App[Any], screen: Any, renderable: Any) -> None:
        drawn.append(renderable)
        display(app, screen, renderable)

    async with viewing(site) as view:
        await view.press("2")
        await view.until(lambda: view.devices()[:1] == ["still"], "the newest first")
        monkeypatch.setattr(App, "_display", count)

        async def drawn_in_looks(number: int) -> int:
            drawn.clear()
            until = view.app.looks + number
            await view.until(lambda: view.app.looks >= until, "some looks")
            return len(drawn)

        found = [await drawn_in_looks(5) for _ in range(3)]
        assert min(found) == 0, found  # an age may pass a minute, once
        await view.press("space")
        await view.until(lambda: drawn, "a mark is drawn")


async def test_view_outlives_the_daemon_and_finds_it_again(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        hold(site, "waits")
        async with viewing(site) as view:
            await view.press("2")
            await view.until(lambda: view.devices() == ["waits"], "the queue")
            assert site.gateway.stop() == 0
            await view.until(lambda: "NOT RUNNING" in view.text("#headline"), "that it is down")
            await view.until(lambda: view.rows()[0][-1].startswith("hub is paused"), "what is in its database")
            await view.press("t")
            await view.asked("retry request")
            await view.press("y")
            await view.until(lambda: "nothing can be changed" in view.text("#message"), "that nothing can be done")
            site.gateway.start()
            await view.until(lambda: "farm: ready" in view.text("#headline"), "that it is back")
            await view.until(lambda: "hub is paused" in view.rows()[0][-1], "the queue")


def test_once_prints_the_same_from_the_daemon_and_from_its_database(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        hold(site, "once")
        up = site.gateway.cli("top", "--once")
        assert (up.returncode, up.stderr) == (0, "")
        assert "farm: ready" in up.stdout and "hub is paused" in up.stdout
        body = json.loads(site.gateway.cli("top", "--once", "--json").stdout)
        assert body["running"] and body["queue"][0]["device"] == "once" and body["memory_bytes"] > 10_000_000
        assert body["stats"]["waiting"] == [{"tiers": ["hub"], "requests": 1}]
        site.gateway.stop()
        down = site.gateway.cli("top", "--once")
        assert (down.returncode, "NOT RUNNING" in down.stdout, "once" in down.stdout) == (69, True, True)


def card_of(site: Site, device: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        done = site.gateway.cli("queue", "show", row_of(site, device)["id"], "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    return poll(found, lambda: device)


async def test_view_is_left_while_it_looks(site: Site) -> None:
    for keys in (("q",), ("2", "q"), ("3", "r", "q")):
        async with viewing(site) as view:
            await view.press(*keys)
            await view.until(lambda view=view: not view.app.is_running, "it is left")  # type: ignore[misc]
            assert view.app.return_code == 0
