"""From a question to its decision and its tiers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from fakes import DIM, HashEmbedder, judge

from mqrouter.core.request import Form, Message, Question
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.judge import Judgement, RoutePlan
from mqrouter.routing.decision import Reason
from mqrouter.routing.gain import GainRegressor, form
from mqrouter.routing.session import Session
from mqrouter.routing.signals import TierSignal
from mqrouter.routing.tier_order import TierOrder


def question(text: str, *, route: str | None = None, is_private: bool = False, context: str | None = None) -> Question:
    message = Message("user", text)
    return Question(text, (message,), Form.TEXT, route=route, is_private=is_private, context=context)


async def test_question_takes_the_route_of_its_examples() -> None:
    found = await judge().judge(question("how are the cows doing"), HashEmbedder())
    assert found.decision.route == "cattle"
    assert (found.tier_plan.tiers, found.route_plan.prompt) == (("hub", "edge"), "short")
    assert found.decision.nearest[0].example == "how are the cows"


async def test_question_nobody_claims_takes_the_plan_of_abstaining() -> None:
    found = await judge(abstain=RoutePlan((), "queue", None)).judge(question("zzz"), HashEmbedder())
    assert (found.decision.route, found.decision.reason) == (None, Reason.BELOW_THRESHOLD)
    assert found.tier_plan.refusal is ErrorCode.NO_ROUTE


async def test_asked_route_is_taken() -> None:
    found = await judge().judge(question("how are the cows", route="code"), HashEmbedder())
    assert (found.decision.route, found.decision.reason) == ("code", Reason.ASKED_FOR)


async def test_unknown_route_is_refused_before_anything_is_embedded() -> None:
    embedder = HashEmbedder()
    with pytest.raises(RequestError) as caught:
        await judge().judge(question("x", route="gone\n"), embedder)
    assert (caught.value.code, embedder.texts) == (ErrorCode.NO_ROUTE, [])
    assert "\n" not in str(caught.value)


async def test_context_counts_for_the_tiers_limit() -> None:
    found = await judge().judge(question("how are the cows", context="x" * 100), HashEmbedder())
    assert found.tier_plan.tiers == ("hub",)
    assert found.tier_plan.struck[0].tier == "edge"


async def test_refining_route_lets_this_device_fill_in_for_those_who_accept_that() -> None:
    refining = judge(to=["hub"], when_offline="answer_then_refine")
    plain = question("how are the cows")
    accepting = dataclasses.replace(plain, accepts_provisional=True)
    found = [await refining.judge(asked, HashEmbedder()) for asked in (plain, accepting)]
    assert [one.tier_plan.tiers for one in found] == [("hub",), ("hub", "edge")]
    assert refining.is_patient("cattle") and refining.impatient_routes() == []
    private = await refining.judge(dataclasses.replace(accepting, is_private=True), HashEmbedder())
    assert private.tier_plan.tiers == ("edge",)


async def test_local_fallback_follows_the_route() -> None:
    found = await judge(to=["hub"], when_offline="answer_locally").judge(question("how are the cows"), HashEmbedder())
    assert found.tier_plan.tiers == ("hub", "edge")


async def test_judgement_explains_itself_as_json() -> None:
    found = await judge().judge(question("how are the cows", is_private=True), HashEmbedder())
    value = json.loads(json.dumps(found.to_json()))
    assert value["tiers"] == ["edge"]
    assert value["struck"] == [{"tier": "hub", "reason": "private: the tier is not trusted", "until_ms": None}]
    assert (value["route"], value["when_offline"], value["refusal"]) == ("cattle", "queue", None)
    assert {"score", "margin", "threshold", "ranked", "nearest"} <= value.keys()


def test_route_that_a_reload_took_away_falls_back_to_abstaining() -> None:
    assert judge().plan_for("gone") == judge().plan_for(None)
    assert judge().prompt_for("gone") is None
    assert judge().prompt_for("code") == "Be brief."


async def test_strategy_of_the_question_goes_before_the_listeners_and_that_before_the_gateways() -> None:
    asked, embedder = question("how are the cows"), HashEmbedder()
    found = [
        await judge().judge(asked, embedder),
        await judge().judge(asked, embedder, strategy="knn"),
        await judge().judge(dataclasses.replace(asked, strategy="token"), embedder, strategy="knn"),
    ]
    assert [entry.decision.strategy for entry in found] == ["semantic", "knn", "token"]


@pytest.mark.parametrize(("name", "why"), [("learned", "mqrouter train"), ("dice", "no such strategy")])
async def test_strategy_that_cannot_be_used_is_refused_before_anything_is_embedded(name: str, why: str) -> None:
    embedder = HashEmbedder()
    with pytest.raises(RequestError, match=why) as caught:
        await judge().judge(question("x"), embedder, strategy=name)
    assert (caught.value.code, embedder.texts) == (ErrorCode.BAD_REQUEST, [])


async def test_strategy_sees_how_the_tiers_are_doing() -> None:
    def worth(found: Judgement) -> float:
        return found.decision.score

    asked = question("how are the cows")
    slow = {"hub": TierSignal(True, 2_000.0), "edge": TierSignal(False, None)}
    assert worth(await judge().judge(asked, HashEmbedder(), strategy="perf", tiers=slow)) == 0.5
    assert worth(await judge().judge(asked, HashEmbedder(), strategy="perf")) == 1.0


async def test_question_that_leans_on_its_session_inherits_the_route() -> None:
    found = await judge().judge(question("why?"), HashEmbedder(), session=Session("r1", "code", ("hub",)))
    assert (found.decision.route, found.decision.reason, found.decision.inherited_from) == ("code", "session", "r1")
    assert found.route_plan.prompt == "short"
    assert (await judge().judge(question("why?"), HashEmbedder())).decision.route is None


async def test_session_on_a_route_that_a_reload_took_away_has_no_say() -> None:
    found = await judge().judge(question("why?"), HashEmbedder(), session=Session("r1", "gone", ()))
    assert found.decision.route is None


async def test_cascade_asks_the_local_tier_first() -> None:
    found = await judge().judge(question("how are the cows"), HashEmbedder(), strategy="cascade")
    assert found.tier_plan.tiers == ("edge", "hub")
    assert (await judge().judge(question("how are the cows"), HashEmbedder())).tier_plan.tiers == ("hub", "edge")


def test_only_a_cascade_asks_for_confidence_in_answers() -> None:
    assert judge().least_confidence("cascade") == 0.5
    assert judge().least_confidence("knn") is judge().least_confidence(None) is None


@pytest.mark.parametrize(("least", "tiers"), [(0.2, ("edge", "hub")), (0.1, ("hub", "edge"))])
async def test_expected_gain_puts_the_tiers_in_order(least: float, tiers: tuple[str, ...]) -> None:
    traits = len(form(""))
    zeros = np.zeros(DIM + traits)
    regressor = GainRegressor(zeros, 0.15, np.zeros(traits), np.ones(traits), 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    ordering = dataclasses.replace(judge(), tier_order=TierOrder(regressor, least, ("edge", "hub")))
    asked = question("how are the cows")
    found = await ordering.judge(asked, HashEmbedder(), strategy="hybrid")
    assert found.tier_plan.tiers == tiers
    assert found.to_json()["gain"] == {
        "expected": 0.15,
        "least": least,
        "is_weak_first": tiers[0] == "edge",
        "is_sessions": False,
    }
    assert (await ordering.judge(asked, HashEmbedder())).gain is None  # semantic has no opinion on gain
