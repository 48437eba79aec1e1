"""Found data leaves as placeholders and comes back as itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.personal_data import Kind
from mqrouter.core.redaction import MAX_VALUES, Restorer, redact

ALL = frozenset(Kind)


def restore(values: dict[str, str], *pieces: str) -> str:
    restorer = Restorer(values)
    return "".join(map(restorer.feed, pieces)) + restorer.close()


def test_each_different_value_has_a_placeholder_of_its_own() -> None:
    found = redact(["a@b.example wrote to c@d.example", "ask a@b.example, +49 171 1234567"], ALL)
    assert found is not None
    assert found.texts == ("<EMAIL_1> wrote to <EMAIL_2>", "ask <EMAIL_1>, <PHONE_1>")
    assert found.values == {"<EMAIL_1>": "a@b.example", "<EMAIL_2>": "c@d.example", "<PHONE_1>": "+49 171 1234567"}
    assert found.kinds == {Kind.EMAIL, Kind.PHONE}


def test_value_goes_where_it_is_not_recognised_too() -> None:
    found = redact(["password: hunter2", "does hunter2 have enough letters, or hunter22?"], ALL)
    assert found is not None
    assert found.texts == ("password: <SECRET_1>", "does <SECRET_1> have enough letters, or <SECRET_1>2?")


def test_placeholder_that_stands_in_the_question_is_not_used() -> None:
    text = "is <EMAIL_1> short for a@b.example?"
    found = redact([text], ALL)
    assert found is not None and found.texts == ("is <EMAIL_1> short for <EMAIL_2>?",)
    assert restore(dict(found.values), *found.texts) == text


def test_table_of_personal_data_is_not_redacted() -> None:
    rows = [f"mail{number}@b.example" for number in range(MAX_VALUES + 1)]
    assert redact([", ".join(rows[:-1])], ALL) is not None
    assert redact([", ".join(rows)], ALL) is None


def test_value_that_a_placeholder_would_show_is_not_redacted() -> None:
    assert redact(['password: "MAIL" of a@b.example'], ALL) is None


def test_answer_is_restored_wherever_it_is_cut() -> None:
    values = {"<EMAIL_1>": "a@b.example", "<EMAIL_12>": "c@d.example"}
    answer, whole = "x <EMAIL_1><EMAIL_12> <EMAIL_3> < <EMAIL_", "x a@b.examplec@d.example <EMAIL_3> < <EMAIL_"
    for cut in range(len(answer) + 1):
        assert restore(values, answer[:cut], answer[cut:]) == whole
    assert restore(values, *answer) == whole


def test_only_what_may_become_a_placeholder_is_held_back() -> None:
    restorer = Restorer({"<EMAIL_1>": "a@b.example"})
    assert [restorer.feed(piece) for piece in ("if a <", " b then <EM", "AIL_1", ">!")] == [
        "if a ",
        "< b then ",
        "",
        "a@b.example!",
    ]


def test_value_that_looks_like_a_placeholder_is_not_replaced_again() -> None:
    assert restore({"<SECRET_1>": "<SECRET_2>", "<SECRET_2>": "x"}, "<SECRET_1> <SECRET_2>") == "<SECRET_2> x"


WORDS = st.sampled_from(
    [
        *("a@b.example", "c.d@e.example", "+49 171 1234567", "password: hunter2", "hunter2", "48.1372, 11.5756"),
        *("DE89 3704 0044 0532 0130 00", "078-05-1120", "cows", "<EMAIL_1>", "<", ">", "EMAIL_1", "<EMAIL", "1", "\n"),
    ]
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=12).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.data())
def test_redacted_text_comes_back_as_it_was_however_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    found = redact(texts, ALL)
    if found is None:
        return
    for text, left in zip(texts, found.texts, strict=True):
        assert not any(value in left for value in found.values.values())
        cuts = data.draw(st.lists(st.integers(0, len(left)), max_size=8))
        pieces = [left[start:end] for start, end in pairwise([0, *sorted(cuts), len(left)])]
        assert restore(dict(found.values), *pieces) == text
