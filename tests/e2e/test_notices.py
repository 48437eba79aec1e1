"""What the broker keeps of a gateway, what is told as it happens, and orders over MQTT."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, Message, Mosquitto, Requester, Site, StubTier, poll, running_site

pytestmark = pytest.mark.real_model

OWN = "mqrouter/farm"
ASK = f"{OWN}/ask"
CONFIG = "homeassistant/device/mqrouter_farm/config"
QUICK = "stats_interval_s = 0.1\n"
OFF = f"[mqtt]\n{QUICK}"
EVENTS = 'events = ["decision", "finished", "tier"]'
ON = f"[mqtt]\n{QUICK}commands = true\n{EVENTS}\n[mqtt.home_assistant]\nenabled = true\n"


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with running_site(tmp_path, text=getattr(request, "param", ON)) as site:
        yield site


def stats(device: Requester, **wanted: Any) -> dict[str, Any]:
    """Returns the first stats that say all of this."""

    def is_it(message: Message) -> bool:
        return message.topic == f"{OWN}/stats" and wanted.items() <= _flat(message.json).items()

    return device.wait_for(is_it).json


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    tiers = {name: tier["state"] for name, tier in value["tiers"].items()}
    paused = {name: value[name] for name in ("paused", "paused_routes")}
    return {**value["requests"], **value["queue"], **value["totals"], **tiers, **paused}


def order(device: Requester, topic: str, payload: str) -> dict[str, Any]:
    """Gives an order; returns what became of it."""
    seen = list(device.messages)
    device.publish(f"{OWN}/cmd/{topic}", payload, correlation=b"c")

    def is_new(message: Message) -> bool:
        return message.topic == f"{OWN}/cmd/result" and not any(message is other for other in seen)

    return device.wait_for(is_new).json


# --- retained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [OFF], indirect=True)
def test_who_comes_late_sees_what_the_gateway_is_and_how_it_does(site: Site) -> None:
    site.tier.stop()
    with site.requester() as device:
        device.publish(f"{ASK}/probe", "will there be frost tonight?")
    site.gateway.wait_for_request(state="pending")

    with site.requester() as late:
        late.subscribe(f"{OWN}/info", f"{OWN}/stats", f"{OWN}/status")
        info = late.answer_on(f"{OWN}/info")
        found = stats(late, pending=1, hub="down")
        status = late.answer_on(f"{OWN}/status")

    assert (info.is_retained, status.text) == (True, "online")
    assert (info.json["gateway"], info.json["tiers"]["hub"]["model"], info.json["commands"]) == ("farm", "stub", False)
    assert site.tier.url not in info.text
    assert found["queue"]["requests"] == found["totals"]["accepted"] == 1
    assert (found["queue"]["bytes"], found["queue"]["oldest_age_s"] >= 0) == (28, True)
    assert "frost" not in json.dumps(found)


@pytest.mark.parametrize("site", ["[mqtt]\nstats_interval_s = 3600.0"], indirect=True)
def test_what_matters_is_told_before_its_time(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{OWN}/stats")
        stats(device, hub="up", pending=0)
        assert site.gateway.cli("queue", "pause", "hub").returncode == 0
        stats(device, hub="paused", paused=True)
        device.publish(f"{ASK}/probe", "will there be frost tonight?")
        stats(device, requests=1)
        assert site.gateway.cli("queue", "resume", "hub").returncode == 0
        device.wait_for(lambda message: _flat(message.json)["requests"] == 0 and message is device.messages[-1])
        assert site.gateway.cli("queue", "pause", "--route", "frost").returncode == 0
        stats(device, paused=False, paused_routes=["frost"])


def test_info_follows_a_reload_and_comes_anew_with_each_connection(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{OWN}/info")
        first = device.answer_on(f"{OWN}/info").json
        assert set(first["routes"]) == {"frost", "urgent"}
        routes = site.gateway.routes.read_text(encoding="utf-8")
        site.gateway.routes.write_text(routes.replace("routes.frost", "routes.cold"), encoding="utf-8")
        site.gateway.log.send(signal.SIGHUP)
        device.wait_for(lambda message: set(message.json["routes"]) == {"cold", "urgent"})

    site.broker.kill(with_sessions_lost=True)
    site.broker.start()
    with site.requester() as device:
        device.subscribe(f"{OWN}/info", f"{OWN}/stats", CONFIG)
        assert set(device.answer_on(f"{OWN}/info").json["routes"]) == {"cold", "urgent"}
        assert device.answer_on(CONFIG).json["availability_topic"] == f"{OWN}/status"


# --- events --------------------------------------------------------------------------------------------


def test_decisions_and_ends_are_told_without_texts_and_nothing_of_private_questions(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{OWN}/event/#", "me/in")
        secret = json.dumps({"question": "will there be frost at nurse@farm.example?", "id": "p"})
        device.publish(f"{ASK}/nurse", secret, reply_to="me/in", correlation=b"p")
        assert device.answer_to(b"p").error_code == "private_unanswerable"
        device.publish(f"{ASK}/probe", "will there be frost tonight?", reply_to="me/in", correlation=b"q")

        decided = device.answer_on(f"{OWN}/event/decision")
        finished = device.answer_on(f"{OWN}/event/finished")

        assert (decided.qos, decided.is_retained) == (0, False)
        assert (decided.json["device"], decided.json["route"], decided.json["tiers"]) == ("probe", "frost", ["hub"])
        assert finished.json["id"] == decided.json["id"]
        assert (finished.json["state"], finished.json["tier"]) == ("delivered", "hub")
        site.tier.stop()
        device.publish(f"{ASK}/probe", "frost warning for the orchard")
        changed = device.answer_on(f"{OWN}/event/tier").json
        assert changed == {"tier": "hub", "was": "up", "state": "down"}
        events = [message.text for message in device.messages if "/event/" in message.topic]
        assert not [text for text in events if "nurse" in text or "tonight" in text]


# --- Home Assistant ------------------------------------------------------------------------------------


def test_home_assistant_is_told_again_when_it_is_born(site: Site) -> None:
    with site.requester() as house:
        house.subscribe(CONFIG)
        config = house.answer_on(CONFIG)
        assert config.is_retained
        assert set(config.json["components"]) == {
            *("queue_depth", "oldest_age", "answered", "refused", "problem", "tier_hub", "pause", "pause_hub"),
        }
        house.publish(CONFIG, "", is_retained=True)  # as if it had been lost
        house.publish("homeassistant/status", "offline")
        house.publish("homeassistant/status", "online")
        again = house.wait_for_number(3)[2]

    assert (again.json, again.is_retained) == (config.json, False)
    with site.requester() as late:
        late.subscribe(CONFIG)
        assert late.answer_on(CONFIG).is_retained


def test_home_assistant_switched_off_is_told_that_the_device_is_gone(site: Site) -> None:
    record = site.gateway.folder / "data" / "home_assistant.json"
    with site.requester() as house:
        house.subscribe(CONFIG)
        house.answer_on(CONFIG)
        site.gateway.stop()
        assert json.loads(record.read_text(encoding="utf-8"))["topic"] == CONFIG
        site.gateway.write(site.broker.port, site.tier.url, OFF)
        site.gateway.start()
        house.wait_for(lambda message: message.payload == b"")
        poll(lambda: None if record.exists() else True, lambda: "the record is still there")

    with site.requester() as late:
        late.subscribe("homeassistant/#", f"{OWN}/stats")
        stats(late)
        assert [message.topic for message in late.messages if message.topic == CONFIG] == []


def test_no_answer_goes_where_home_assistant_listens(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{OWN}/answer/#", "homeassistant/sensor/#")
        device.publish(f"{ASK}/probe/1", "will there be frost?", reply_to="homeassistant/sensor/x/config")
        assert device.answer_on(f"{OWN}/answer/probe/1").error_code == "bad_reply_topic"


# --- orders --------------------------------------------------------------------------------------------


def test_order_pauses_and_resumes_and_is_on_record(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{OWN}/cmd/result", f"{OWN}/stats", "me/in")
        assert order(device, "tier/hub", "pause") == {"id": None, "ok": True, "action": "pause", "tiers": ["hub"]}
        stats(device, hub="paused", paused=True)
        device.publish(f"{ASK}/probe", "will there be frost tonight?", reply_to="me/in", correlation=b"q")
        stats(device, pending=1)
        assert order(device, "all", '{"action": "pause", "id": 7}')["tiers"] == [], "it is paused already"
        assert order(device, "all", '{"action": "resume", "id": 8}') == {
            "id": "8",
            "ok": True,
            "action": "resume",
            "tiers": ["hub"],
        }
        assert device.answer_to(b"q").error_code is None

    actions = json.loads(site.gateway.cli("queue", "actions", "--json").stdout)
    assert [(entry["action"], entry["target"], entry["actor"]) for entry in _rows(actions)] == [
        ("resume", "hub", "mqtt"),
        ("pause", "hub", "mqtt"),
    ]


def _rows(value: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = value if isinstance(value, list) else value["actions"]
    return rows


@pytest.mark.parametrize(
    ("topic", "payload", "part"),
    [
        ("tier/moon", "pause", "no tier 'moon'"),
        ("tier/hub", "explode", "must be one of pause, resume"),
        ("all", "{", "not valid JSON"),
        ("all", "x" * 2000, "at most 1024 bytes"),
        ("foo", "pause", "orders go to cmd/all, cmd/tier/NAME or cmd/route/NAME"),
    ],
)
def test_order_that_makes_no_sense_is_answered_and_changes_nothing(
    own_site: Site, topic: str, payload: str, part: str
) -> None:
    with own_site.requester() as device:
        device.subscribe(f"{OWN}/cmd/result")
        result = order(device, topic, payload)
    assert (result["ok"], part in result["error"]["message"]) == (False, True)
    assert own_site.gateway.status()["tiers"]["hub"]["paused_by"] is None


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("orders"), text=ON) as site:
        yield site


def test_no_device_has_its_answer_taken_for_an_order(own_site: Site) -> None:
    own_site.tier.reset()
    with own_site.requester() as device:
        device.subscribe(f"{OWN}/answer/#")
        device.publish(f"{ASK}/probe/2", "say: pause", reply_to=f"{OWN}/cmd/tier/hub")
        assert device.answer_on(f"{OWN}/answer/probe/2").error_code == "bad_reply_topic"
    assert own_site.gateway.status()["tiers"]["hub"]["paused_by"] is None


def test_order_that_the_broker_retained_is_not_carried_out(own_site: Site) -> None:
    """A broker hands it out at every connection: with MQTT 3.1.1 to who has subscribed already, too."""
    with own_site.requester() as device:
        device.publish(f"{OWN}/cmd/tier/hub", "pause", is_retained=True)
        device.subscribe(f"{OWN}/cmd/result")
        assert order(device, "all", "resume")["ok"]
        text = own_site.gateway.config.read_text(encoding="utf-8")
        own_site.gateway.stop()
        own_site.gateway.config.write_text(text.replace("[mqtt]", '[mqtt]\nprotocol = "3.1.1"', 1), encoding="utf-8")
        own_site.gateway.start()
        own_site.gateway.wait_for_event("command.passed_over", retained=True)
        device.publish(f"{OWN}/cmd/tier/hub", "", is_retained=True)
        order(device, "all", "pause")
        assert order(device, "all", "resume")["tiers"] == ["hub"], "it was not paused before that"


def test_with_commands_off_nothing_is_subscribed_and_nothing_happens(site: Site) -> None:
    """The broker still has the subscription of the life before: it is taken back."""
    site.gateway.stop()
    site.gateway.write(site.broker.port, site.tier.url, OFF)
    before = len(site.broker.log.lines)
    site.gateway.start()
    site.broker.log.wait_for_line(lambda line: "/cmd/#" in line, after=before)
    with site.requester() as device:
        device.subscribe(f"{OWN}/cmd/#", f"{OWN}/stats", "me/in")
        device.publish(f"{OWN}/cmd/tier/hub", "pause")
        device.publish(f"{ASK}/probe", "will there be frost tonight?", reply_to="me/in", correlation=b"q")
        assert device.answer_to(b"q").error_code is None
        assert [message.text for message in device.messages if "/cmd/" in message.topic] == ["pause"]
    assert site.gateway.events("command.passed_over") == []
    assert json.loads(site.gateway.cli("queue", "actions", "--json").stdout) in ([], {"actions": []})
    told = [line for line in site.broker.log.lines[before:] if "/cmd/" in line]
    assert told and not [line for line in told if "Sending PUBLISH to mqrouter-farm" in line]


ACL = "topic readwrite {0}/ask/#\ntopic readwrite {0}/answer/#\ntopic readwrite {0}/status\ntopic readwrite me/#\n"


def test_broker_that_allows_questions_alone_keeps_none_of_it_from_them(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(ACL.format(OWN), encoding="utf-8")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", extra=[f"acl_file {acl}"]).start()
    tier = StubTier().start()
    gateway = Gateway(tmp_path / "gateway", broker.port, tier.url, text=ON)
    try:
        gateway.start()
        gateway.wait_for_event("mqtt.retained_refused", topic=f"{OWN}/info")
        with Requester(broker.port) as device:
            device.subscribe("me/in")
            device.publish(f"{ASK}/probe", "will there be frost?", reply_to="me/in", correlation=b"q")
            assert device.answer_to(b"q").error_code is None
        gateway.close()
    finally:
        tier.close()
        broker.kill()


def test_access_list_of_the_example_lets_each_do_its_own(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "deploy" / "mosquitto" / "mqrouter.acl").read_text(encoding="utf-8")
    acl = tmp_path / "acl"
    acl.write_text(text.replace("\n#topic", "\ntopic"), encoding="utf-8")
    acl.chmod(0o600)
    with_name = ON.replace("[mqtt]", '[mqtt]\nusername = "gateway"', 1)
    broker = Mosquitto(tmp_path / "broker", extra=[f"acl_file {acl}"]).start()
    tier = StubTier().start()
    gateway = Gateway(tmp_path / "gateway", broker.port, tier.url, text=with_name)
    try:
        gateway.start()
        with Requester(broker.port, user="probe") as device, Requester(broker.port, user="homeassistant") as house:
            house.subscribe(f"{OWN}/stats", f"{OWN}/cmd/result", CONFIG)
            assert stats(house, hub="up") and house.answer_on(CONFIG).is_retained
            device.subscribe(f"{OWN}/answer/probe/#", f"{OWN}/answer/other/#")
            device.publish(f"{OWN}/cmd/tier/hub", "pause")
            device.publish(f"{ASK}/other/1", "will there be frost?")
            device.publish(f"{ASK}/probe/1", "will there be frost?")
            assert device.answer_on(f"{OWN}/answer/probe/1").error_code is None
            assert order(house, "tier/hub", "resume")["tiers"] == [], "no device paused it"
            assert order(house, "tier/hub", "pause")["tiers"] == ["hub"]
        assert [row["device"] for row in gateway.requests()] == ["probe"]
        assert gateway.events("mqtt.retained_refused") == []
        gateway.close()
    finally:
        tier.close()
        broker.kill()
