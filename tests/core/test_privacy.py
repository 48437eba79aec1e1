"""What makes a question private."""

from __future__ import annotations

import pytest

from mqrouter.core.personal_data import Kind
from mqrouter.core.privacy import NOT_PRIVATE, Mark, Privacy, PrivateBy, private_by
from mqrouter.core.request import Form, Message, Question

RULES = Privacy(("farm/office/#",), ("nurse", "office-*", "a[b]?"), frozenset({Kind.EMAIL, Kind.PHONE}))


def question(text: str = "how are the cows?", *, context: str | None = None, is_private: bool = False) -> Question:
    return Question(text, (Message("user", text),), Form.TEXT, context=context, is_private=is_private)


def test_ordinary_question_is_not_private() -> None:
    assert RULES.look(question(), "farm/barn/q", "barn") == NOT_PRIVATE
    assert not NOT_PRIVATE.is_private


@pytest.mark.parametrize(("device", "is_private"), [("nurse", True), ("nurse2", False), ("office-7", True)])
def test_devices_are_private_by_name_and_by_pattern(device: str, is_private: bool) -> None:
    assert RULES.look(question(), "q", device).is_private is is_private


def test_pattern_knows_no_wildcard_but_the_star() -> None:
    assert RULES.look(question(), "q", "a[b]?").marks == (Mark.DEVICE,)
    assert not RULES.look(question(), "q", "abx").is_private


def test_topics_are_private_by_filter() -> None:
    assert RULES.look(question(), "farm/office/desk/1", "x").marks == (Mark.TOPIC,)


def test_every_text_of_a_question_is_looked_at() -> None:
    chat = (Message("user", "write to a@b.example"), Message("assistant", "done"), Message("user", "thanks"))
    assert RULES.look(Question("thanks", chat, Form.JSON)).kinds == (Kind.EMAIL,)
    assert RULES.look(question(context="she has +49 171 1234567")).kinds == (Kind.PHONE,)


def test_senders_mark_adds_to_what_is_found_and_takes_nothing_away() -> None:
    found = RULES.look(question("mail a@b.example", is_private=True), "farm/office/1", "nurse")
    assert found == PrivateBy((Mark.REQUEST, Mark.TOPIC, Mark.DEVICE), (Kind.EMAIL,))
    assert not found.is_redactable
    assert RULES.look(question("mail a@b.example")).is_redactable


def test_reason_names_the_kind_and_never_the_data() -> None:
    found = RULES.look(question("mail a@b.example or call +49 171 1234567", is_private=True))
    assert found.reason == "its sender says so, it holds an e-mail address and a phone number"


def test_what_was_written_down_reads_back_the_same() -> None:
    found = PrivateBy((Mark.TOPIC,), (Kind.EMAIL, Kind.IBAN))
    assert private_by(found.names) == found
    assert private_by([]) == NOT_PRIVATE


def test_reason_of_another_version_counts_as_a_mark() -> None:
    assert private_by(["fingerprint"]) == PrivateBy((Mark.REQUEST,))


def test_reasons_add_up() -> None:
    assert PrivateBy((Mark.DEVICE,)) | PrivateBy(kinds=(Kind.ID,)) == PrivateBy((Mark.DEVICE,), (Kind.ID,))
