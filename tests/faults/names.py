"""A name server that keeps silent until told otherwise, and how to start a daemon that knows no other."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import WAIT_S, Signal

ADDRESS = "127.53.53.53"
PORT = 53  # resolv.conf(5) knows no other
TYPE_A = 1
MOUNT = 'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'


class NameServer:
    """Use as a context manager. A look-up hangs for `retry_s` * `tries`, unless names are answered before."""

    def __init__(self, folder: Path, *, retry_s: int = 2, tries: int = 5) -> None:
        self.asked: list[str] = []
        self._folder = folder
        self._options = f"nameserver {ADDRESS}\noptions timeout:{retry_s} attempts:{tries}\n"
        self._address: str | None = None
        self._heard = Signal()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        try:
            self._socket.bind((ADDRESS, PORT))
        except PermissionError:
            _cannot("needs root, for port 53 and a mount of its own")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goodbye:
            goodbye.sendto(b"", (ADDRESS, PORT))
        self._thread.join(WAIT_S)
        self._socket.close()

    def answer(self, address: str) -> None:
        """From now on every name has this IPv4 address."""
        self._address = address

    def wait_for_look_up(self, name: str, number: int = 1) -> None:
        self._heard.wait(lambda: self.asked.count(name) >= number or None, lambda: f"{name} in {self.asked}")

    def through(self) -> Sequence[str]:
        """The start of a command line: what follows runs with this name server and no other."""
        if shutil.which("unshare") is None:
            _cannot("needs unshare (Debian package `util-linux`)")
        resolv, nsswitch = self._folder / "resolv.conf", self._folder / "nsswitch.conf"
        resolv.write_text(self._options, encoding="ascii")
        nsswitch.write_text("hosts: files dns\n", encoding="ascii")
        through = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", str(resolv), str(nsswitch)]
        if subprocess.run([*through, "true"], capture_output=True, timeout=WAIT_S).returncode != 0:
            _cannot("needs the right to mount (CAP_SYS_ADMIN)")
        return through

    def _serve(self) -> None:
        while query := self._receive():
            data, sender = query
            name, kind, end = _question(data)
            self._heard.give(lambda name=name: self.asked.append(name))  # type: ignore[misc]
            if self._address is not None:
                self._socket.sendto(_reply(data[:end], kind, self._address), sender)

    def _receive(self) -> tuple[bytes, tuple[str, int]] | None:
        data, sender = self._socket.recvfrom(512)
        return (data, sender) if data else None


def _question(query: bytes) -> tuple[str, int, int]:
    """Returns the name asked for, the type, and where the question ends (RFC 1035, section 4.1)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels), kind, at + 5


def _reply(query: bytes, kind: int, address: str) -> bytes:
    """Returns one A record; for any other type, that there is none."""
    answers = 1 if kind == TYPE_A else 0
    header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, answers, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, TYPE_A, 1, 1, 4) + socket.inet_aton(address)
    return header + query[12:] + record * answers


def _cannot(reason: str) -> None:
    """Skips the test, and fails it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
