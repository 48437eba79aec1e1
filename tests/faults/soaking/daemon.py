"""The daemon's lives: started, ended and measured."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness import Gateway, Process, poll

STOP_S = 60.0  # on a busy machine, in the middle of everything
READY_S = 120.0
ERRORS = ("Traceback", '"exception"', '"level": "error"', '"level": "critical"')
READY = '"daemon.ready"'


@dataclass
class Life:
    """One process. `is_calm`: nothing else went wrong during its start, so that its length means something."""

    process: Process
    spawned_s: float
    is_calm: bool
    is_ended: bool = False
    peak_kb: int = 0
    peak_at_ready_kb: int = 0

    @property
    def start_s(self) -> float | None:
        """How long it took from spawn to ready, if it came so far."""
        line = next((line for line in list(self.process.lines) if READY in line), None)
        if line is None:
            return None
        return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - self.spawned_s

    @property
    def protocols(self) -> list[str]:
        """The MQTT version of each connection it made."""
        lines = [line for line in list(self.process.lines) if '"mqtt.connected"' in line]
        return [json.loads(line)["protocol"] for line in lines]

    def measure(self) -> None:
        """Reads the largest resident memory so far."""
        peak_kb = _peak_kb(self.process.pid)
        self.peak_kb = max(self.peak_kb, peak_kb)
        if not self.peak_at_ready_kb and self.start_s is not None:
            self.peak_at_ready_kb = peak_kb


class Daemon:
    """Ends and starts a gateway's daemon, by force or politely; an end that nobody asked for is an offence."""

    def __init__(self, gateway: Gateway) -> None:
        self.lives: list[Life] = []
        self.offences: list[str] = []
        self.kills = 0
        self.is_frozen = False
        self._gateway = gateway

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def launch(self, *, is_calm: bool) -> None:
        """Starts it and does not wait."""
        spawned_s = time.time()
        self.lives.append(Life(self._gateway.launch().log, spawned_s, is_calm))

    def kill(self) -> None:
        self._look()
        self._end(signal.SIGKILL)
        self.kills += 1

    def terminate(self) -> None:
        self._look()
        self.thaw()
        was_ready = self.life.start_s is not None
        code = self._end(signal.SIGTERM)
        if code != 0 and was_ready:
            self._offend(f"was ended by SIGTERM with {code}")

    def freeze(self) -> None:
        self.life.process.send(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        if self.is_frozen:
            self.life.process.send(signal.SIGCONT)
        self.is_frozen = False

    def look_after(self) -> None:
        """It is measured, and started again if it ended by itself."""
        self._look()
        if self.life.is_ended:
            self.launch(is_calm=False)

    def wait_until_ready(self) -> None:
        self.thaw()
        self.look_after()
        process = self.life.process
        poll(lambda: not process.is_running or self.life.start_s, lambda: process.text, READY_S)
        assert process.is_running, f"the daemon does not start:\n{process.text}"
        poll(lambda: self._gateway.status()["ready"] or None, lambda: "the daemon lost its broker", READY_S)

    def close(self) -> None:
        """Ends it; no life may have logged an error: nothing that a soak does is one."""
        self.terminate()
        for number, life in enumerate(self.lives, 1):
            bad = [line for line in life.process.lines if any(mark in line for mark in ERRORS)]
            self.offences += [f"life {number} of the daemon logged {len(bad)} errors, as {line}" for line in bad[:1]]

    def _look(self) -> None:
        if self.life.process.is_running:
            self.life.measure()
        elif not self.life.is_ended:
            self.life.is_ended = True
            code = self.life.process.wait()
            self._offend(f"ended by itself with {code}")

    def _end(self, number: signal.Signals) -> int:
        self.life.is_ended, self.is_frozen = True, False
        return self.life.process.end(number, STOP_S)

    def _offend(self, what: str) -> None:
        last_words = "\n".join(f"    {line}" for line in self.life.process.lines[-8:])
        self.offences.append(f"life {len(self.lives)} of the daemon {what}:\n{last_words}")


def _peak_kb(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
