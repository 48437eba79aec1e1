"""The demo's processes: started one after the other, watched while it waits, stopped in reverse order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TypeVar

T = TypeVar("T")

POLL_S = 0.05
STOP_TIMEOUT_S = 15.0  # above the daemon's own limit for an ordered stop
TAIL_LINES = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo cannot go on; `log` shows why."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class InterruptedDemoError(Exception):
    """Somebody asked the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(eq=False, slots=True)
class Child:
    """One process and the log it writes, leader of a process group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    def tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def stop(self) -> None:
        """The process is gone, and whatever it started."""
        self.process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Children:
    """Use as a context manager: at its end, however it comes, no process is left.

    A signal only sets a flag, which every wait looks at: so none can fall between a start and its bookkeeping.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._services: list[Child] = []
        self._environment = environment()
        self._signal: int | None = None
        self._woken = threading.Event()

    def __enter__(self) -> Children:
        for number in STOP_SIGNALS:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        while self._services:
            self.stop(self._services[-1])

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        self._woken.set()

    def start(self, name: str, *command: str | Path) -> Child:
        """A service runs; its ending unasked ends the demo."""
        log = self._log_dir / f"{name}.log"
        with log.open("ab") as output:
            child = Child(name, self._popen(command, output, output), log, signal.SIGTERM)
        self._services.append(child)
        return child

    def start_announced(self, name: str, *command: str | Path, timeout_s: float) -> Child:
        """A service runs and has written "ready" into its log."""
        before = _count_ready(self._log_dir / f"{name}.log")
        child = self.start(name, *command)
        self.wait_until(lambda: _count_ready(child.log) > before, f"the {name} to be ready", timeout_s)
        return child

    def stop(self, child: Child) -> None:
        self._services.remove(child)
        child.stop()

    def run(self, name: str, *command: str | Path, timeout_s: float, is_shown: bool = False) -> str:
        """Returns the standard output of a command that has ended well, its exit code 0.

        With `is_shown` both its outputs go to standard error as they come. Raises DemoError otherwise.
        """
        with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile(dir=self._log_dir) as errors:
            streams: tuple[IO[bytes] | int, IO[bytes] | int] = (2, 2) if is_shown else (output, errors)
            child = Child(name, self._popen(command, *streams), Path(errors.name), signal.SIGINT)
            try:
                code = self.wait_until(child.process.poll, f"`{name}` to end", timeout_s)
            finally:
                child.stop()
            if code != 0:
                raise DemoError(f"`{name}` ended with status {code}", child.tail())
            output.seek(0)
            return output.read().decode("utf-8", errors="replace")

    def wait_until(self, found: Callable[[], T | None], what: str, timeout_s: float) -> T:
        """Returns what `found` returns once that is neither None nor False.

        Raises DemoError past the limit or where a service has ended, InterruptedDemoError after a signal.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            if self._signal is not None:
                raise InterruptedDemoError(self._signal)
            value = found()
            if value is not None and value is not False:
                return value
            self._raise_for_ended()
            if time.monotonic() > deadline_s:
                raise DemoError(f"waited {timeout_s:.0f} s for {what}", self._newest_tail())
            self._woken.wait(POLL_S)

    def _popen(
        self, command: Sequence[str | Path], output: IO[bytes] | int, errors: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=self._environment,
            # Ctrl-C is for the demo, which then stops them in order.
            start_new_session=True,
        )

    def _raise_for_ended(self) -> None:
        for child in self._services:
            code = child.process.poll()
            if code is not None:
                raise DemoError(f"the {child.name} ended unasked, with status {code}", child.tail())

    def _newest_tail(self) -> str:
        return self._services[-1].tail() if self._services else ""


def environment() -> dict[str, str]:
    """The user's, without settings of mqrouter that belong to another gateway; the models' folder is shared."""
    shared = "MQROUTER_GATEWAY__MODELS_DIR"
    return {name: value for name, value in os.environ.items() if not name.startswith("MQROUTER_") or name == shared}


def _count_ready(log: Path) -> int:
    return log.read_text(encoding="utf-8", errors="replace").splitlines().count("ready") if log.exists() else 0
