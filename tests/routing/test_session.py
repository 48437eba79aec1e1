"""Which questions lean on what was said before."""

from __future__ import annotations

import pytest

from mqrouter.routing.session import is_referential


@pytest.mark.parametrize(
    "text",
    ["yes, the second one", "why?", "and for maize?", "Is THAT normal at this time of the year?", "ja, das zweite", ""],
)
def test_question_that_means_nothing_alone_leans_on_the_session(text: str) -> None:
    assert is_referential(text)


@pytest.mark.parametrize(
    "text",
    [
        "who sang the song about the purple rain",
        "my tomatoes have brown spots",
        "write a script that reads the value of the sensor and then sends it to the hub by mail",
        "one of them " + "and a long story " * 10_000,
    ],
)
def test_question_that_speaks_for_itself_does_not(text: str) -> None:
    assert not is_referential(text)
