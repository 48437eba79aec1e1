"""Learning in a process of its own, at the lowest priority: the event loop and its neighbours go on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from mqrouter.errors import MqrouterError

LOWEST_PRIORITY = 19
TIMEOUT_S = 3_600.0
ARGUMENTS = ("train", "--from-feedback", "--if-not-worse", "--json")
KEPT_OF_ERRORS = 500


class TrainingFailedError(MqrouterError):
    """Look at the message: the configuration, the model or the room for files is not as it was."""


class Trainer:
    """Runs `mqrouter train` on the configuration in file `config`; vectors are cached in `cache_dir`."""

    def __init__(self, config: Path, cache_dir: Path) -> None:
        self._config = config
        self._cache_dir = cache_dir

    async def retrain(self) -> dict[str, Any]:
        """Returns what the command said. Raises TrainingFailedError; cancelling ends the process."""
        environment = os.environ | {
            "XDG_CACHE_HOME": str(self._cache_dir),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "mqrouter", *ARGUMENTS, "-c", str(self._config)]
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=null, stdout=pipe, stderr=pipe, env=environment
            )
        except OSError as error:
            raise TrainingFailedError(f"the training could not be started: {error}") from error
        try:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
            async with asyncio.timeout(TIMEOUT_S):
                stdout, stderr = await process.communicate()
        except TimeoutError as error:
            raise TrainingFailedError(f"the training took longer than {TIMEOUT_S:.0f} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return _outcome(process.returncode, stdout, stderr)


def _outcome(code: int | None, stdout: bytes, stderr: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(stdout)
    except ValueError as error:
        said = stderr.decode("utf-8", "replace").strip()[-KEPT_OF_ERRORS:]
        raise TrainingFailedError(f"the training ended with {code}: {said}") from error
    return found
