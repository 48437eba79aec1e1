"""What Home Assistant is told fits what the gateway says: its documentation names the keys and the topic."""

import json
import re
from typing import Any

import pytest

from mqrouter.core.discovery import Announced, Gateway, announced, config_topic, device_config

FARM = Gateway("farm", "1.2", "mqrouter/farm", ("edge", "hub.v2"), takes_commands=True)
OBJECT = re.compile(r"homeassistant/device/[A-Za-z0-9_-]+/config")


def config(gateway: Gateway = FARM, **gone: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(device_config(gateway, gone)))
    return value


@pytest.mark.parametrize("name", ["farm", "north.farm", "a_b-c", "9"])
def test_topic_has_only_what_home_assistant_takes(name: str) -> None:
    assert OBJECT.fullmatch(config_topic("homeassistant", name))


def test_required_keys_are_there() -> None:
    value = config()
    assert value["device"]["identifiers"] and value["origin"]["name"]
    assert value["availability_topic"] == "mqrouter/farm/status"
    for component in value["components"].values():
        assert component["platform"] in ("sensor", "binary_sensor", "switch")
        assert component["unique_id"].startswith("mqrouter_farm_")
    ids = [component["unique_id"] for component in value["components"].values()]
    assert len(set(ids)) == len(ids)


def test_each_tier_has_its_connectivity_and_its_switch() -> None:
    components = config()["components"]
    assert components["tier_hub.v2"]["device_class"] == "connectivity"
    assert components["pause_hub.v2"]["command_topic"] == "mqrouter/farm/cmd/tier/hub.v2"
    assert (components["pause"]["command_topic"], components["pause"]["payload_on"]) == (
        "mqrouter/farm/cmd/all",
        "pause",
    )


def test_without_commands_there_is_no_switch() -> None:
    quiet = Gateway("farm", "1.2", "mqrouter/farm", ("edge",), takes_commands=False)
    assert {component["platform"] for component in config(quiet)["components"].values()} == {"sensor", "binary_sensor"}


def test_component_that_is_gone_has_nothing_but_its_platform() -> None:
    components = config(tier_old="binary_sensor", queue_depth="sensor")["components"]
    assert components["tier_old"] == {"platform": "binary_sensor"}
    assert len(components["queue_depth"]) > 1


def test_what_is_remembered_is_what_was_said() -> None:
    found = announced("t", config())
    assert found == Announced("t", {name: entry["platform"] for name, entry in config()["components"].items()})


SAID = {
    "queue": {"requests": 3, "oldest_age_s": 7},
    "tiers": {"edge": {"state": "up"}, "hub.v2": {"state": "paused"}},
    "totals": {"answered": 5, "refused": 1},
    "degraded": [],
    "paused": False,
}


@pytest.mark.parametrize(
    ("component", "shown"),
    [
        ("queue_depth", 3),
        ("oldest_age", 7),
        ("answered", 5),
        ("refused", 1),
        ("problem", "OFF"),
        ("tier_edge", "ON"),
        ("tier_hub.v2", "ON"),
        ("pause", "OFF"),
        ("pause_edge", "OFF"),
        ("pause_hub.v2", "ON"),
    ],
)
def test_template_shows_what_the_stats_say(component: str, shown: object) -> None:
    """Python reads these few templates as Jinja does, once `a.b` is `a["b"]`."""
    template = config()["components"][component]["value_template"]
    expression = re.fullmatch(r"\{\{ (.*) \}\}", template)
    assert expression is not None
    dotted = re.sub(r"(?<=[\w\]])\.([a-z_]+)", r"['\1']", expression[1].replace("hub.v2", "hub_v2"))
    said = SAID | {"tiers": {"edge": SAID["tiers"]["edge"], "hub_v2": SAID["tiers"]["hub.v2"]}}  # type: ignore[index]
    assert eval(dotted, {"value_json": said}) == shown
