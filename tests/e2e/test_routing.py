"""Who decides, and what a session changes, as a device and an operator see it."""

from __future__ import annotations

import json

import pytest
from harness import Requester, Site

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"
CONFIG = """
[[listeners]]
filter = "shed/+/question"
device_level = 1
answer = "shed/{device}/answer"
strategy = "token"
"""
FROST, REPLY = "will there be frost tonight?", "yes, the second one"


def ask(device: Requester, name: str, question: str, **more: object) -> dict[str, object]:
    payload = json.dumps({"question": question, "id": name, **more})
    device.publish(f"{ASK}/probe/{name}", payload)
    answer: dict[str, object] = device.answer_on(f"{ANSWER}/probe/{name}").json
    return answer


def test_question_that_means_nothing_alone_takes_its_sessions_route(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")

        routes = [
            ask(device, "s1", FROST, session="a")["route"],
            ask(device, "s2", REPLY, session="a")["route"],
            ask(device, "s3", REPLY)["route"],
        ]

    assert routes == ["frost", "frost", None]
    first = site.gateway.wait_for_request(client_id="s1")["id"]
    shown = site.gateway.cli("queue", "show", "s2").stdout
    assert "because session" in shown
    assert f"keeps the route of request {first}" in shown


def test_strategy_is_chosen_by_listener_and_by_question(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("shed/+/answer/#", "shed/+/answer", f"{ANSWER}/probe/#")

        device.publish("shed/one/question", json.dumps({"question": FROST, "id": "l1"}))
        ask(device, "l2", FROST, strategy="knn")
        device.answer_on("shed/one/answer")

    found = [json.loads(site.gateway.cli("queue", "show", "--json", name).stdout) for name in ("l1", "l2")]
    assert [row["decision"]["strategy"] for row in found] == ["token", "knn"]


def test_unknown_strategy_is_refused_naming_the_known_ones(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")

        error = ask(device, "u1", FROST, strategy="dice")["error"]

    assert isinstance(error, dict)
    assert error["code"] == "bad_request"
    assert "known: cascade, heuristic, hybrid, knn" in error["message"]


def test_explanation_shows_the_running_daemons_tiers(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "h1", FROST)

    found = json.loads(site.gateway.cli("route", "explain", "--json", FROST).stdout)
    assert found["unknown"] is None
    assert found["tier_signals"]["hub"]["is_up"] is True
    assert found["tier_signals"]["hub"]["latency_ms"] > 0
    assert "health:   hub up" in site.gateway.cli("route", "explain", FROST).stdout
