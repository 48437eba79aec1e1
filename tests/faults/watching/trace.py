"""What the daemon and its children sent, and where to: read from strace, which sees every socket there is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil
from tracing import need

from watching.marks import count_bytes, signs

CALLS = "connect,sendto,sendmsg,sendmmsg,write,writev"
END_S = 30.0
INTERNET = (b"TCP", b"UDP")
UNKNOWN = 0
"""In place of a port: a socket that strace did not see being connected."""
_CALL = re.compile(rb"\d+ +(?P<call>\w+)\((?P<fd>\d+)<(?P<kind>[A-Za-z0-9]+):\[(?:[^\]]*->[^\]]*:(?P<peer>\d+)\]>)?")
_PORT = re.compile(rb"sin6?_port=htons\((\d+)\)")


def tracing(log: Path) -> Sequence[str]:
    """Returns the program to run the daemon through; strace goes beside it and ends with it."""
    strace = [need("strace", "strace"), "-D", "-f", "-q", "--seccomp-bpf", "-yy", "-s", "100000", "-o", str(log)]
    return [*strace, "-e", f"trace={CALLS}", "-e", "signal=none"]


def tracer(log: Path) -> psutil.Process:
    """Returns the strace that writes this log."""
    [found] = [one for one in psutil.process_iter(["name", "cmdline"]) if _writes(one, log)]
    return found


def _writes(process: psutil.Process, log: Path) -> bool:
    return process.info["name"] == "strace" and str(log) in (process.info["cmdline"] or ())


class Sent:
    """Adds up what went to each port, and the private bytes in it."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        """Connections and messages by port."""
        self.private: Counter[int] = Counter()
        """Private bytes by port."""

    def read(self, log: Path) -> None:
        """Reads the log of one life, which has ended."""
        port_of: dict[bytes, int] = {}  # by descriptor: only the process that serves the broker has any
        for line in log.read_bytes().splitlines():
            found = _CALL.match(line)
            if found is None or not found["kind"].startswith(INTERNET):
                continue
            if (named := _PORT.search(line) if found["call"] == b"connect" else None) is not None:
                port_of[found["fd"]] = int(named[1])
            port = port_of.get(found["fd"], UNKNOWN) if found["peer"] is None else int(found["peer"])
            self.calls[port] += 1
            if private := count_bytes(line, signs()):
                self.private[port] += private

    def strangers(self, known: Collection[int]) -> dict[int, int]:
        """Returns the ports that nobody named, and how often they were used."""
        return {port: number for port, number in self.calls.items() if port not in known}
