"""Keeps Home Assistant told of this gateway as a device; takes it away again once that is switched off."""

from __future__ import annotations

import json
from collections.abc import Callable

from mqrouter.core.discovery import BIRTH, Gateway, announced, birth_topic, config_topic, device_config
from mqrouter.core.request import OutMessage
from mqrouter.flow.ports import DiscoveryRecord


class HomeAssistant:
    """Without a `prefix` it is switched off: then what an earlier life announced is removed, and no more.

    `record` remembers, across lives, what has been announced.
    """

    def __init__(self, record: DiscoveryRecord, prefix: str | None, gateway: Callable[[], Gateway]) -> None:
        self._record = record
        self._prefix = prefix
        self._gateway = gateway
        self._before = record.read()
        self._is_due = True
        self.is_leaving = False
        """The device's removal has been sent, and may yet be lost with its connection."""

    def connected(self) -> None:
        self._is_due = True
        self.is_leaving = False

    def take_birth(self, topic: str | None, payload: bytes) -> bool:
        if self._prefix is None or topic != birth_topic(self._prefix):
            return False
        self._is_due |= payload == BIRTH
        return True

    def due(self) -> list[OutMessage]:
        """Returns what is to be retained now; each is `told` once it is sent."""
        if not self._is_due:
            return []
        wanted = None if self._prefix is None else config_topic(self._prefix, self._gateway().name)
        stale = self._before is not None and self._before.topic != wanted
        found = [_message(self._before.topic, b"")] if self._before is not None and stale else []
        if wanted is not None:
            gone = self._before.components if self._before is not None and not stale else {}
            found.append(_message(wanted, json.dumps(device_config(self._gateway(), gone)).encode()))
        self._is_due = bool(found)
        return found

    def told(self, message: OutMessage) -> None:
        if message.payload:
            self._record.write(announced(message.topic, device_config(self._gateway(), {})))
            self._is_due = False
        elif self._prefix is None:
            self.is_leaving, self._is_due = True, False

    def settled(self) -> None:
        """The connection still stands: what was removed over it need not be removed again."""
        if self.is_leaving:
            self._record.forget()
            self._before, self.is_leaving = None, False


def _message(topic: str, payload: bytes) -> OutMessage:
    return OutMessage(topic, payload, None, "application/json", ())
