"""Named services in one task group: one that ends without being asked to is a fault that ends the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mqrouter.errors import MqrouterError

Service = Callable[[], Awaitable[None]]


class ServiceEndedError(MqrouterError):
    """Restart the process: a part of it stopped working."""


class Supervisor:
    """Use as an async context manager around the daemon's life."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._may_end: set[str] = set()

    async def __aenter__(self) -> Supervisor:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.cancel(*self._tasks)
        await self._group.__aexit__(kind, error, trace)  # type: ignore[arg-type]

    def start(self, services: Mapping[str, Service]) -> None:
        for name, run in services.items():
            self._tasks[name] = self._group.create_task(self._watch(name, run), name=name)

    def let_end(self, *names: str) -> None:
        """From here on these services may end by themselves: they were asked to."""
        self._may_end.update(names)

    async def wait_for(self, *names: str, timeout_s: float) -> bool:
        """Returns True once all of them have ended, False after `timeout_s`."""
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        if not tasks:
            return True
        _, pending = await asyncio.wait(tasks, timeout=max(0.0, timeout_s))
        return not pending

    async def cancel(self, *names: str) -> None:
        """Ends services and waits until they are gone."""
        self.let_end(*names)
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _watch(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except asyncio.CancelledError:
            if name in self._may_end or self._is_group_ending():
                raise
            raise ServiceEndedError(f"the service {name} was cancelled and nobody asked for that") from None
        if name not in self._may_end:
            raise ServiceEndedError(f"the service {name} ended and nobody asked it to")

    def _is_group_ending(self) -> bool:
        # Another service failed: the task group cancels the rest.
        return any(task.done() and not task.cancelled() and task.exception() for task in self._tasks.values())
