"""From an answer to a verdict to a head, and past questions under another configuration, as a user does it."""

import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import Site, poll, running_site

from mqrouter.cli.daemon import call_daemon

pytest_plugins = ["site_fixtures"]

ASK, ANSWER, FEEDBACK = "mqrouter/farm/ask", "mqrouter/farm/answer", "mqrouter/farm/feedback"


def verdicts(site: Site, name: str) -> list[tuple[Any, ...]]:
    def found() -> list[tuple[Any, ...]] | None:
        with sqlite3.connect(f"file:{site.gateway.folder}/data/mqrouter.db?mode=ro", uri=True) as db:
            query = "SELECT source, verdict, right_route FROM feedback JOIN requests ON requests.seq = request"
            return db.execute(f"{query} WHERE client_id = ?", (name,)).fetchall() or None

    return poll(found, lambda: f"a verdict on {name}")


@pytest.mark.real_model
@pytest.mark.parametrize("version", [5, 4])
def test_device_judges_its_answer_and_nobody_elses(site: Site, version: int) -> None:
    name = f"q{version}"
    with site.requester(version).subscribe(f"{ANSWER}/#") as device:
        device.publish(f"{ASK}/d{version}/{name}", "will there be frost tonight?")
        device.answer_on(f"{ANSWER}/d{version}/{name}")
        before = site.gateway.status()["accepted"].get("feedback_refused", 0)
        device.publish(f"{FEEDBACK}/other/{name}", "bad")
        device.publish(f"{FEEDBACK}/d{version}", json.dumps({"id": name, "verdict": "good"}))
        rows = verdicts(site, name)
    assert rows == [("mqtt", "good", None)]
    assert site.gateway.status()["accepted"]["feedback_refused"] == before + 1


@pytest.mark.real_model
def test_device_says_that_the_route_was_wrong_and_then_which_is_right(site: Site) -> None:
    topic = f"{FEEDBACK}/d7/route"
    with site.requester().subscribe(f"{ANSWER}/d7/#") as device:
        device.publish(f"{ASK}/d7/route", "is it going to freeze this night?")
        device.answer_on(f"{ANSWER}/d7/route")
        device.publish(topic, "wrong_route")
        assert verdicts(site, "route") == [("mqtt", "wrong_route", None)]
        said = site.gateway.wait_for_event("feedback.recorded", device="d7")
        assert (said["verdict"], said["names_no_route"]) == ("wrong_route", True)
        refused = site.gateway.status()["accepted"].get("feedback_refused", 0)
        device.publish(topic, '{"verdict": "wrong_route", "route": "moon"}')
        device.publish(topic, '{"verdict": "wrong_route", "route": "urgent"}')
        site.gateway.wait_for_event("feedback.recorded", device="d7", names_no_route=False)
        assert verdicts(site, "route") == [("mqtt", "wrong_route", "urgent")]
        assert site.gateway.status()["accepted"]["feedback_refused"] == refused + 1
        assert len(device.messages) == 1, "the answer alone: a verdict is not answered"


@pytest.mark.real_model
def test_only_answers_are_judged(site: Site) -> None:
    cli = site.gateway.cli
    cli("queue", "pause")
    with site.requester() as device:
        device.publish(f"{ASK}/d8/none", "will it freeze this night?")
        site.gateway.wait_for_request(client_id="none", state="pending")
    early = cli("feedback", "none", "good")
    assert (early.returncode, "no answer to judge yet" in early.stderr) == (1, True), early
    cli("queue", "cancel", "none")
    cli("queue", "resume")
    late = cli("feedback", "none", "bad")
    assert (late.returncode, "ended without an answer, cancelled" in late.stderr) == (1, True), late
    assert cli("feedback", "none", "wrong_route", "--route", "urgent").returncode == 0
    assert verdicts(site, "none") == [("operator", "wrong_route", "urgent")]


@pytest.mark.real_model
def test_operator_judges_and_past_questions_are_replayed(site: Site) -> None:
    with site.requester().subscribe(f"{ANSWER}/#") as device:
        device.publish(f"{ASK}/d9/op", "will it freeze this night?")
        device.answer_on(f"{ANSWER}/d9/op")
    result = site.gateway.cli("feedback", "op", "wrong_route", "--route", "urgent", "--note", "a test")
    assert (result.returncode, "urgent is right" in result.stdout) == (0, True), result.stderr
    assert verdicts(site, "op") == [("operator", "wrong_route", "urgent")]
    assert site.gateway.cli("feedback", "nothing", "good").returncode == 3
    assert site.gateway.cli("feedback", "op", "wrong_route", "--route", "moon").returncode == 1

    learnt = site.gateway.cli("feedback", "op", "wrong_route")
    assert (learnt.returncode, "name the right one with --route" in learnt.stderr) == (0, True)
    judge = partial(call_daemon, site.gateway.folder / "data" / "control.sock", "POST")
    assert judge("/v1/requests/nobody/feedback", body={"verdict": "good"})[0] == 404
    assert judge("/v1/requests/op/feedback", body={"verdict": "good", "route": "urgent"})[0] == 400
    status, found = judge("/v1/requests/op/feedback", body={"verdict": "wrong_route", "route": "urgent"})
    assert (status, found["route"]) == (200, "urgent")

    same = site.gateway.cli("route", "replay", "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["changed"] == 0
    new = site.gateway.folder / "new.toml"
    new.write_text(site.gateway.config.read_text().replace("threshold = 0.45", "threshold = 1.0"))
    other = site.gateway.cli("route", "replay", "--config", str(new), "--json")
    assert other.returncode == 0, other.stderr
    found = json.loads(other.stdout)
    assert {k: found["route_changes"][0][k] for k in ("from", "to")} == {"from": "frost", "to": None}
    assert "freeze" not in other.stdout
    assert site.gateway.cli("route", "replay", "--since", "0s").returncode == 3


@pytest.mark.real_model
def test_gateway_learns_by_itself_and_goes_on_deciding(tmp_path: Path) -> None:
    text = '[routing.auto_tune]\nenabled = true\nevery_s = 1.0\nmin_feedback = 1\n[log]\nlevel = "info"'
    with running_site(tmp_path, text=text) as site, site.requester().subscribe(f"{ANSWER}/#") as device:
        head = site.gateway.folder / "data" / "head.npz"
        device.publish(f"{ASK}/d1/q", "will it freeze in the orchard tonight?")
        device.answer_on(f"{ANSWER}/d1/q")
        device.publish(f"{FEEDBACK}/d1/q", "good")
        site.gateway.wait_for_event("auto_tune.started", timeout_s=30.0)
        replaced = site.gateway.wait_for_event("auto_tune.head_replaced", timeout_s=60.0)
        assert replaced["examples"] == 6 and head.exists()
        kept = site.gateway.wait_for_event("auto_tune.head_kept", timeout_s=60.0)  # the next run
        assert kept["why"] == "nothing new to learn from"
        device.publish(f"{ASK}/d1/after", "stop the irrigation pump right now")
        device.answer_on(f"{ANSWER}/d1/after")
        assert "auto_tune" in site.gateway.cli("queue", "actions").stdout
