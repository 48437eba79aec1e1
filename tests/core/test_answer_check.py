"""What a small model may not send, and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.answer_check import is_repetitive, mended, why_unfit

LOOP = "The capital of France is Paris. " * 12
# As SmolLM2-135M gives it at temperature 0 until its tokens run out.
LATE_LOOP = (
    "Tomatoes need six to eight hours of sun each day. Water them at the root in the early morning. "
    + "The leaves should be kept dry, because wet leaves invite blight, and blight spreads quickly. " * 9
)
LIST = "\n".join(
    f"{number}. {verb} the {thing} once a week."
    for number, (verb, thing) in enumerate(
        [("Check", "pump"), ("Clean", "filter"), ("Grease", "axle"), ("Test", "valve"), ("Read", "meter")] * 2, 1
    )
)
CODE = "\n".join(
    f"def read_{name}(bus):\n    value = bus.read({number})\n    if value is None:\n        return None\n"
    f"    return value * {number + 1} / 10\n"
    for number, name in enumerate(["soil", "rain", "wind", "leaf", "tank", "pump", "gate"])
)
TABLE = "| a | b | c | d | e | f | g |\n|---|---|---|---|---|---|---|\n| 1 | 2 | 3 | 4 | 5 | 6 | 7 |"


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_empty_is_unfit(text: str) -> None:
    assert why_unfit(text, "stop") == "empty"


@pytest.mark.parametrize("text", [LOOP, LATE_LOOP, "Paris.\n" * 20, "no " * 60, "1\n" * 50])
def test_endless_repetition_is_unfit(text: str) -> None:
    assert why_unfit(text, "stop") == "repetitive"
    assert why_unfit(text, "length") == "repetitive"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200,
        "ab " * 60,
        "ab" * 100,
        "abcdefgh" * 25,
        "/\\_" * 40,
        "巴黎是法国的首都。" * 20,
        "巴黎是法国的首都" * 20,
        "首都はパリです。" * 20,
        "กรุงเทพ" * 30,
        "番茄需要每天六到八小时的阳光，早上浇水，叶子要保持干燥。" + "叶子不要弄湿，因为湿叶子容易得病。" * 9,
        "".join(f"{n}号是巴黎法国的首都城市。" for n in range(20)),
    ],
)
def test_repetition_without_spaces_is_unfit(text: str) -> None:
    assert why_unfit(text, "length") == "repetitive"


@pytest.mark.parametrize(
    "text",
    [
        "番茄需要每天六到八小时的阳光，早上浇水，叶子要保持干燥，这样就不容易得病，也不会招来害虫。",
        "トマトは毎日六時間から八時間の日光が必要です。朝に根元へ水をやり、葉を乾いたままにしてください。",
        "1000000000000000000000000000000",
        "Hahahahahahaha!",
        "Title\n" + "=" * 39,
        "The temperature fell from 12 to 4 degrees.\n" * 2,
    ],
)
def test_dense_writing_and_large_numbers_are_fit(text: str) -> None:
    assert why_unfit(text, "stop") is None


@pytest.mark.parametrize("text", [LIST, CODE, TABLE, "Yes.", "No, no, no.", "Yes.\nYes.\nNo.\nYes.\nYes."])
def test_distinct_items_code_and_short_answers_are_fit(text: str) -> None:
    assert not is_repetitive(text)
    assert why_unfit(text, "stop") is None


def test_cut_off_answer_is_unfit() -> None:
    assert why_unfit("A good beginning that", "length") == "truncated"


def test_split_pair_is_joined_and_lone_halves_replaced() -> None:
    assert mended("a\ud83d" + "\ude00b") == "a\N{GRINNING FACE}b"
    assert mended("a\ud83db\udc00") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


@given(st.text(st.characters(exclude_categories=())))
def test_mended_text_can_be_written(text: str) -> None:
    mended(text).encode("utf-8")


@given(st.text())
def test_whole_text_is_left_alone(text: str) -> None:
    assert mended(text) == text
