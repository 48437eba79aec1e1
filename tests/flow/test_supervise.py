"""A service that ends without being asked to is a fault that ends the rest."""

from __future__ import annotations

import asyncio

import pytest
from fakes import until

from mqrouter.flow.supervise import ServiceEndedError, Supervisor


class Service:
    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        self.was_cancelled = False

    async def run(self) -> None:
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error


async def supervise(*services: Service) -> None:
    async with asyncio.timeout(5), Supervisor() as supervisor:
        supervisor.start({f"s{number}": service.run for number, service in enumerate(services)})
        await asyncio.Event().wait()


async def test_service_that_returns_is_a_fault_and_the_others_are_ended() -> None:
    first, second = Service(), Service()
    first.may_end.set()
    with pytest.raises(BaseExceptionGroup) as caught:
        await supervise(first, second)
    assert caught.group_contains(ServiceEndedError, match="s0 ended and nobody asked")
    assert len(caught.value.exceptions) == 1
    assert second.was_cancelled


async def test_error_of_a_service_is_the_one_that_is_raised() -> None:
    first, second = Service(), Service()
    first.error = ValueError("a bug")
    first.may_end.set()
    with pytest.raises(BaseExceptionGroup) as caught:
        await supervise(first, second)
    assert [repr(error) for error in caught.value.exceptions] == [repr(ValueError("a bug"))]
    assert second.was_cancelled


async def test_cancellation_nobody_asked_for_is_a_fault() -> None:
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.timeout(5), Supervisor() as supervisor:
            supervisor.start({"odd": cancels_itself})
            await asyncio.Event().wait()
    assert caught.group_contains(ServiceEndedError, match="odd was cancelled")


async def test_end_that_was_asked_for_is_none() -> None:
    first, second = Service(), Service()
    async with Supervisor() as supervisor:
        supervisor.start({"first": first.run, "second": second.run})
        supervisor.let_end("first")
        first.may_end.set()
        assert await supervisor.wait_for("first", timeout_s=5)
        assert not await supervisor.wait_for("first", "second", timeout_s=0.01)
        assert await supervisor.wait_for("no such", timeout_s=0)
        await supervisor.cancel("second")
        assert second.was_cancelled


async def test_leaving_the_block_ends_every_service() -> None:
    services = [Service() for _ in range(3)]
    async with Supervisor() as supervisor:
        supervisor.start({f"s{number}": service.run for number, service in enumerate(services)})
        await asyncio.sleep(0)
    assert all(service.was_cancelled for service in services)


async def test_error_in_the_block_is_raised_and_ends_every_service() -> None:
    service = Service()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Supervisor() as supervisor:
            supervisor.start({"s": service.run})
            await asyncio.sleep(0)
            raise KeyError("start-up failed")
    assert caught.group_contains(KeyError)
    assert service.was_cancelled


async def test_cancelled_daemon_ends_its_services_without_a_fault() -> None:
    service = Service()
    daemon = asyncio.create_task(supervise(service))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    daemon.cancel()
    await until(daemon.done)
    assert daemon.cancelled()
    assert service.was_cancelled
