"""The demo's MQTT broker, a process of its own: python tools/demo_parts/broker.py PORT.

Says "ready" on standard output once it listens. amqtt speaks MQTT 3.1.1 and keeps everything in memory:
good enough for loopback, not for a farm.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Any

from amqtt.broker import Broker
from amqtt.mqtt.connect import ConnectPayload

CONFIG = {
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}
MQTT_3_1_1 = 4


def refuse_other_versions() -> None:
    """A CONNECT of MQTT 5 gets the refusal that amqtt means to send.

    Left alone it reads the properties as a client id, finds no will after them, and neither answers nor hangs up.
    """
    read_all = ConnectPayload.from_stream

    async def read(reader: Any, fixed_header: Any, variable_header: Any) -> Any:
        if variable_header is None or variable_header.proto_level == MQTT_3_1_1:
            return await read_all(reader, fixed_header, variable_header)
        unread = ConnectPayload()
        unread.client_id, unread.will_topic, unread.will_message = "unread", "", b""
        return unread

    ConnectPayload.from_stream = read


async def serve(port: int) -> None:
    """Returns after SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    broker = Broker(CONFIG | {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}})
    await broker.start()
    print("ready", flush=True)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    refuse_other_versions()
    asyncio.run(serve(int(sys.argv[1])))
