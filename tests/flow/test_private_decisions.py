"""What a private question is told when it is decided, and what is written down about it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fakes import judge, running
from test_decide import Stage, stage

from mqrouter.core.personal_data import Kind
from mqrouter.core.privacy import Privacy
from mqrouter.settings import LocalTier, OpenAiTier, Tier
from mqrouter.wiring import trusted_by_both

__all__ = ["stage"]

RULES = Privacy(("mqrouter/farm/ask/office/#",), ("nurse*",), frozenset(Kind))


async def decided(stage: Stage, *, to: tuple[str, ...], payload: str, redacts: bool = False, **more: Any) -> Any:
    facts = {name: replace(tier, redacts=redacts) for name, tier in judge().tiers.items()}
    stage.with_judge(replace(judge(to=to, tiers=facts), privacy=RULES))
    await stage.ask(payload, **more)
    async with running(stage.decide.run):
        await stage.decided()
    (row,) = await stage.rows("state, tiers, is_private, private_by, decision, detail")
    return row


@pytest.mark.parametrize(
    ("payload", "topic", "why"),
    [
        ("how are the cows", "mqrouter/farm/ask/office/7", "topic"),
        ("how are the cows", "mqrouter/farm/ask/nurse7", "device"),
        ('{"question": "how are the cows of a@b.example", "private": false}', "mqrouter/farm/ask/d1", "email"),
        ('{"question": "how are the cows", "private": true}', "mqrouter/farm/ask/d1", "request"),
    ],
)
async def test_private_question_is_planned_for_trusted_tiers_only(
    stage: Stage, payload: str, topic: str, why: str
) -> None:
    state, tiers, is_private, private_by, decision, _ = await decided(
        stage, to=("hub", "edge"), payload=payload, topic=topic
    )
    assert (state, tiers, is_private, private_by) == ("pending", "edge", 1, why)
    assert json.loads(decision)["private_by"] == [why] and "a@b" not in decision


async def test_private_question_of_an_untrusted_route_is_told_which_kind_of_data_is_in_it(stage: Stage) -> None:
    state, _, is_private, private_by, decision, detail = await decided(
        stage, to=("hub",), payload="how are the cows of a@b.example"
    )
    assert (state, is_private, private_by) == ("answered", 1, "email")
    assert detail == "none of its route's tiers is trusted; it is private: it holds an e-mail address"
    assert json.loads(decision)["refusal"] == "private_unanswerable" and "a@b" not in decision


async def test_ordinary_question_is_not_private(stage: Stage) -> None:
    _, tiers, is_private, private_by, *_ = await decided(stage, to=("hub",), payload="how are the cows")
    assert (tiers, is_private, private_by) == ("hub", 0, "")


async def test_question_with_data_in_it_is_planned_for_a_tier_that_redacts(stage: Stage) -> None:
    _, tiers, *_ = await decided(stage, to=("hub",), payload="how are the cows of a@b.example", redacts=True)
    assert tiers == "hub"


def test_reload_takes_trust_away_and_gives_none() -> None:
    def tier(**more: Any) -> OpenAiTier:
        return OpenAiTier(kind="openai", url="http://hub.lan/v1", model="m", **more)

    def after(running: Tier, wanted: dict[str, Tier]) -> Tier:
        return trusted_by_both({"hub": running}, wanted)["hub"]

    trusted, plain, redacting = tier(trusted=True), tier(), tier(redact=True)
    assert after(trusted, {"hub": trusted}).trusted
    assert not after(trusted, {"hub": plain}).trusted and not after(trusted, {}).trusted
    assert not after(plain, {"hub": trusted}).trusted
    assert after(redacting, {"hub": redacting}) == redacting
    assert after(redacting, {"hub": plain}) == after(plain, {"hub": redacting}) == plain
    local = LocalTier(kind="local")
    assert after(local, {}) == local
