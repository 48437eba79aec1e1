"""Home Assistant's MQTT discovery, the form with one message for a whole device (since 2024.11).

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload: the topic is PREFIX/device/OBJECT/config, the
object's name of letters, digits, "_" and "-"; an empty retained message removes the device, a component that has
nothing but its platform removes that one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mqrouter.core.commands import Action, CommandTopics
from mqrouter.core.request import JsonObject

BIRTH = b"online"
"""Home Assistant's, on PREFIX/status: it is there, and wants to be told anew."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What Home Assistant has been told of: the topic, and the platform of each component."""

    topic: str
    components: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What there is to show. `prefix` is that of the gateway's topics."""

    name: str
    version: str
    prefix: str
    tiers: Collection[str]
    takes_commands: bool


def birth_topic(discovery_prefix: str) -> str:
    return f"{discovery_prefix}/status"


def config_topic(discovery_prefix: str, gateway: str) -> str:
    return f"{discovery_prefix}/device/mqrouter_{re.sub('[^A-Za-z0-9_-]', '_', gateway)}/config"


def announced(topic: str, config: JsonObject) -> Announced:
    return Announced(topic, {name: component["platform"] for name, component in config["components"].items()})


def device_config(gateway: Gateway, gone: Mapping[str, str]) -> JsonObject:
    """Returns the payload; `gone` are components, with their platforms, that were announced and are no more."""
    components = _sensors(gateway) | _tiers(gateway)
    if gateway.takes_commands:
        components |= _switches(gateway)
    own = f"mqrouter_{gateway.name}"
    for name, component in components.items():
        component["unique_id"] = f"{own}_{name}"
    removed = {name: {"platform": platform} for name, platform in gone.items() if name not in components}
    return {
        "device": {
            "identifiers": [own],
            "name": f"mqrouter {gateway.name}",
            "manufacturer": "mqrouter",
            "model": "question router",
            "sw_version": gateway.version,
        },
        "origin": {"name": "mqrouter", "sw_version": gateway.version},
        "availability_topic": f"{gateway.prefix}/status",
        "state_topic": f"{gateway.prefix}/stats",
        "qos": 1,
        "components": components | removed,
    }


def _sensors(gateway: Gateway) -> dict[str, JsonObject]:
    return {
        "queue_depth": {
            "platform": "sensor",
            "name": "Queue depth",
            "icon": "mdi:tray-full",
            "state_class": "measurement",
            "value_template": "{{ value_json.queue.requests }}",
        },
        "oldest_age": {
            "platform": "sensor",
            "name": "Oldest question",
            "device_class": "duration",
            "unit_of_measurement": "s",
            "state_class": "measurement",
            "value_template": "{{ value_json.queue.oldest_age_s }}",
        },
        "answered": {
            "platform": "sensor",
            "name": "Answers delivered",
            "icon": "mdi:message-reply-text",
            "state_class": "total_increasing",
            "value_template": "{{ value_json.totals.answered }}",
        },
        "refused": {
            "platform": "sensor",
            "name": "Questions refused",
            "icon": "mdi:message-off",
            "state_class": "total_increasing",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.totals.refused }}",
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Takes no questions",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.degraded else 'OFF' }}",
        },
    }


def _tiers(gateway: Gateway) -> dict[str, JsonObject]:
    return {
        f"tier_{tier}": {
            "platform": "binary_sensor",
            "name": f"Tier {tier}",
            "device_class": "connectivity",
            "value_template": f"{{{{ 'OFF' if {_state_of(tier)} == 'down' else 'ON' }}}}",
        }
        for tier in gateway.tiers
    }


def _switches(gateway: Gateway) -> dict[str, JsonObject]:
    every = {"pause": _switch(gateway, None, "Pause all tiers", "value_json.paused")}
    each = {
        f"pause_{tier}": _switch(gateway, tier, f"Pause tier {tier}", f"{_state_of(tier)} == 'paused'")
        for tier in gateway.tiers
    }
    return every | each


def _switch(gateway: Gateway, tier: str | None, name: str, is_paused: str) -> JsonObject:
    return {
        "platform": "switch",
        "name": name,
        "icon": "mdi:pause-octagon",
        "entity_category": "config",
        "command_topic": CommandTopics(gateway.prefix).of(tier),
        "payload_on": str(Action.PAUSE),
        "payload_off": str(Action.RESUME),
        "state_on": "ON",
        "state_off": "OFF",
        "value_template": f"{{{{ 'ON' if {is_paused} else 'OFF' }}}}",
    }


def _state_of(tier: str) -> str:
    return f"value_json.tiers['{tier}'].state"  # a tier's name has neither quotes nor braces
