"""A daemon that runs and does not answer is told from one that is down, and is given no order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mqrouter.cli import daemon
from mqrouter.cli.daemon import DaemonDownError, DaemonSilentError, exchange


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listens at control.sock for one at a time, as a stopped process does, and says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(daemon, "TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind("control.sock")
        listening.listen(1)
        yield listening


def test_silent_daemon_is_said_to_run_and_how_to_go_on(silent: socket.socket) -> None:
    with pytest.raises(DaemonSilentError, match=r"the daemon runs but has not answered for 0.05 s.*systemctl restart"):
        exchange(Path("control.sock"), "GET", "/v1/status", timeout_s=0.05)


def test_silent_daemon_at_which_others_wait_already_is_not_said_to_be_down(silent: socket.socket) -> None:
    with ExitStack() as stack:
        while True:
            other = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            other.setblocking(False)
            try:
                other.connect("control.sock")
            except BlockingIOError:
                break
        with pytest.raises(DaemonSilentError):
            exchange(Path("control.sock"), "GET", "/v1/status", timeout_s=0.05)


def test_silent_daemon_is_given_no_order_that_it_would_carry_out_later(silent: socket.socket) -> None:
    with pytest.raises(DaemonSilentError) as said:
        exchange(Path("control.sock"), "POST", "/v1/pause", timeout_s=60.0)
    assert "may still be carried out" not in str(said.value)
    accepted, _ = silent.accept()
    with accepted:
        assert accepted.recv(4096).startswith(b"GET /livez ")
    silent.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent.accept()


def test_order_that_was_taken_and_not_answered_may_still_be_carried_out() -> None:
    assert "may still be carried out: see `mqrouter queue actions`" in str(DaemonSilentError(60.0, is_order=True))


def test_nobody_at_the_socket_is_a_daemon_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(DaemonDownError):
        exchange(tmp_path / "control.sock", "GET", "/v1/status")
