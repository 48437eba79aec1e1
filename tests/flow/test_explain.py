"""Where a question would go: as the decide stage would say, and nothing kept."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeClock, HashEmbedder, judge

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.privacy import Privacy
from mqrouter.errors import RequestError
from mqrouter.flow.explain import Explain
from mqrouter.flow.judge import Judge
from mqrouter.flow.tiers import TierBoard
from mqrouter.routing.signals import Embedding


def board(clock: FakeClock) -> TierBoard:
    return TierBoard({name: Breaker(1, Backoff(1.0, 60.0)) for name in ("hub", "edge")}, clock, lambda: 0.5)


def explaining(found: Judge | None, embedder: HashEmbedder) -> Explain:
    return Explain(lambda: found, lambda: embedder, board(FakeClock()))


async def test_decision_is_that_of_a_request() -> None:
    found = await explaining(judge(), HashEmbedder()).explain("how are the cows doing")
    assert (found["route"], found["tiers"]) == ("cattle", ("hub", "edge")) or found["tiers"] == ["hub", "edge"]
    assert found["nearest"][0]["example"] == "how are the cows"


async def test_device_and_mark_make_it_private() -> None:
    import dataclasses

    private = dataclasses.replace(judge(), privacy=Privacy(devices=("nurse*",)))
    explain = explaining(private, HashEmbedder())
    assert not (await explain.explain("how are the cows"))["private_by"]
    assert (await explain.explain("how are the cows", device="nurse-3"))["private_by"]
    assert (await explain.explain("how are the cows", is_private=True))["private_by"]


async def test_gateway_that_still_starts_says_so() -> None:
    with pytest.raises(RequestError, match="still starting"):
        await explaining(None, HashEmbedder()).explain("how are the cows")


async def test_one_question_is_looked_at_at_a_time() -> None:
    gate = asyncio.Event()

    class SlowEmbedder(HashEmbedder):
        async def embed(self, text: str) -> Embedding:
            await gate.wait()
            return await super().embed(text)

    explain = explaining(judge(), SlowEmbedder())
    first = asyncio.create_task(explain.explain("how are the cows"), name="first")
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="somebody else"):
        await explain.explain("how are the cows")
    gate.set()
    assert (await first)["route"] == "cattle"
    assert (await explain.explain("how are the cows"))["route"] == "cattle"
