"""System calls that fail or kill: strace around the daemon, from outside and without a change to it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from harness import Process

SENDS = "sendto,sendmsg,write,writev"
RECEIVES = "recvfrom,recvmsg,read,readv"


def need(program: str, package: str) -> str:
    """Returns where the program lies. Without it the test fails in CI; elsewhere it is skipped with a word on why."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        give_up_without(f"{program} is missing: install the package {package}")
    return found


def give_up_without(what: str) -> NoReturn:
    """For what a machine may lack: visible either way, and an error where all tests have to run."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def injecting(call: str, action: str, when: int | str, *, log: Path | None = None) -> Sequence[str]:
    """Returns the program to run the daemon through, so that `action` happens at the `when`-th `call` of a thread.

    `call`: one or more names, as "sendto,send". `action`: as strace's -e inject takes it, such as "signal=SIGKILL"
    (the call itself does not happen any more) or "error=EIO". `when`: as there, "3" or "3+" or "3+2". The daemon is the
    started process itself: strace goes beside it, and ends with it. Every system call of its start is slowed down: it
    takes three times as long. `log` gets the traced calls.
    """
    output = "/dev/null" if log is None else str(log)
    return [need("strace", "strace"), "-D", "-f", "-q", "-q", "-o", output, *_injection(call, action, when)]


def inject_into(pid: int, call: str, action: str, when: int | str) -> Process:
    """Injects from now on, into the threads beside the main one; returns strace, which ends with the process."""
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return _attach([thread for thread in threads if thread != pid], _injection(call, action, when))


def inject_into_socket(pid: int, port: int, call: str, action: str, when: int | str = 1) -> Process:
    """Injects from now on into what the main thread does (SENDS, RECEIVES) on its connection to this port."""
    connections = psutil.Process(pid).net_connections("tcp")
    [fd] = [one.fd for one in connections if one.raddr and one.raddr.port == port]
    name = Path(f"/proc/{pid}/fd/{fd}").readlink()
    return _attach([pid], ["-P", str(name), *_injection(call, action, when)])


def _attach(threads: Sequence[int], options: Sequence[str]) -> Process:
    attached = [argument for thread in threads for argument in ("-p", str(thread))]
    strace = Process([need("strace", "strace"), "-o", "/dev/null", *attached, *options])
    for thread in threads:
        pattern = re.compile(rf"Process {thread} attached|SEIZE, {thread}\)")  # or it has just ended
        strace.wait_for_line(lambda line, pattern=pattern: pattern.search(line) is not None)  # type: ignore[misc]
    return strace


def _injection(call: str, action: str, when: int | str) -> list[str]:
    return ["-e", f"trace={call}", "-e", "signal=none", "-e", f"inject={call}:{action}:when={when}"]
