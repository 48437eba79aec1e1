"""Other wordings of one question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.routing.perturb import CHANGES


@pytest.mark.parametrize("name", list(CHANGES))
def test_question_is_changed_the_same_way_for_a_seed(name: str) -> None:
    text = "How often should I water my tomatoes?"
    first, again = (CHANGES[name](text, np.random.default_rng(2)) for _ in range(2))
    assert first == again != text


@given(st.sampled_from(list(CHANGES)), st.text(min_size=1))
def test_any_text_stays_a_text(name: str, text: str) -> None:
    changed = CHANGES[name](text, np.random.default_rng(0))
    assert changed.strip() or not text.strip()


def test_typos_are_few() -> None:
    text = "The tractor cranks but will not start."
    changed = CHANGES["typos"](text, np.random.default_rng(0))
    assert abs(len(changed) - len(text)) <= 2
    assert sum(word in changed.split() for word in text.split()) >= 5
