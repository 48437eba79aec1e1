"""A private question at each tier: who may see it, what of it, and what is left to show afterwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import ScriptedTier, judge, running
from structlog.testing import capture_logs
from test_forward import Stage, stage

from mqrouter.core.events import Done
from mqrouter.core.personal_data import Kind
from mqrouter.core.policy import TierFacts
from mqrouter.core.privacy import Privacy
from mqrouter.errors import PermanentError, TransientError
from mqrouter.flow.judge import Judge

__all__ = ["stage"]

RULES = Privacy(("mqrouter/farm/ask/office/#",), ("nurse*",), frozenset(Kind))
PRIVATE = '{"question": "who owes me money", "private": true}'
MAIL = "write to ada@farm.example about the cows"


def rules(privacy: Privacy = RULES, *, hub_is_trusted: bool = False, redacts: bool = False) -> Judge:
    facts = {
        "hub": TierFacts("hub", is_local=False, is_trusted=hub_is_trusted, context_chars=500, redacts=redacts),
        "edge": TierFacts("edge", is_local=True, is_trusted=True, context_chars=100),
    }
    return replace(judge(tiers=facts), privacy=privacy)


@pytest.fixture
def private_stage(stage: Stage) -> Stage:
    stage.judge = rules()
    return stage


def texts(tier: ScriptedTier) -> str:
    return " ".join(message.content for call in tier.calls for message in call.messages)


async def ask(stage: Stage, hub: ScriptedTier, edge: ScriptedTier, payload: str, **more: Any) -> str:
    """Returns the answer of a question that is queued for hub and edge without being decided by these rules."""
    async with running(stage.lane("hub", hub).run, stage.lane("edge", edge).run):
        await stage.queue(payload, **more)
        await stage.done()
    (answer,) = await stage.answers()
    return answer


@pytest.mark.parametrize(
    ("payload", "topic"),
    [
        (PRIVATE, "mqrouter/farm/ask/d1"),
        ("who owes me money", "mqrouter/farm/ask/office/1"),
        ("who owes me money", "mqrouter/farm/ask/nurse2"),
        (MAIL, "mqrouter/farm/ask/d1"),
        ('{"question": "how is she?", "context": "ada@farm.example"}', "mqrouter/farm/ask/d1"),
        ('{"question": "call +49 171 1234567?", "private": false}', "mqrouter/farm/ask/d1"),
    ],
)
async def test_private_question_passes_an_untrusted_tier_by(private_stage: Stage, payload: str, topic: str) -> None:
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    assert "Stays here." in await ask(private_stage, hub, edge, payload, topic=topic)
    assert hub.calls == []
    assert await private_stage.row("attempts") == (1,)  # what was not asked is no attempt


async def test_private_question_that_no_trusted_tier_is_left_for_says_so(private_stage: Stage) -> None:
    hub = ScriptedTier(["leaked"])
    answer = await ask(private_stage, hub, ScriptedTier(["x"]), MAIL, tiers=("hub",))
    assert answer.startswith("error private_unanswerable: ") and "an e-mail address" in answer
    assert "ada@" not in answer and hub.calls == []
    assert private_stage.board.breakers["hub"].state.name == "CLOSED"


async def test_trust_taken_away_holds_for_the_questions_that_wait(private_stage: Stage) -> None:
    private_stage.judge = rules(hub_is_trusted=True)
    await private_stage.queue(PRIVATE)
    private_stage.judge = rules()
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    async with running(private_stage.lane("hub", hub).run, private_stage.lane("edge", edge).run):
        await private_stage.done()
    assert hub.calls == []


async def test_tier_that_the_configuration_lost_sees_nothing_private(private_stage: Stage) -> None:
    private_stage.judge = replace(rules(), tiers={"edge": rules().tiers["edge"]})
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    await ask(private_stage, hub, edge, PRIVATE)
    assert hub.calls == []


async def test_what_was_private_when_it_was_decided_stays_so(private_stage: Stage) -> None:
    private_stage.judge = rules(Privacy())
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    await ask(private_stage, hub, edge, MAIL, decision={"private_by": ["device"]})
    assert hub.calls == []
    assert await private_stage.row("is_private, private_by") == (1, "device")


async def test_redacting_tier_sees_placeholders_and_the_sender_does_not(private_stage: Stage) -> None:
    private_stage.judge = rules(redacts=True)
    hub = ScriptedTier(["Dear <EM", "AIL_1>", ", they are fine <"])
    payload = json.dumps({"question": MAIL, "context": "ada@farm.example has +49 171 1234567"})
    answer = await ask(private_stage, hub, ScriptedTier(["x"]), payload, decision={"private_by": ["email", "phone"]})
    assert json.loads(answer)["answer"] == "Dear ada@farm.example, they are fine <"
    assert "ada@" not in texts(hub) and "1234567" not in texts(hub)
    assert "<EMAIL_1> has <PHONE_1>" in texts(hub) and "write to <EMAIL_1> about the cows" in texts(hub)


@pytest.mark.parametrize("why", ["request", "topic email", "device"])
async def test_redaction_is_not_for_what_was_marked(private_stage: Stage, why: str) -> None:
    private_stage.judge = rules(redacts=True)
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    await ask(private_stage, hub, edge, MAIL, decision={"private_by": why.split()})
    assert hub.calls == []


async def test_what_an_earlier_rule_found_and_this_one_does_not_is_not_redacted(private_stage: Stage) -> None:
    private_stage.judge = rules(redacts=True)
    hub, edge = ScriptedTier(["leaked"]), ScriptedTier(["Stays here."])
    await ask(private_stage, hub, edge, MAIL, decision={"private_by": ["email", "phone"]})
    assert hub.calls == []


async def test_kinds_that_are_looked_for_no_longer_are_redacted_all_the_same(private_stage: Stage) -> None:
    private_stage.judge = rules(Privacy(), redacts=True)
    hub = ScriptedTier(["ok"])
    await ask(private_stage, hub, ScriptedTier(["x"]), MAIL, decision={"private_by": ["email"]})
    assert "<EMAIL_1>" in texts(hub) and "ada@" not in texts(hub)


async def test_gateways_own_prompt_makes_nothing_private(private_stage: Stage) -> None:
    private_stage.judge = replace(rules(), prompts={"short": "In doubt tell them to call +49 171 1234567."})
    hub = ScriptedTier(["Fine."])
    assert await ask(private_stage, hub, ScriptedTier(["x"]), "how are the cows") == "Fine."
    assert "+49" in texts(hub)


FAILURES: list[Sequence[Any]] = [
    [TransientError("HTTP 500", detail="you asked: who owes me money")],
    [PermanentError("HTTP 400", detail="you asked: who owes me money")],
    ["half", TransientError("the answer broke off")],
    [Done("stop", "scripted")],
]


@pytest.mark.parametrize("script", FAILURES)
async def test_failure_of_a_trusted_tier_sends_a_private_question_to_no_other(
    private_stage: Stage, script: Sequence[Any]
) -> None:
    edge, hub = ScriptedTier(script), ScriptedTier(["leaked"])
    async with running(
        private_stage.lane("edge", edge, max_attempts=2).run, private_stage.lane("hub", hub, max_attempts=2).run
    ):
        await private_stage.queue(PRIVATE, tiers=("edge", "hub"), decision={"private_by": ["request"]})
        await private_stage.idle()
        private_stage.clock.advance(1000)
        await private_stage.wake()
        await private_stage.done()
    assert hub.calls == []
    notes = await private_stage.database.read(
        lambda db: [row[0] or "" for row in db.execute("SELECT note FROM history")]
    )
    assert not any("money" in note for note in notes)  # a server may quote what it was asked


async def test_private_text_is_not_logged_even_where_texts_are(private_stage: Stage) -> None:
    with capture_logs() as said:
        async with running(private_stage.lane("edge", ScriptedTier(["Bob."]), logs_text=True).run):
            await private_stage.queue(PRIVATE, "how are the cows", tiers=("edge",))
            await private_stage.done(2)
    assert "the cows" in str(said) and "money" not in str(said)


async def test_trust_lost_while_the_tier_is_away_is_seen_when_it_is_back(private_stage: Stage) -> None:
    private_stage.judge = rules(hub_is_trusted=True)
    private_stage.board.unreachable("hub", "down")
    await private_stage.queue(PRIVATE, tiers=("hub",))
    hub = ScriptedTier(["leaked"])
    async with running(private_stage.lane("hub", hub).run):
        await private_stage.idle()
        private_stage.judge = rules()
        private_stage.clock.advance(120)
        private_stage.board.probed("hub", True)
        await private_stage.done()
    assert hub.calls == []
    (answer,) = map(json.loads, await private_stage.answers())
    assert answer["error"]["code"] == "private_unanswerable"
