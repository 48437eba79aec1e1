"""The local chat model as a tier: a worker process, started on demand, replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog

from mqrouter.core.answer_signals import Evidence
from mqrouter.core.backoff import Backoff
from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.errors import ModelError, ModelFileError, TransientError, UnreachableError

log = structlog.get_logger("chat")

RESTARTS = Backoff(min_s=0.5, max_s=60.0)
CANCEL_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ChatOptions:
    model: str
    max_tokens: int
    temperature: float
    first_token_timeout_s: float


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the worker."""

    arguments: Sequence[str]
    """Of the Python interpreter."""
    model_mb: float = 0.0
    """Size of the model's file, 10^6 bytes."""
    fingerprint: str | None = None


class WorkerState(StrEnum):
    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"


class ChatWorker:
    """One generation at a time. `launch` raises ModelFileError without a model.

    `why_not_load` is asked before every start with the model's size in megabytes: memory may be short.
    """

    def __init__(
        self,
        options: ChatOptions,
        launch: Callable[[], Launch],
        *,
        why_not_load: Callable[[float], str | None] = lambda model_mb: None,
    ) -> None:
        self._options = options
        self._launch = launch
        self._why_not_load = why_not_load
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._number = 0
        self._crashes = 0
        self._not_before_s = 0.0
        self._loaded: Launch | None = None
        self._is_ready = False
        self._ended_because: str | None = None
        """Why this process was ended on purpose in the middle of a generation."""
        self._unload_because: str | None = None
        """Why it is to be unloaded once the generation under way has ended."""
        self.unloaded_because: str | None = None
        self.used_at_s = time.monotonic()
        """When the last generation ended."""
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def state(self) -> WorkerState:
        if self.pid is None:
            return WorkerState.UNLOADED
        if not self._is_ready:
            return WorkerState.LOADING
        return WorkerState.BUSY if self._turn.locked() else WorkerState.READY

    @property
    def model_mb(self) -> float:
        return 0.0 if self._loaded is None else self._loaded.model_mb

    @property
    def idle_s(self) -> float:
        """How long ago the last generation ended; 0 while there is one."""
        return 0.0 if self._turn.locked() else time.monotonic() - self.used_at_s

    async def start(self) -> None:
        """The model is loaded. Raises UnreachableError where that fails."""
        async with self._turn:
            await self._ensure_started()

    async def stream(self, call: TierCall) -> AsyncGenerator[TierEvent, None]:
        """Yields the answer as it is generated; leaving the loop early ends the generation at its next token."""
        async with self._turn:
            await self._ensure_started()
            self._number += 1
            number, is_done = self._number, False
            self._ended_because = None
            try:
                await self._order(call, number)
                limit_s = self._options.first_token_timeout_s
                while not is_done:
                    message = await self._next(limit_s)
                    if message.get("id") != number:
                        continue
                    limit_s = call.deadline_s
                    if "error" in message:
                        is_done = True
                        raise ModelError(f"the local model failed: {message['error']}")
                    is_done = "done" in message
                    if is_done:
                        self._crashes = 0  # not before: a model may well die in its tenth word, every time
                    yield self._done(message["done"]) if is_done else Delta(message["text"])
            finally:
                if not is_done:
                    await self._cancel(number)
                self.used_at_s = time.monotonic()
                if self._unload_because is not None:
                    await self._unload(self._unload_because)

    async def unload(self, why: str, *, if_idle_s: float = 0.0) -> None:
        """The memory is free again, or will be after the generation under way; the next question loads the model again.

        With `if_idle_s` nothing happens where there was a question within that time.
        """
        if self._turn.locked():  # nobody waits here: whoever watches the memory has to go on watching
            if not if_idle_s:
                self._unload_because = why
            return
        async with self._turn:
            if self.pid is not None and time.monotonic() - self.used_at_s >= if_idle_s:
                await self._unload(why)

    async def _unload(self, why: str) -> None:
        await self.close()
        self.unloaded_because, self._unload_because = why, None
        log.info("chat.worker_unloaded", why=why)

    async def end_now(self, why: str) -> None:
        """The memory is free again, at once: a generation under way fails with UnreachableError."""
        if self.pid is not None:
            self._ended_because = self.unloaded_because = why
            log.warning("chat.worker_ended", why=why)
            await self._kill()

    async def probe(self) -> bool:
        try:
            await self.start()
        except UnreachableError as error:
            log.warning("chat.start_failed", error=str(error))
            return False
        return True

    async def close(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()  # its end ends the worker
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            await self._kill()

    # --- the process --------------------------------------------------------------------------------

    async def _ensure_started(self) -> None:
        if self.pid is not None:
            return
        wait_s = self._not_before_s - time.monotonic()
        if wait_s > 0:
            raise UnreachableError(f"the local model crashed; it is started again in {wait_s:.0f} s")
        try:
            launch = await asyncio.get_running_loop().run_in_executor(None, self._launch)
        except ModelFileError as error:
            raise UnreachableError(str(error)) from error
        if (why := self._why_not_load(launch.model_mb)) is not None:
            self.unloaded_because = why
            raise UnreachableError(why)
        started_s = time.monotonic()
        self._is_ready, self._loaded, self._ended_because, self._unload_because = False, launch, None, None
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *launch.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C goes to a terminal's whole group: what is in hand is for the drain
            )
        except OSError as error:  # no memory or no process left
            raise UnreachableError(f"the local model cannot be started: {error}") from error
        self.starts += 1
        try:
            await self._next(self._options.first_token_timeout_s)  # {"ready": true}
        except TransientError as error:
            raise UnreachableError(str(error)) from error
        self._is_ready, self.unloaded_because, self.used_at_s = True, None, time.monotonic()
        log.info("chat.worker_started", pid=self.pid, elapsed_ms=round(1000 * (time.monotonic() - started_s)))

    async def _order(self, call: TierCall, number: int) -> None:
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        await self._write(
            {
                "id": number,
                "messages": messages,
                "max_tokens": self._options.max_tokens,
                "temperature": self._options.temperature,
            }
        )

    async def _write(self, order: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise await self._crashed() from error

    async def _next(self, limit_s: float) -> dict[str, Any]:
        """Returns the worker's next message. Raises TransientError where it hangs or has died."""
        assert self._process is not None and self._process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            await self._kill()
            raise TransientError(f"the local model said nothing for {limit_s:g} s") from error
        if not line.endswith(b"\n"):
            raise await self._crashed()
        message: dict[str, Any] = json.loads(line)
        return message

    async def _crashed(self) -> TransientError:
        assert self._process is not None
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:  # it closed its output and lives on: of no use any more
            await self._kill()
        if self._ended_because is not None:
            return UnreachableError(self._ended_because)
        code = self._process.returncode
        self._crashes += 1
        self.unloaded_because = f"the worker ended with code {code}"
        # The first crash is replaced at once; the full ceiling from the second on, no jitter: nobody competes.
        self._not_before_s = time.monotonic() + (RESTARTS.ceiling_s(self._crashes - 1) if self._crashes > 1 else 0)
        log.error("chat.worker_died", code=code, crashes=self._crashes)
        return TransientError(f"the local model's process ended with code {code}")

    async def _cancel(self, number: int) -> None:
        """The generation has ended, or its process has: nothing of it is left for the next one."""
        if self.pid is None:
            return
        try:
            await self._write({"cancel": number})
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while True:
                    message = await self._next(CANCEL_TIMEOUT_S)
                    if message.get("id") == number and ("done" in message or "error" in message):
                        return
        except (TimeoutError, TransientError):
            await self._kill()

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _done(self, done: dict[str, Any]) -> Done:
        return Done(
            finish_reason=done["finish_reason"],
            model=self._options.model,
            prompt_tokens=max(0, done["prompt_tokens"]),
            completion_tokens=done["completion_tokens"],
            evidence=Evidence(done["mean_logprob"], done["least_logprob"]) if "mean_logprob" in done else None,
            fingerprint=None if self._loaded is None else self._loaded.fingerprint,
        )
