"""Which questions lean on what was said before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mqrouter.routing.session import is_referential

DATA = Path(__file__).parents[1] / "data"

FOLLOW_UPS = [
    "yes, the second one", "why?", "and for maize?", "Is THAT normal at this time of the year?", "ja, das zweite", "",
    "how long exactly?", "go on", "yes please", "no, the other", "ok and then?", "what about sheep?", "and tomorrow?",
    "can you explain that again", "how much?", "is it safe?", "which one?", "the same for field 4", "are you sure?",
    "but not on Sunday", "or with copper?", "do it again", "what did you mean by that", "them too", "how about goats",
    "where exactly?", "never mind the first, do the second", "ok", "und im Herbst?", "et pour le maïs ?", "No.",
    "为什么", "第二个", "继续", "はい", "ทำไม", "...",
]  # fmt: skip
COMPLETE = [
    "tomatoes have blight", "irrigate zone 4", "pump 2 off", "hello", "frost tonight?", "who sang purple rain",
    "my tomatoes have brown spots", "no water in the trough", "pH 7.9 normal?", "sure start of the tractor fails",
    "write a script that reads the value of the sensor and then sends it to the hub by mail",
    "番茄叶子上有褐色斑点", "灌溉四号区", "トマトの葉に斑点があります", "มะเขือเทศมีจุดสีน้ำตาล",
    "one of them " + "and a long story " * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_question_that_means_nothing_alone_leans_on_the_session(text: str) -> None:
    assert is_referential(text)


@pytest.mark.parametrize("text", COMPLETE)
def test_question_that_speaks_for_itself_does_not(text: str) -> None:
    assert not is_referential(text)


@pytest.mark.parametrize("name", ["farm_questions.jsonl", "farm_questions_held_out.jsonl"])
def test_no_short_question_of_a_route_leans_on_the_session(name: str) -> None:
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    short = [row["question"] for row in rows if row["kind"] == "short"]
    assert len(short) > 15
    assert [text for text in short if is_referential(text)] == []
