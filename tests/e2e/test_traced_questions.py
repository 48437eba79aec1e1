"""Traces of a real daemon, heard by a collector: one per question, in its sender's trace, over waits and restarts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from collector import Collector, Heard, collecting
from harness import Site, free_port, poll, running_site
from metric_text import samples_of
from paho.mqtt import publish
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

pytestmark = pytest.mark.real_model

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
STAGES = {"accept", "decide", "wait", "attempt", "deliver"}


def config(url: str, more: str = "") -> str:
    return f'[traces]\nenabled = true\nendpoint = "{url}"\n{more}'


@contextmanager
def traced_site(folder: Path, text: str) -> Iterator[Site]:
    """The SDK is a second more to import where the machine is slow."""
    with running_site(folder, text=text, is_started=False) as site:
        site.gateway.launch().wait_for_event("daemon.ready", timeout_s=60.0)
        yield site


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Site]:
    with traced_site(tmp_path_factory.mktemp("site"), config(collector.url)) as site:
        yield site


def ask(site: Site, device: str, question: str, *properties: tuple[str, str]) -> None:
    """Publishes with user properties; the answer goes to the device's own topic."""
    sent = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    sent.UserProperty = list(properties)
    message = {"topic": f"mqrouter/farm/ask/{device}", "payload": question, "qos": 1, "properties": sent}
    publish.multiple([message], port=site.broker.port, protocol=paho.MQTTv5)  # type: ignore[list-item]


def spans_of(collector: Collector, request_id: str) -> dict[str, Heard]:
    """By name, once the answer's is there."""
    (accept,) = collector.wait_for(lambda span: span.attributes.get("mqrouter.request_id") == request_id)
    collector.wait_for(lambda span: span.name == "deliver" and span.parent_id == accept.span_id)
    return {span.name: span for span in collector.spans if accept.span_id in (span.span_id, span.parent_id)}


def test_question_is_told_from_its_arrival_to_its_answer_within_the_senders_trace(
    site: Site, collector: Collector
) -> None:
    with site.requester() as requester:
        requester.subscribe("mqrouter/farm/answer/#")
        ask(site, "okapi", "will there be frost at the okapi pen?", ("x", "y"), ("traceparent", SAMPLED))
        answer = requester.answer_on("mqrouter/farm/answer/okapi")
    (call,) = site.tier.wait_for_calls("okapi pen")
    spans = spans_of(collector, answer.properties["mq-id"])

    assert answer.properties["traceparent"] == SAMPLED
    assert spans.keys() == STAGES
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert spans["accept"].parent_id == SPAN
    assert call.headers["traceparent"] == f"00-{TRACE}-{spans['attempt'].span_id}-01"
    assert not any(span.is_error for span in spans.values())
    assert all(0 <= span.ended_ns - span.started_ns < 60e9 for span in spans.values())
    assert abs(spans["accept"].ended_ns - time.time_ns()) < 600e9
    assert spans["decide"].attributes["mqrouter.route"] == "frost"
    assert spans["attempt"].attributes["gen_ai.response.model"] == "stub-model"
    assert spans["attempt"].attributes["gen_ai.usage.input_tokens"] == 7
    assert spans["deliver"].attributes["mqrouter.state"] == "answered"
    assert spans["accept"].resource["service.name"] == "mqrouter"
    assert b"okapi" not in collector.raw, "a device, or a text"


def test_json_field_counts_where_there_are_no_properties(site: Site, collector: Collector) -> None:
    with site.requester(version=4) as requester:
        requester.subscribe("mqrouter/farm/answer/#")
        body = {"id": "7", "question": "will it freeze for the gnu?", "traceparent": SAMPLED}
        requester.publish("mqrouter/farm/ask/gnu", json.dumps(body))
        answer = requester.answer_on("mqrouter/farm/answer/gnu")

    assert answer.json["traceparent"] == SAMPLED
    (row,) = [row for row in site.gateway.requests() if row["device"] == "gnu"]
    assert spans_of(collector, row["id"])["accept"].parent_id == SPAN


def test_bad_one_is_no_reason_to_refuse_and_the_trace_is_the_gateways_own(site: Site, collector: Collector) -> None:
    with site.requester() as requester:
        requester.subscribe("mqrouter/farm/answer/#")
        body = {"question": "will it freeze for the emu?", "traceparent": {"not": "one"}}
        ask(site, "emu", json.dumps(body), ("traceparent", SAMPLED.upper()))
        answer = requester.answer_on("mqrouter/farm/answer/emu")

    assert answer.json["status"] == "ok" and "traceparent" not in {*answer.json, *answer.properties}
    spans = spans_of(collector, answer.properties["mq-id"])
    assert spans.keys() == STAGES and spans["accept"].parent_id == ""
    assert TRACE not in {span.trace_id for span in spans.values()}


def test_sender_that_does_not_sample_is_heeded_and_its_context_passed_on(site: Site, collector: Collector) -> None:
    with site.requester() as requester:
        requester.subscribe("mqrouter/farm/answer/#")
        ask(site, "ibis", "will it freeze for the ibis?", ("traceparent", UNSAMPLED))
        first = requester.answer_on("mqrouter/farm/answer/ibis")
        ask(site, "yak", "will it freeze for the yak?")
        second = requester.answer_on("mqrouter/farm/answer/yak")
    (call,) = site.tier.wait_for_calls("ibis")

    assert call.headers["traceparent"].startswith(f"00-{TRACE}-") and call.headers["traceparent"].endswith("-00")
    assert first.properties["traceparent"] == UNSAMPLED
    spans_of(collector, second.properties["mq-id"])  # what was asked later is there
    ids = [span.attributes.get("mqrouter.request_id") for span in collector.spans]
    assert first.properties["mq-id"] not in ids


def test_failed_attempts_and_refusals_say_why(site: Site, collector: Collector) -> None:
    from harness import Behaviour

    replies = iter([Behaviour(status=503), Behaviour()])
    site.tier.script = lambda _call: next(replies, Behaviour())
    with site.requester() as requester:
        requester.subscribe("mqrouter/farm/answer/#")
        ask(site, "vole", "will it freeze for the vole?")
        answer = requester.answer_on("mqrouter/farm/answer/vole")
        ask(site, "newt", '{"question": ""}')
        refused = requester.answer_on("mqrouter/farm/answer/newt")

    (accept,) = collector.wait_for(lambda s: s.attributes.get("mqrouter.request_id") == answer.properties["mq-id"])
    attempts = collector.wait_for(lambda s: s.name == "attempt" and s.parent_id == accept.span_id, 2)
    assert [span.is_error for span in attempts] == [True, False]
    assert attempts[0].attributes["error.type"] == "TransientError"
    spans = spans_of(collector, refused.properties["mq-id"])
    assert spans.keys() == {"accept", "deliver"} and spans["accept"].is_error
    assert spans["accept"].attributes["mqrouter.error"] == "bad_request"


def test_wait_over_a_restart_is_one_trace(tmp_path: Path, collector: Collector) -> None:
    with traced_site(tmp_path, config(collector.url, "device = true")) as site:
        site.tier.stop()
        ask(site, "moth", "will it freeze for the moth?")
        row = site.gateway.wait_for_request(device="moth", state="pending")
        site.gateway.stop()
        (accept,) = collector.wait_for(lambda span: span.attributes.get("mqrouter.request_id") == row["id"])
        site.gateway.launch().wait_for_event("daemon.ready", timeout_s=60.0)
        with site.requester() as requester:
            requester.subscribe("mqrouter/farm/answer/#")
            site.tier.start()
            requester.answer_on("mqrouter/farm/answer/moth")
        spans = spans_of(collector, row["id"])

    assert spans.keys() == STAGES
    assert {span.trace_id for span in spans.values()} == {accept.trace_id}
    assert spans["decide"].attributes["mqrouter.device"] == "moth"


def test_collector_that_is_away_changes_nothing(tmp_path: Path) -> None:
    with traced_site(tmp_path, config(f"http://127.0.0.1:{free_port()}/v1/traces")) as site:
        with site.requester() as requester:
            requester.subscribe("mqrouter/farm/answer/#")
            requester.publish_at_once("mqrouter/farm/ask/elk", [f"will it freeze tonight, {n}?" for n in range(20)])
            requester.wait_for_number(20)
        site.gateway.wait_for_event("traces.export_failed", timeout_s=30.0)

        def failed() -> float | None:
            return samples_of(site.gateway.cli("metrics").stdout).value("mqrouter_trace_spans_total", result="failed")

        assert poll(failed, lambda: "no failed spans") > 0
        assert len(site.gateway.events("traces.export_failed")) == 1, "said once"
        started_s = time.monotonic()
        assert site.gateway.stop() == 0
        assert time.monotonic() - started_s < 9, "an ordered stop does not wait for it"


def test_without_tracing_the_senders_context_is_passed_on_as_it_is(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        with site.requester() as requester:
            requester.subscribe("mqrouter/farm/answer/#")
            ask(site, "okapi", "will it freeze?", ("traceparent", SAMPLED))
            ask(site, "gnu", "will it freeze at all?")
            assert requester.answer_on("mqrouter/farm/answer/okapi").properties["traceparent"] == SAMPLED
            assert "traceparent" not in requester.answer_on("mqrouter/farm/answer/gnu").properties
        assert site.tier.wait_for_calls("will it freeze?")[0].headers["traceparent"] == SAMPLED
        assert "traceparent" not in site.tier.wait_for_calls("will it freeze at all?")[0].headers


def test_nothing_of_it_is_imported_unless_it_is_wanted() -> None:
    code = "import sys, mqrouter.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
