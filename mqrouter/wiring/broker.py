"""The link to the broker: its options, its topics, and Home Assistant behind it."""

from __future__ import annotations

import paho.mqtt.client as paho

from mqrouter import __version__
from mqrouter.core.backoff import Backoff
from mqrouter.core.commands import CommandTopics
from mqrouter.core.discovery import Gateway, birth_topic
from mqrouter.core.topics import TopicMap, build_topic_map
from mqrouter.edge.discovery_file import DiscoveryFile
from mqrouter.edge.mqtt.options import LinkOptions, TlsFiles
from mqrouter.flow.home_assistant import HomeAssistant
from mqrouter.settings import Protocol, Settings
from mqrouter.wiring.secrets import secret

VERSIONS = {
    Protocol.AUTO: (paho.MQTTv5, paho.MQTTv311),
    Protocol.V5: (paho.MQTTv5,),
    Protocol.V311: (paho.MQTTv311,),
}


def topic_map(settings: Settings) -> TopicMap:
    listeners = tuple((entry.filter, entry.device_level, entry.answer) for entry in settings.listeners)
    strategies = {entry.filter: entry.strategy for entry in settings.listeners}
    house = settings.mqtt.home_assistant
    reserved = (f"{house.prefix}/#",) if house.enabled else ()
    return build_topic_map(settings.prefix, listeners, tuple(settings.mqtt.response_topics), strategies, reserved)


def link_options(settings: Settings) -> LinkOptions:
    """Raises ConfigError where the password's reference leads nowhere."""
    mqtt = settings.mqtt
    password = secret(mqtt.password, "mqtt.password")
    tls = TlsFiles(mqtt.tls.ca_file, mqtt.tls.cert_file, mqtt.tls.key_file) if mqtt.tls.enabled else None
    return LinkOptions(
        host=mqtt.host,
        port=mqtt.port,
        versions=VERSIONS[mqtt.protocol],
        client_id=settings.client_id,
        username=mqtt.username,
        password=None if password is None else password.get_secret_value(),
        tls=tls,
        keepalive_s=mqtt.keepalive_s,
        connect_timeout_s=mqtt.connect_timeout_s,
        session_expiry_s=mqtt.session_expiry_s,
        receive_maximum=mqtt.receive_maximum,
        reconnect=Backoff(mqtt.reconnect_min_s, mqtt.reconnect_max_s),
        filters=tuple(rule.filter for rule in topic_map(settings).rules),
        optional_filters=(topic_map(settings).feedback.filter,),
        status_topic=f"{settings.prefix}/status",
        live_filters=_live_filters(settings, is_on=True),
        unwanted_filters=_live_filters(settings, is_on=False),
    )


def _live_filters(settings: Settings, *, is_on: bool) -> tuple[str, ...]:
    """Returns what is listened to beside the questions, or what is not and an earlier life may have."""
    house = settings.mqtt.home_assistant
    orders = CommandTopics(settings.prefix).filters if settings.mqtt.commands is is_on else ()
    return (*orders, *((birth_topic(house.prefix),) if house.enabled is is_on else ()))


def home_assistant(settings: Settings) -> HomeAssistant:
    house = settings.mqtt.home_assistant
    shown = Gateway(settings.gateway.name, __version__, settings.prefix, tuple(settings.tiers), settings.mqtt.commands)
    record = DiscoveryFile(settings.gateway.data_dir / "home_assistant.json")
    return HomeAssistant(record, house.prefix if house.enabled else None, lambda: shown)
