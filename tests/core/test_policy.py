"""What no score may override."""

from __future__ import annotations

from mqrouter.core.policy import Struck, TierFacts, TierPlan, plan_tiers, struck_for_now
from mqrouter.core.spending import Over
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
    facts = FACTS | {"mask": TierFacts("mask", is_local=False, is_trusted=False, context_chars=100, redacts=True)}

    def tiers(**more: bool) -> tuple[str, ...]:
        rules = {"is_private": True, "fall_back_locally": False} | more
        return plan_tiers(("cloud", "mask", "hub"), facts, chars=10, **rules).tiers

    assert tiers(is_redactable=True) == ("mask", "hub")
    assert tiers(is_redactable=False) == ("hub",)


def test_private_question_falls_back_to_this_device_only() -> None:
    assert plan("cloud", private=True, local=True).tiers == ("edge",)


def test_size_strikes_tiers_out_at_their_limit() -> None:
    """A question takes 30 % more of the window than it has characters: 76 of them take 99, 77 take 101."""
    assert plan("edge", "hub", chars=76).tiers == ("edge", "hub")
    found = plan("edge", "hub", chars=77)
    why = "too long: 77 characters, 101 with the 30 % buffer, the tier takes 100"
    assert (found.tiers, found.struck) == (("hub",), (Struck("edge", why),))
    assert plan("edge", "hub", chars=769).tiers == ("hub",)
    assert plan("edge", "hub", chars=770).refusal is ErrorCode.TOO_LARGE


def test_tier_at_its_own_limit_is_named_and_keeps_its_place() -> None:
    found = struck_for_now(
        plan("cloud", "edge"), {"cloud": Over("budget per day: 5 of 5 taken", 99), "hub": Over("", 1)}
    )
    assert found.tiers == ("cloud", "edge")
    assert found.struck == (Struck("cloud", "budget per day: 5 of 5 taken", 99),)


def test_private_and_too_long_for_the_trusted_is_too_large() -> None:
    assert plan("edge", "cloud", private=True, chars=101).refusal is ErrorCode.TOO_LARGE


def test_local_fallback_stands_last_and_once() -> None:
    assert plan("hub", local=True).tiers == ("hub", "edge")
    assert plan("edge", "hub", local=True).tiers == ("edge", "hub")


def test_nothing_wanted_is_no_route_even_with_a_local_fallback() -> None:
    assert plan().refusal is ErrorCode.NO_ROUTE
    assert plan(local=True).refusal is ErrorCode.NO_ROUTE
