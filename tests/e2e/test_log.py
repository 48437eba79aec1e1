"""The daemon's log: where it goes, how much of it, and what a reload changes."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Site, poll, running_site

pytestmark = pytest.mark.real_model

ASK = "mqrouter/farm/ask"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, text='[log]\nlevel = "info"') as site:
        yield site


def set_log(site: Site, *lines: str, levels: str = "") -> None:
    """The configuration's [log] is this, and the daemon is told so."""
    text = site.gateway.config.read_text(encoding="utf-8").partition("[log]")[0]
    text += "\n".join(["[log]", 'format = "json"', *lines, "[log.levels]", levels, ""])
    site.gateway.config.write_text(text, encoding="utf-8")
    site.gateway.log.send(signal.SIGHUP)


def ask(site: Site, number: int) -> None:
    with site.requester() as device:
        device.subscribe("me/in").publish(
            f"{ASK}/probe/{number}", f"will there be frost, {number}?", reply_to="me/in", correlation=b"%d" % number
        )
        assert device.answer_to(b"%d" % number).error_code is None


def events_in(folder: Path) -> list[dict[str, Any]]:
    """Returns what stands in the log file and in those set aside, the newest last."""
    files = sorted(folder.glob("mq.log.*")) + [path for path in [folder / "mq.log"] if path.exists()]
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def wait_in(folder: Path, event: str, number: int = 1) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]] | None:
        try:
            entries = events_in(folder)
        except FileNotFoundError:  # turned over just now
            return None
        events = [entry for entry in entries if entry["event"] == event]
        return events if len(events) >= number else None

    return poll(found, lambda: f"{event} {number} times in {events_in(folder)}")


def test_level_of_one_component_changes_without_a_restart(site: Site) -> None:
    ask(site, 1)
    assert site.gateway.events("decide.route_chosen") == []

    set_log(site, 'level = "info"', levels='decide = "debug"')
    site.gateway.wait_for_event("daemon.reloaded")
    ask(site, 2)
    site.gateway.wait_for_event("decide.route_chosen")

    before = len(site.gateway.log.lines)
    set_log(site, 'level = "warning"', levels='daemon = "info"')
    site.gateway.wait_for_event("daemon.reloaded", after=before)
    before = len(site.gateway.log.lines)
    ask(site, 3)
    site.tier.stop()
    with site.requester() as device:
        device.publish(f"{ASK}/probe/4", "will there be frost, 4?")
    site.gateway.wait_for_event("tier.breaker_changed", after=before)
    assert {json.loads(line)["level"] for line in site.gateway.log.lines[before:]} == {"warning"}


def test_texts_are_logged_from_the_reload_on_that_says_so(site: Site) -> None:
    ask(site, 1)
    assert site.gateway.events("forward.answered") == []

    set_log(site, 'level = "info"', "include_text = true")
    site.gateway.wait_for_event("daemon.reloaded")
    ask(site, 2)

    assert site.gateway.wait_for_event("forward.answered")["payload"] == "will there be frost, 2?"


def test_log_moves_to_a_file_that_is_turned_over(site: Site) -> None:
    folder = site.gateway.folder
    set_log(site, 'level = "debug"', 'file = "mq.log"', "max_bytes = 300", "keep_files = 100")
    wait_in(folder, "daemon.reloaded")
    lines_on_stderr = len(site.gateway.log.lines)
    for number in (1, 2, 3):
        ask(site, number)
    wait_in(folder, "request.finished", 3)

    assert len(site.gateway.log.lines) == lines_on_stderr
    aside = list(folder.glob("mq.log.*"))
    assert len(aside) >= 3
    assert all(path.stat().st_size <= 300 or path.read_text().count("\n") == 1 for path in aside)
    assert {path.stat().st_mode & 0o777 for path in aside} == {0o640}

    (folder / "mq.log").rename(folder / "mq.log.1")
    ask(site, 4)
    wait_in(folder, "request.finished", 4)


def test_file_that_cannot_be_written_changes_nothing_at_a_reload_and_ends_a_start(site: Site) -> None:
    set_log(site, 'file = "none/mq.log"')
    refused = site.gateway.wait_for_event("daemon.reload_refused")
    assert "log.file" in refused["problems"][0] and "No such file" in refused["problems"][0]
    ask(site, 1)
    site.gateway.wait_for_event("request.finished")
    site.gateway.stop()

    site.gateway.launch()

    assert site.gateway.log.wait() == 78
    assert "log.file" in site.gateway.log.text
