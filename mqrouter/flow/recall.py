"""From a session's rows to what a tier is sent of it."""

from __future__ import annotations

from mqrouter.core.conversation import History, Turn, recall
from mqrouter.core.decode import Limits, decode_question
from mqrouter.core.encode import answered_text
from mqrouter.core.lengths import BUFFER
from mqrouter.core.privacy import Privacy
from mqrouter.core.records import PastTurn, StoredRequest
from mqrouter.core.request import Question
from mqrouter.errors import RequestError
from mqrouter.flow.judge import Judge
from mqrouter.flow.ports import Store

LOOKED_AT_PER_TURN = 4
"""Rows read for each turn wanted: some have no answer, or may not be seen."""


async def recall_session(
    store: Store, request: StoredRequest, question: Question, judge: Judge, tier: str, limits: Limits
) -> History:
    """Returns earlier turns of the request's session that fit the tier's window and may be seen there.

    Nothing is added to a conversation that the requester gave itself.
    """
    bounds = judge.history_limits
    if request.session is None or question.has_own_messages or not bounds.max_turns or not bounds.max_chars:
        return History()
    facts = judge.tiers[tier]
    prompt = judge.prompt_for(request.route) or ""
    room_chars = int(facts.context_chars / BUFFER) - question.chars - len(prompt)
    past = await store.turns_of_session(request, LOOKED_AT_PER_TURN * bounds.max_turns)
    turns = (_turn(entry, limits, None if facts.is_trusted else judge.privacy) for entry in past)
    return recall(turns, request.received_at_ms, bounds, room_chars=room_chars, is_trusted=facts.is_trusted)


def _turn(entry: PastTurn, limits: Limits, privacy: Privacy | None) -> Turn:
    """What is private by today's rules, None for a trusted tier, is so whatever it was; an answer may be, too."""
    nothing = Turn("", None, entry.is_private, entry.received_at_ms)
    if entry.answer is None or (entry.is_private and privacy is not None):
        return nothing  # not worth a look: it is left out
    try:
        question = decode_question(entry.payload, entry.content_type, None, limits)
    except RequestError:  # limits were lowered since
        return nothing
    answer = answered_text(entry.answer)
    is_private = entry.is_private
    if privacy is not None:
        is_private = privacy.look(question, entry.topic).is_private or bool(privacy.kinds_in([answer or ""]))
    return Turn(question.text, answer, is_private, entry.received_at_ms)
