"""The bench asks tiers as the daemon does: the next one after a failure, none that is known to be down."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fakes import FakeClock, ScriptedTier, judge

from mqrouter.bench.answering import Answering, AnsweringTier, Judging, Price
from mqrouter.core.answer_signals import Evidence
from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.events import Done
from mqrouter.core.request import Form, Message, Question
from mqrouter.errors import CredentialsError, ModelError, PermanentError, TransientError, UnreachableError
from mqrouter.flow.tiers import TierBoard

QUESTION = Question("how are the cows?", (Message("user", "how are the cows?"),), Form.TEXT)
TIERS = ("edge", "hub")


def answering(
    clock: FakeClock, *, prices: Sequence[Price | None] = (None, None), **clients: ScriptedTier
) -> tuple[Answering, TierBoard]:
    tiers = {
        name: AnsweringTier(client, name == "edge", 60.0, price)
        for (name, client), price in zip(clients.items(), prices, strict=False)
    }
    board = TierBoard({name: Breaker(3, Backoff(1, 60)) for name in tiers}, clock, lambda: 0.0)
    return Answering(tiers, board, clock, max_attempts=8, timer_s=clock.monotonic_s), board


async def test_first_tier_answers(clock: FakeClock) -> None:
    edge, hub = ScriptedTier(["fine", Done("stop", "smol", 7, 2)]), ScriptedTier(["hub"])
    tiers, _ = answering(clock, edge=edge, hub=hub)
    found = await tiers.answer("q1", QUESTION, TIERS, "Be brief.")
    assert (found.is_answered, found.tier, found.model) == (True, "edge", "smol")
    assert (found.prompt_tokens, found.completion_tokens, found.cost) == (7, 2, None)
    assert (found.first_token_ms, found.answer_ms) == (0.0, 0.0)
    assert [message.content for message in edge.calls[0].messages] == ["Be brief.", "how are the cows?"]
    assert (edge.calls[0].request_id, hub.calls) == ("q1", [])


@pytest.mark.parametrize(
    "error",
    [TransientError("busy"), UnreachableError("gone"), PermanentError("no"), CredentialsError("key"), ModelError("?")],
)
async def test_failure_leads_to_the_next_tier(clock: FakeClock, error: Exception) -> None:
    tiers, _ = answering(clock, edge=ScriptedTier(error), hub=ScriptedTier(["fine"]))
    found = await tiers.answer("q1", QUESTION, TIERS, None)
    assert (found.is_answered, found.tier) == (True, "hub")
    assert tiers.failures == {f"edge: {error}": 1}


async def test_answer_not_fit_to_send_goes_up_and_its_tokens_are_paid_for(clock: FakeClock) -> None:
    edge = ScriptedTier(["half an ans", Done("length", "smol", 10, 100)])
    hub = ScriptedTier(["whole", Done("stop", "big", 20, 30)])
    prices = [Price(1.0, 2.0), Price(10.0, 20.0)]
    tiers, _ = answering(clock, prices=prices, edge=edge, hub=hub)
    found = await tiers.answer("q1", QUESTION, TIERS, None)
    assert (found.tier, found.prompt_tokens, found.completion_tokens) == ("hub", 30, 130)
    assert found.cost == pytest.approx((10 + 200 + 200 + 600) / 1e6)


@pytest.mark.parametrize("prices", [[Price(1, 1), None], [None, Price(1, 1)]])
async def test_cost_is_unknown_where_a_tier_has_no_price(clock: FakeClock, prices: list[Price | None]) -> None:
    edge = ScriptedTier(["", Done("stop", "smol", 10, 1)])
    tiers, _ = answering(clock, prices=prices, edge=edge, hub=ScriptedTier(["fine"]))
    assert (await tiers.answer("q1", QUESTION, TIERS, None)).cost is None


async def test_truncated_answer_of_the_last_tier_stands(clock: FakeClock) -> None:
    tiers, _ = answering(clock, edge=ScriptedTier(["half", Done("length", "smol")]))
    assert (await tiers.answer("q1", QUESTION, ("edge",), None)).is_answered


@pytest.mark.parametrize(("strategy", "tier"), [("cascade", "hub"), ("semantic", "edge")])
async def test_local_answer_is_judged_as_the_daemon_does(clock: FakeClock, strategy: str, tier: str) -> None:
    unsure = Done("stop", "smol", 7, 2, Evidence(-2.0, -4.0))
    tiers, _ = answering(clock, edge=ScriptedTier(["perhaps", unsure]), hub=ScriptedTier(["fine"]))
    found = await tiers.answer("q1", QUESTION, TIERS, None, Judging(judge(), strategy))
    assert found.tier == tier


async def test_tier_that_is_down_is_left_alone_until_its_probe(clock: FakeClock) -> None:
    edge, hub = ScriptedTier(UnreachableError("gone"), ["back"]), ScriptedTier(["fine"])
    tiers, board = answering(clock, edge=edge, hub=hub)
    assert (await tiers.answer("q1", QUESTION, TIERS, None)).tier == "hub"
    assert not board.is_available("edge")
    assert (await tiers.answer("q2", QUESTION, TIERS, None)).tier == "hub"
    assert len(edge.calls) == 1
    clock.advance(1.0)
    assert (await tiers.answer("q3", QUESTION, TIERS, None)).tier == "edge"
    assert edge.probed == 1


async def test_tier_that_asks_for_a_pause_gets_it(clock: FakeClock) -> None:
    edge = ScriptedTier(TransientError("busy", retry_after_s=30.0), ["fine"])
    tiers, board = answering(clock, edge=edge, hub=ScriptedTier(["hub"]))
    await tiers.answer("q1", QUESTION, TIERS, None)
    assert not board.is_available("edge")


async def test_nobody_waits_when_every_tier_has_failed(clock: FakeClock) -> None:
    edge, hub = ScriptedTier(TransientError("busy")), ScriptedTier(UnreachableError("gone"))
    tiers, _ = answering(clock, edge=edge, hub=hub)
    found = await tiers.answer("q1", QUESTION, TIERS, None)
    assert (found.is_answered, found.tier, found.cost) == (False, None, None)
    assert len(edge.calls) == len(hub.calls) == 1


async def test_local_models_are_loaded_beforehand(clock: FakeClock) -> None:
    edge, hub = ScriptedTier(["x"]), ScriptedTier(["x"])
    tiers, _ = answering(clock, edge=edge, hub=hub)
    await tiers.warm_up()
    assert (edge.probed, hub.probed) == (1, 0)
