"""Finds out in a child process how a model can be loaded on this machine without crashing, and remembers it.

llama.cpp's AMX path dies on some virtual machines that advertise AMX, with a signal no `except` catches. So
the first call of every model on every machine happens where it can do no harm.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mqrouter.errors import ModelFileError
from mqrouter.models import manifest
from mqrouter.models.catalogue import Purpose
from mqrouter.models.files import read_json_table, write_json
from mqrouter.models.loading import LoadProfile

MEMORY_FILE = "survival.json"
VERSION = 1
MAX_REMEMBERED = 64
# A cold SD card reads 10 to 20 MB/s, and loading may read the file twice.
BASE_TIMEOUT_S = 30.0
SLOWEST_BYTES_PER_S = 5e6

CRASHES = frozenset({signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT})

_CPU_KEYS = frozenset({"model name", "flags", "Features", "CPU implementer", "CPU part", "CPU revision", "Model"})


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How a child ended: a negative `returncode` is a signal, None means killed at the time limit."""

    returncode: int | None
    stderr: str = ""


Runner = Callable[[Sequence[str], float], ChildResult]


@dataclass(frozen=True, slots=True)
class Trial:
    """One profile in one child. `signal` is the number it died of; `detail` is for people."""

    profile: LoadProfile
    survived: bool
    signal: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.profile}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """`profile` is the fastest that lived; `trials` ends with it. `at` is in seconds since 1970."""

    profile: LoadProfile
    trials: tuple[Trial, ...]
    at: float
    was_remembered: bool = False

    def __str__(self) -> str:
        deaths = ", ".join(str(trial) for trial in self.trials if not trial.survived)
        return f"runs with profile {self.profile}" + (f" ({deaths})" if deaths else "")


def run_child(command: Sequence[str], timeout_s: float) -> ChildResult:
    """Runs a command to its end, or kills it at the time limit."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_child_environment(),
            # A Ctrl-C meant for the parent is no crash of the model.
            start_new_session=True,
            timeout=timeout_s,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ChildResult(None)
    return ChildResult(done.returncode, done.stderr)


def find_profile(
    path: Path,
    purpose: Purpose,
    memory_file: Path,
    *,
    runner: Runner = run_child,
    forget: bool = False,
    now: Callable[[], float] = time.time,
) -> ProbeOutcome:
    """The fastest profile under which this model lives here; blocks while children run, unless remembered.

    `forget` probes anew. Raises ModelFileError with the fate of every profile where none lives.
    """
    key = _key(path, purpose)
    if not forget and (known := _recall(memory_file, key)):
        return known
    trials: list[Trial] = []
    for trial in _trials(path, purpose, runner):
        trials.append(trial)
        if trial.survived:
            outcome = ProbeOutcome(trial.profile, tuple(trials), now())
            if _is_lasting(trials):
                _remember(memory_file, key, path, outcome)
            return outcome
    fates = "; ".join(map(str, trials))
    raise ModelFileError(
        f"{path}: the model does not run on this machine ({fates}): "
        f"run `mqrouter models verify`, free memory, or rebuild llama-cpp-python for this processor"
    )


def recall(path: Path, purpose: Purpose, memory_file: Path) -> ProbeOutcome | None:
    """What an earlier probe found; starts no child."""
    return _recall(memory_file, _key(path, purpose))


def timeout_s(size_bytes: int) -> float:
    return BASE_TIMEOUT_S + size_bytes / SLOWEST_BYTES_PER_S


def machine_fingerprint() -> str:
    """Changes with the processor, what of it the kernel shows, and the build of llama.cpp."""
    facts = [platform.machine(), *_processor(), *_library()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _trials(path: Path, purpose: Purpose, runner: Runner) -> Iterator[Trial]:
    limit = timeout_s(path.stat().st_size)
    for profile in LoadProfile:
        command = [sys.executable, "-m", "mqrouter.models.survival_child", purpose, profile, str(path)]
        yield _judge(profile, runner(command, limit), limit)


def _judge(profile: LoadProfile, result: ChildResult, limit_s: float) -> Trial:
    match result.returncode:
        case 0:
            return Trial(profile, survived=True, detail="survived")
        case None:
            return Trial(profile, survived=False, detail=f"no answer within {limit_s:.0f} s")
        case int(code) if code < 0:
            return Trial(profile, survived=False, signal=-code, detail=f"died of {_signal_name(-code)}")
        case code:
            last = result.stderr.strip().rpartition("\n")[2]
            return Trial(profile, survived=False, detail=f"ended with status {code}: {last}")


def _is_lasting(trials: Sequence[Trial]) -> bool:
    """False after SIGKILL, SIGTERM and their like: they came from outside (memory ran out, the machine went
    down) and say nothing about the processor."""
    return all(trial.signal is None or trial.signal in CRASHES for trial in trials)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _key(path: Path, purpose: Purpose) -> str:
    record = manifest.for_file(path)
    status = path.stat()
    if record and record.size == status.st_size:
        return f"{machine_fingerprint()} {purpose} sha256:{record.sha256}"
    return f"{machine_fingerprint()} {purpose} {path.name}:{status.st_size}:{status.st_mtime_ns}"


def _processor() -> Iterator[str]:
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        yield platform.processor()
        return
    for line in first.splitlines():
        if line.partition("\t")[0].strip(": ") in _CPU_KEYS:
            yield line


def _library() -> Iterator[str]:
    """The version, and what tells a rebuilt library from the one it replaced, without loading either."""
    try:
        yield version("llama-cpp-python")
    except PackageNotFoundError:
        yield "unknown"
    spec = find_spec("llama_cpp")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in sorted(Path(folder, "lib").glob("libggml-cpu*")):
            status = library.stat()
            yield f"{library.name} {status.st_size} {status.st_mtime_ns}"


def _child_environment() -> dict[str, str]:
    """The child must find this very package, also in a checkout that is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _recall(memory_file: Path, key: str) -> ProbeOutcome | None:
    row = _outcomes(memory_file).get(key)
    try:
        return ProbeOutcome(
            profile=LoadProfile(row["profile"]),
            trials=tuple(_trial(trial) for trial in row["trials"]),
            at=float(row["at"]),
            was_remembered=True,
        ) if row else None  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _trial(row: dict[str, Any]) -> Trial:
    number = row["signal"]
    return Trial(
        LoadProfile(row["profile"]),
        bool(row["survived"]),
        None if number is None else int(number),
        str(row["detail"]),
    )


def _remember(memory_file: Path, key: str, path: Path, outcome: ProbeOutcome) -> None:
    """A folder that cannot be written costs the next start a probe, and nothing else."""
    row = {
        "file": path.name,
        "profile": outcome.profile,
        "trials": [asdict(trial) for trial in outcome.trials],
        "at": outcome.at,
    }
    rows = {**{old: value for old, value in _outcomes(memory_file).items() if old != key}, key: row}
    latest = sorted(rows.items(), key=lambda item: _age(item[1]))[-MAX_REMEMBERED:]
    try:
        write_json(memory_file, {"version": VERSION, "outcomes": dict(latest)})
    except OSError:
        return


def _age(row: Any) -> float:
    at = row.get("at") if isinstance(row, dict) else None
    return at if isinstance(at, int | float) else 0.0


def _outcomes(memory_file: Path) -> dict[str, Any]:
    outcomes = read_json_table(memory_file).get("outcomes")
    return outcomes if isinstance(outcomes, dict) else {}
