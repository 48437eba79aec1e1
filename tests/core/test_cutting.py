"""Where a text that is too long ends."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.cutting import cut_text


@pytest.mark.parametrize(
    ("text", "max_bytes", "expected"),
    [
        ("short", None, ("short", False)),
        ("exactly16bytes..", 16, ("exactly16bytes..", False)),
        ("äääääääääää", 16, ("ääääääää", True)),
        ("äääääääääää", 17, ("ääääääää", True)),
        ("No. This is one long sentence", 24, ("No. This is one long", True)),
        ("No. This is one long sentence", 20, ("No. This is one long", True)),
        ("One two three! Four five", 20, ("One two three!", True)),
        ("One two three! Four five", 14, ("One two three!", True)),
        ("One two three?\nFour five", 20, ("One two three?", True)),
        ('He said "stop." Then more', 20, ('He said "stop."', True)),
        ("It took 3.5 hours to be done", 14, ("It took 3.5", True)),
        ("霜が降ります。明日も寒いでしょう", 24, ("霜が降ります。", True)),
        ("今夜会有霜冻！注意保暖啊朋友们", 27, ("今夜会有霜冻！", True)),  # noqa: RUF001
        ("क्या पाला पड़ेगा। हाँ शायद पड़ेगा", 50, ("क्या पाला पड़ेगा।", True)),
        ("هل سيكون هناك صقيع؟ نعم ربما غدا", 44, ("هل سيكون هناك صقيع؟", True)),
        ("\N{GRINNING FACE}" * 5, 18, ("\N{GRINNING FACE}" * 4, True)),
        ("ab" + "e\N{COMBINING ACUTE ACCENT}" * 4, 9, ("ab" + "e\N{COMBINING ACUTE ACCENT}" * 2, True)),
        ("go \N{WOMAN}\N{ZERO WIDTH JOINER}\N{EAR OF RICE} on", 12, ("go", True)),
    ],
)
def test_text_ends_with_a_sentence_or_a_word_and_between_characters(
    text: str, max_bytes: int | None, expected: tuple[str, bool]
) -> None:
    assert cut_text(text, max_bytes) == expected


@given(st.text(max_size=200), st.integers(1, 120))
def test_what_is_left_is_a_beginning_that_fits(text: str, max_bytes: int) -> None:
    cut, is_cut = cut_text(text, max_bytes)
    assert text.startswith(cut)
    assert is_cut == (cut != text)
    assert len(cut.encode()) <= max_bytes
    following = text[len(cut) : len(cut) + 1]
    assert not (cut and following and unicodedata.category(following) in ("Mn", "Me", "Mc"))
