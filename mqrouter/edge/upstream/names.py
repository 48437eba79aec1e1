"""The system's name look-up, as aiohttp wants it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """Looks names up on a thread that the process does not wait for at its end: it may hang for long."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where there is no such name."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def end(results: list[ResolveResult], error: OSError | None) -> None:
            if found.done():
                return  # nobody waits any more
            if error is None:
                found.set_result(results)
            else:
                found.set_exception(error)

        def run() -> None:
            results: list[ResolveResult] = []
            error = None
            try:
                results = _look_up(host, port, family)
            except OSError as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended meanwhile
                loop.call_soon_threadsafe(end, results, error)

        threading.Thread(target=run, name="upstream.resolve", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Nothing is kept."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=flags)
        for kind, _, proto, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
    ]
