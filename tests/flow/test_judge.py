"""From a question to its decision and its tiers."""

from __future__ import annotations

import json

import pytest
from fakes import HashEmbedder, judge

from mqrouter.core.request import Form, Message, Question
from mqrouter.errors import ErrorCode, RequestError
from mqrouter.flow.judge import RoutePlan
from mqrouter.routing.decision import Reason


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


async def test_local_fallback_follows_the_route() -> None:
    found = await judge(to=["hub"], when_offline="answer_locally").judge(question("how are the cows"), HashEmbedder())
    assert found.tier_plan.tiers == ("hub", "edge")


async def test_judgement_explains_itself_as_json() -> None:
    found = await judge().judge(question("how are the cows", is_private=True), HashEmbedder())
    value = json.loads(json.dumps(found.to_json()))
    assert value["tiers"] == ["edge"]
    assert value["struck"] == [{"tier": "hub", "reason": "private: the tier is not trusted"}]
    assert (value["route"], value["when_offline"], value["refusal"]) == ("cattle", "queue", None)
    assert {"score", "margin", "threshold", "ranked", "nearest"} <= value.keys()


def test_route_that_a_reload_took_away_falls_back_to_abstaining() -> None:
    assert judge().plan_for("gone") == judge().plan_for(None)
    assert judge().prompt_for("gone") is None
    assert judge().prompt_for("code") == "Be brief."
