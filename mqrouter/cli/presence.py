"""Whether anybody is there to answer, as the gateway's retained status says."""

from __future__ import annotations

import threading

import click

LISTEN_S = 2.0
"""How long after subscribing a retained status may take; where there is one it comes at once."""


class Presence:
    """Says on stderr that nobody is there, once, and when that changes. Use as a context manager once subscribed."""

    def __init__(self, prefix: str, timeout_s: float) -> None:
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._word = ""
        self._has_warned = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(LISTEN_S, self._look)
        self._timer.daemon = True

    @property
    def is_online(self) -> bool:
        return self._word == "online"

    def __enter__(self) -> Presence:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def heard(self, word: str) -> None:
        with self._lock:
            if word == self._word:
                return
            self._word = word
            if word == "offline":
                self._warn("the gateway is offline: the question waits at the broker until it is back")
            elif word == "online" and self._has_warned:
                click.echo("mqrouter: the gateway is online", err=True)

    def _look(self) -> None:
        with self._lock:
            if not self._word:
                self._warn(
                    f"no gateway was ever online as {self._prefix} at this broker; it may keep the question for none:"
                    " is mqtt.prefix right, and the daemon running?"
                )

    def _warn(self, what: str) -> None:
        self._has_warned = True
        click.echo(f"mqrouter: {what} (waiting for up to {self._timeout_s:g} s)", err=True)
