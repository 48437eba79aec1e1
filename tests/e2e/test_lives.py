"""The daemon and the broker die and come back, at any time: every question gets one answer of its own."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Behaviour, Requester, Site, poll, running_site

pytestmark = pytest.mark.real_model

ASK, ANSWER, STATUS = "mqrouter/farm/ask", "mqrouter/farm/answer", "mqrouter/farm/status"


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A site whose parts the test may kill."""
    with running_site(tmp_path) as site:
        yield site


def _only_answer(device: Requester, correlation: bytes) -> str:
    """Returns the text of the one answer; a further question shows that no second one is on its way."""
    answer = device.answer_to(correlation)
    device.publish(f"{ASK}/barrier", "frost at the end?", reply_to="me/in", correlation=b"barrier")
    device.answer_to(b"barrier")
    assert [message.correlation for message in device.messages] == [correlation, b"barrier"]
    return answer.text


def test_question_leased_at_kill_is_answered_once(own_site: Site) -> None:
    own_site.tier.hold()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, leased?", reply_to="me/in", correlation=b"\x00leased")
        own_site.tier.wait_for_calls("frost, leased?")
        own_site.gateway.kill()
        own_site.tier.release()

        own_site.gateway.start()

        assert _only_answer(device, b"\x00leased") == "echo: frost, leased?"
        keys = [call.key for call in own_site.tier.asked("frost, leased?")]
        assert len(keys) == 2 and len(set(keys)) == 1
        assert own_site.gateway.events("daemon.started")[0]["recovered"] == 1


def test_question_pending_at_kill_is_answered_once(own_site: Site) -> None:
    own_site.tier.stop()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, pending?", reply_to="me/in", correlation=b"pending")
        own_site.gateway.wait_for_request(state="pending", device="probe")
        own_site.gateway.kill()
        own_site.tier.start()

        own_site.gateway.start()

        assert _only_answer(device, b"pending") == "echo: frost, pending?"


def test_answer_without_a_subscriber_at_kill_is_kept(own_site: Site) -> None:
    with own_site.requester() as sender:
        sender.publish(f"{ASK}/probe", "frost, unheard?", reply_to="me/in", correlation=b"unheard")
    own_site.gateway.wait_for_event("deliver.not_taken")
    own_site.gateway.kill()
    with own_site.requester() as device:
        device.subscribe("me/in")

        own_site.gateway.start()

        assert _only_answer(device, b"unheard") == "echo: frost, unheard?"
        assert len(own_site.tier.asked("frost, unheard?")) == 1


def test_question_sent_while_the_daemon_is_dead_waits_at_the_broker(own_site: Site) -> None:
    own_site.gateway.kill()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, nobody home?", reply_to="me/in", correlation=b"home")

        own_site.gateway.start()

        assert _only_answer(device, b"home") == "echo: frost, nobody home?"


def test_duplicate_is_known_after_a_restart(own_site: Site) -> None:
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, twice?", reply_to="me/in", correlation=b"twice")
        first = device.answer_on("me/in")
        own_site.gateway.stop()
        own_site.gateway.start()

        device.publish(f"{ASK}/probe", "frost, twice?", reply_to="me/in", correlation=b"twice")

        second = device.wait_for_number(2)[1]
        assert (second.payload, second.correlation) == (first.payload, b"twice")
        assert len(own_site.tier.asked("frost, twice?")) == 1


def test_killed_again_and_again_under_load_loses_nothing(own_site: Site) -> None:
    names = [f"{number}".encode() for number in range(150)]
    with own_site.requester() as device:
        device.subscribe("me/in")
        for number, name in enumerate(names):
            device.publish(f"{ASK}/probe", f"frost {number}?", reply_to="me/in", correlation=name)
            if number in (40, 80, 120):
                own_site.gateway.kill()
                own_site.gateway.launch()

        for name in names:
            assert device.answer_to(name).text == f"echo: frost {name.decode()}?"
        # At a kill between a PUBLISH and its record the same answer goes out again, under the same correlation.
        assert {(m.correlation, m.text) for m in device.messages} == {(n, f"echo: frost {n.decode()}?") for n in names}
    own_site.gateway.wait_for_event("daemon.ready")


# --- broker ------------------------------------------------------------------------------------------


def test_broker_that_restarts_is_found_again(own_site: Site) -> None:
    own_site.broker.stop()
    own_site.gateway.wait_for_event("mqtt.connection_lost")
    status = own_site.gateway.cli("status")
    assert (status.returncode, "NOT connected" in status.stdout) == (0, True)

    before = len(own_site.gateway.log.lines)
    own_site.broker.start()
    connected = own_site.gateway.wait_for_event("mqtt.connected", after=before)

    assert (connected["protocol"], connected["session_present"]) == ("5", True)
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, restarted?", reply_to="me/in", correlation=b"r")
        assert device.answer_on("me/in").correlation == b"r"


def test_broker_that_lost_its_sessions_is_subscribed_again(own_site: Site) -> None:
    own_site.tier.hold()
    with own_site.requester() as device:
        device.publish(f"{ASK}/probe", "frost, sessions lost?", reply_to="me/in", correlation=b"x")
    own_site.tier.wait_for_calls("frost, sessions lost?")
    own_site.broker.kill(with_sessions_lost=True)
    own_site.gateway.wait_for_event("mqtt.connection_lost")
    before = len(own_site.gateway.log.lines)
    own_site.broker.start()
    assert not own_site.gateway.wait_for_event("mqtt.connected", after=before)["session_present"]

    with own_site.requester() as device:
        device.subscribe("me/in")
        own_site.tier.release()

        assert _only_answer(device, b"x") == "echo: frost, sessions lost?"


def test_answer_ready_while_the_broker_is_away_goes_out_later(own_site: Site) -> None:
    own_site.tier.hold()
    with own_site.requester() as device:
        device.publish(f"{ASK}/probe", "frost, no broker?", reply_to="me/in", correlation=b"y")
    own_site.tier.wait_for_calls("frost, no broker?")
    own_site.broker.stop()
    own_site.gateway.wait_for_event("mqtt.connection_lost")
    own_site.tier.release()
    own_site.gateway.wait_for_request(state="answered")

    own_site.broker.start()

    with own_site.requester() as device:
        device.subscribe("me/in")
        assert _only_answer(device, b"y") == "echo: frost, no broker?"


def test_broker_absent_at_start_is_waited_for(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site:
        site.broker.stop()
        site.gateway.launch()
        site.gateway.wait_for_event("mqtt.connect_failed")

        status = poll(lambda: _when_ok(site), lambda: "the control socket is not there")
        assert "NOT connected: ConnectionRefusedError" in status

        site.broker.start()
        site.gateway.wait_for_event("daemon.ready")
        assert "connected, MQTT 5" in site.gateway.cli("status").stdout


def _when_ok(site: Site) -> str | None:
    result = site.gateway.cli("status")
    return result.stdout if result.returncode == 0 else None


def test_start_without_a_broker_can_be_stopped(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site:
        site.broker.stop()
        site.gateway.launch()
        site.gateway.wait_for_event("embedder.examples_embedded")
        started_s = time.monotonic()

        assert site.gateway.stop() == 0
        assert time.monotonic() - started_s < 10


# --- status topic ------------------------------------------------------------------------------------


def _status(site: Site) -> str:
    """The status that the broker has kept."""
    with site.requester() as watcher:
        watcher.subscribe(STATUS)
        message = watcher.answer_on(STATUS)
        assert message.is_retained
        return message.text


def test_status_is_online_while_the_daemon_lives_and_offline_after(own_site: Site) -> None:
    assert _status(own_site) == "online"
    with own_site.requester() as watcher:
        watcher.subscribe(STATUS)
        watcher.wait_for(lambda message: message.text == "online")

        own_site.gateway.kill()
        watcher.wait_for(lambda message: message.text == "offline")
        assert _status(own_site) == "offline"

        own_site.gateway.start()
        assert [message.text for message in watcher.wait_for_number(3)] == ["online", "offline", "online"]

        assert own_site.gateway.stop() == 0
        assert watcher.wait_for_number(4)[3].text == "offline"
    assert _status(own_site) == "offline"


# --- stop --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stop_under_load_is_quick_and_loses_nothing(own_site: Site, number: signal.Signals) -> None:
    names = [f"{n}".encode() for n in range(120)]
    with own_site.requester() as device:
        device.subscribe("me/in")
        for name in names:
            device.publish(f"{ASK}/probe", f"frost {name.decode()}?", reply_to="me/in", correlation=name)
        stopped_s = time.monotonic()

        assert own_site.gateway.log.end(number) == 0

        assert time.monotonic() - stopped_s < 5
        own_site.gateway.start()
        for name in names:
            device.answer_to(name)
        assert len(device.messages) == len(names)


def test_stop_with_a_hanging_tier_keeps_the_limit(own_site: Site) -> None:
    own_site.tier.hold()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, hanging?", reply_to="me/in", correlation=b"h")
        own_site.tier.wait_for_calls("frost, hanging?")
        stopped_s = time.monotonic()

        assert own_site.gateway.stop() == 0

        assert time.monotonic() - stopped_s < 10
        own_site.tier.release()
        own_site.gateway.start()
        assert _only_answer(device, b"h") == "echo: frost, hanging?"
        history = json.loads(
            own_site.gateway.cli("queue", "show", "--json", device.messages[0].properties["mq-id"]).stdout
        )
        assert "the daemon stopped" in [entry["note"] for entry in history["history"]]


def test_attempt_under_way_at_the_stop_may_end(own_site: Site) -> None:
    own_site.tier.hold()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, last words?", reply_to="me/in", correlation=b"l")
        own_site.tier.wait_for_calls("frost, last words?")
        own_site.gateway.log.send(signal.SIGTERM)
        own_site.gateway.wait_for_event("daemon.stopping", in_flight=1)
        own_site.tier.release()

        assert own_site.gateway.log.wait() == 0
        assert device.answer_on("me/in").text == "echo: frost, last words?"


def test_second_daemon_on_the_same_data_gives_way(own_site: Site) -> None:
    second = own_site.gateway.launch_another()

    assert second.wait() == 75
    assert second.lines == [
        f"mqrouter: {own_site.gateway.folder}/data/mqrouter.db is in use by another mqrouter"
        f" (process {own_site.gateway.log.pid}): stop that one, or give this one a data_dir of its own"
    ]
    assert own_site.gateway.status()["ready"]


def test_failing_tier_and_restart_keep_the_count_of_attempts(own_site: Site) -> None:
    own_site.tier.script = lambda _call: Behaviour(status=500)
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, eight times?", reply_to="me/in", correlation=b"8")
        own_site.tier.wait_for_calls("frost, eight times?", 3)
        own_site.gateway.stop()
        own_site.gateway.start()

        assert device.answer_to(b"8", 20).error_code == "upstream_failed"
        assert len(own_site.tier.asked("frost, eight times?")) <= 9
