"""Metrics of a real daemon: what a question adds to them, and that nothing of the question is among them."""

from __future__ import annotations

import re
import socket

import pytest
from harness import Gateway, Site, free_port, poll
from metric_text import Samples, samples_of

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

CONFIG = """
[tiers.hub]
prompt_price_per_million = 1.0
completion_price_per_million = 2.0
"""
ANSWERED = {"outcome": "answered", "route": "frost", "tier": "hub"}
SAFE_LABEL = re.compile(r"^[A-Za-z0-9_.:+-]+$")


def scrape(site: Site) -> Samples:
    result = site.gateway.cli("metrics")
    assert (result.returncode, result.stderr) == (0, "")
    return samples_of(result.stdout)


def answered(site: Site, more: float) -> Samples:
    """The metrics once so many requests are answered and their answers acknowledged."""

    def found() -> Samples | None:
        samples = scrape(site)
        delivered = samples.value("mqrouter_request_seconds_count", tier="hub")
        return samples if delivered >= more else None

    return poll(found, lambda: f"{more} answers")


def test_question_is_counted_at_every_stage(site: Site) -> None:
    before = scrape(site)

    assert site.gateway.cli("ask", "--device", "barn-sensor-17", "will there be frost tonight?").returncode == 0

    after = answered(site, before.value("mqrouter_request_seconds_count", tier="hub") + 1)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("mqrouter_accepted_total", result="new") == 1
    assert grown("mqrouter_requests_total", **ANSWERED) == 1
    assert grown("mqrouter_decisions_total", route="frost", reason="above_threshold") == 1
    assert grown("mqrouter_attempt_seconds_count", tier="hub", outcome="answered") == 1
    assert grown("mqrouter_queue_wait_seconds_count", tier="hub") == 1
    assert grown("mqrouter_route_score_count", route="frost") == 1
    for stage in ("accept", "embed", "decide", "publish"):
        assert grown(f"mqrouter_{stage}_seconds_count") == 1, stage
    assert grown("mqrouter_tier_tokens_total", tier="hub", kind="prompt") == 7
    completion = grown("mqrouter_tier_tokens_total", tier="hub", kind="completion")
    assert grown("mqrouter_tier_cost_total", tier="hub") == pytest.approx((7 + 2 * completion) / 1e6)
    assert after.value("mqrouter_tier_up", tier="hub") == 1
    assert after.value("mqrouter_mqtt_connected") == 1
    assert after.value("mqrouter_loop_lag_seconds_count") > before.value("mqrouter_loop_lag_seconds_count")
    assert after.value("process_resident_memory_bytes") > 10_000_000


def test_waiting_question_shows_in_the_queue_and_its_age(site: Site) -> None:
    site.tier.hold()
    with site.requester() as requester:
        requester.publish("mqrouter/farm/ask/gate/7", b"will there be frost at the gate?")
        site.tier.wait_for_calls("frost at the gate?")

        held = scrape(site)

        assert held.value("mqrouter_queue_requests", state="leased") == 1
        assert held.value("mqrouter_queue_bytes", state="leased") == len(b"will there be frost at the gate?")
        assert held.value("mqrouter_queue_oldest_age_seconds", state="leased") > 0
        assert held.value("mqrouter_tier_in_flight", tier="hub") == 1
        site.tier.release()
        site.gateway.wait_for_request(device="gate", state="answered")
        # Nobody is subscribed: what is undelivered is seen too.
        untaken = scrape(site)
        assert untaken.value("mqrouter_queue_oldest_age_seconds", state="answered") > 0
        assert untaken.value("mqrouter_answers_waiting") == 1
        assert site.gateway.status()["answers"] == {"waiting": 1, "given_up": 0}
        assert "answers   1 wait to be taken, 0 given up" in site.gateway.cli("status").stdout
        requester.subscribe("mqrouter/farm/answer/gate/7")
        poll(lambda: site.gateway.status()["answers"]["waiting"] == 0 or None, lambda: "the answer still waits")


def test_labels_hold_nothing_of_a_question_or_its_sender(site: Site) -> None:
    question = "frost? ask zebra@example.org"
    site.gateway.cli("ask", "--device", "quagga-42", question)
    site.gateway.cli("ask", "--device", "quagga-42", "--route", "nowhere-gnu", "frost?")
    text = site.gateway.cli("metrics").stdout
    shown = [value for _, labels, _ in samples_of(text).rows for value in labels.values()]

    assert all(SAFE_LABEL.match(value) for value in shown)
    assert not any(word in text for word in ("quagga", "zebra", "gnu"))
    assert {labels["route"] for _, labels, _ in samples_of(text).rows if "route" in labels} <= {
        "frost",
        "urgent",
        "_none",
    }


def test_refusal_counts_by_its_code(site: Site) -> None:
    labels = {"outcome": "bad_request", "route": "_none", "tier": "_none"}
    before = scrape(site).value("mqrouter_requests_total", **labels)
    with site.requester() as requester:
        requester.publish("mqrouter/farm/ask/gate/8", b'{"question": ')
        requester.subscribe("mqrouter/farm/answer/gate/8").wait_for_number(1)

    assert scrape(site).value("mqrouter_requests_total", **labels) == before + 1


def test_metrics_without_a_daemon_are_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    idle = Gateway(tmp_path_factory.mktemp("idle"), free_port(), "http://127.0.0.1:1/v1")

    result = idle.cli("metrics")

    assert (result.returncode, result.stdout) == (69, "")
    assert "the daemon is not running" in result.stderr


def test_scrape_at_the_socket_says_its_format(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(site.gateway.folder / "data" / "control.sock"))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        head = client.makefile("rb").read().split(b"\r\n\r\n")[0].lower()

    assert head.startswith(b"http/1.0 200")
    assert b"content-type: text/plain; version=0.0.4; charset=utf-8" in head
