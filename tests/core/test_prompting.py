"""From a question to the messages a tier is sent."""

from __future__ import annotations

from mqrouter.core.prompting import compose
from mqrouter.core.request import Form, Message, Question

USER = Message("user", "wet?")


def question(*messages: Message, context: str | None = None) -> Question:
    return Question("wet?", messages, Form.TEXT, context=context)


def test_question_alone_goes_as_it_is() -> None:
    assert compose(question(USER), None) == (USER,)


def test_prompt_and_context_become_one_system_message() -> None:
    found = compose(question(USER, context="probe 3 reads 12 %"), "Be brief.\n")
    assert found == (Message("system", "Be brief.\n\nContext:\nprobe 3 reads 12 %"), USER)


def test_requesters_own_system_message_replaces_the_prompt() -> None:
    found = compose(question(Message("system", "You are a vet."), USER, context="cow"), "Be brief.")
    assert found == (Message("system", "You are a vet.\n\nContext:\ncow"), USER)


def test_empty_system_message_switches_the_prompt_off() -> None:
    assert compose(question(Message("system", ""), USER), "Be brief.") == (USER,)


def test_earlier_turns_are_kept() -> None:
    turns = (USER, Message("assistant", "yes"), Message("user", "how wet?"))
    assert compose(question(*turns), "Be brief.") == (Message("system", "Be brief."), *turns)
