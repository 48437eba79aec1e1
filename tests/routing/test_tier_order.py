"""The weak tiers go first where the strong one is not expected to do better."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mqrouter.routing.gain import GainRegressor, form
from mqrouter.routing.signals import Embedding, Signals, estimate_tokens
from mqrouter.routing.tier_order import TierOrder

TRAITS = len(form(""))
ALONG_FIRST = GainRegressor(
    slopes=np.concatenate([[1.0, 0.0], np.zeros(TRAITS)]),
    bias=0.0,
    means=np.zeros(TRAITS),
    spreads=np.ones(TRAITS),
    length_slope=0.0,
    length_bias=0.0,
    trust=1.0,
    penalty=1.0,
    gained=0.1,
    gained_error=0.01,
)
ORDER = TierOrder(ALONG_FIRST, 0.2, ("edge", "hub", "datacenter"), switch_margin=0.1)
TO = ("hub", "datacenter", "edge")
WEAK_FIRST = ("edge", "hub", "datacenter")


def question(gain: float) -> Signals:
    vector = np.array([gain, (1 - gain * gain) ** 0.5], dtype=np.float32)
    return Signals(4, estimate_tokens(4), Embedding(vector, 1, False), False, None, "wet?")


@pytest.mark.parametrize(("gain", "tiers"), [(0.1, WEAK_FIRST), (0.3, TO), (-1.0, WEAK_FIRST)])
def test_weak_tiers_go_first_below_the_least_gain(gain: float, tiers: tuple[str, ...]) -> None:
    found, explained = ORDER.order(TO, question(gain))
    assert found == tiers
    assert explained.expected == pytest.approx(gain, abs=1e-6)
    assert (explained.least, explained.is_weak_first, explained.is_sessions) == (0.2, tiers == WEAK_FIRST, False)


def test_zero_is_a_least_gain() -> None:
    order = dataclasses.replace(ORDER, least=0.0)
    assert order.order(TO, question(0.01))[0] == TO
    assert order.order(TO, question(-0.01))[0] == WEAK_FIRST


def test_sessions_first_tier_stays_while_the_gain_is_near_the_least() -> None:
    near, far = question(0.25), question(0.45)
    found, explained = ORDER.order(TO, near, session=WEAK_FIRST)
    assert (found, explained.is_weak_first, explained.is_sessions) == (WEAK_FIRST, True, True)
    assert ORDER.order(TO, far, session=WEAK_FIRST)[0] == TO
    assert ORDER.order(TO, question(0.15), session=("hub",))[0] == TO
    assert ORDER.order(TO, near, session=("datacenter",))[0] == TO
