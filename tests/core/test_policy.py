"""What no score may override."""

from __future__ import annotations

from mqrouter.core.policy import Struck, TierFacts, TierPlan, plan_tiers
from mqrouter.errors import ErrorCode

FACTS = {
    "edge": TierFacts("edge", is_local=True, is_trusted=True, context_chars=100),
    "hub": TierFacts("hub", is_local=False, is_trusted=True, context_chars=1000),
    "cloud": TierFacts("cloud", is_local=False, is_trusted=False, context_chars=10_000),
}


def plan(*wanted: str, private: bool = False, chars: int = 10, local: bool = False) -> TierPlan:
    return plan_tiers(wanted, FACTS, is_private=private, chars=chars, fall_back_locally=local)


def test_order_of_preference_is_kept() -> None:
    assert plan("cloud", "hub", "edge").tiers == ("cloud", "hub", "edge")


def test_private_question_never_meets_an_untrusted_tier() -> None:
    found = plan("cloud", "hub", private=True)
    assert (found.tiers, found.struck) == (("hub",), (Struck("cloud", "private: the tier is not trusted"),))


def test_private_question_without_a_trusted_tier_is_refused() -> None:
    found = plan("cloud", private=True)
    assert (found.tiers, found.refusal) == ((), ErrorCode.PRIVATE_UNANSWERABLE)


def test_question_that_can_be_redacted_meets_the_tiers_that_redact() -> None:
    facts = FACTS | {"mask": TierFacts("mask", is_local=False, is_trusted=False, context_chars=10, redacts=True)}

    def tiers(**more: bool) -> tuple[str, ...]:
        rules = {"is_private": True, "fall_back_locally": False} | more
        return plan_tiers(("cloud", "mask", "hub"), facts, chars=10, **rules).tiers

    assert tiers(is_redactable=True) == ("mask", "hub")
    assert tiers(is_redactable=False) == ("hub",)


def test_private_question_falls_back_to_this_device_only() -> None:
    assert plan("cloud", private=True, local=True).tiers == ("edge",)


def test_size_strikes_tiers_out_at_their_limit() -> None:
    assert plan("edge", "hub", chars=100).tiers == ("edge", "hub")
    found = plan("edge", "hub", chars=101)
    assert (found.tiers, found.struck) == (("hub",), (Struck("edge", "too long: 101 characters, the tier takes 100"),))
    assert plan("edge", "hub", chars=1001).refusal is ErrorCode.TOO_LARGE


def test_private_and_too_long_for_the_trusted_is_too_large() -> None:
    assert plan("edge", "cloud", private=True, chars=101).refusal is ErrorCode.TOO_LARGE


def test_local_fallback_stands_last_and_once() -> None:
    assert plan("hub", local=True).tiers == ("hub", "edge")
    assert plan("edge", "hub", local=True).tiers == ("edge", "hub")


def test_nothing_wanted_is_no_route_even_with_a_local_fallback() -> None:
    assert plan().refusal is ErrorCode.NO_ROUTE
    assert plan(local=True).refusal is ErrorCode.NO_ROUTE
