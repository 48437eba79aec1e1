"""From scores to a route, or to none, with the reason."""

from __future__ import annotations

import json

import pytest

from mqrouter.routing.decision import Decision, Neighbour, Reason, RouteScore, Scope, Scores, decide
from mqrouter.routing.session import Session
from mqrouter.routing.signals import estimate_tokens


def decided(
    *ranked: tuple[str, float, float], min_margin: float = 0.05, asked: str | None = None, is_cut: bool = False
) -> Decision:
    scores = Scores(tuple(RouteScore(*entry) for entry in ranked), (Neighbour("wet?", "a", 0.9),))
    return decide(
        scores, strategy="semantic", min_margin=min_margin, asked_route=asked, embedded_tokens=7, is_cut=is_cut
    )


def test_best_route_above_its_threshold_is_taken() -> None:
    found = decided(("a", 0.6, 0.5), ("b", 0.4, 0.1))
    assert (found.route, found.reason, found.score, found.threshold) == ("a", Reason.ABOVE_THRESHOLD, 0.6, 0.5)
    assert found.margin == pytest.approx(0.2)


def test_threshold_itself_is_enough() -> None:
    assert decided(("a", 0.5, 0.5), ("b", 0.1, 0.1)).route == "a"


def test_below_the_threshold_it_abstains_and_says_what_came_nearest() -> None:
    found = decided(("a", 0.49, 0.5), ("b", 0.1, 0.0))
    assert (found.route, found.reason, found.best) == (None, Reason.BELOW_THRESHOLD, "a")


def test_too_close_to_the_second_it_abstains() -> None:
    found = decided(("a", 0.60, 0.5), ("b", 0.56, 0.5))
    assert (found.route, found.reason, found.best) == (None, Reason.TOO_CLOSE, "a")
    assert decided(("a", 0.6, 0.5), ("b", 0.6, 0.5), min_margin=0.0).route == "a"


@pytest.mark.parametrize(("score", "threshold", "route"), [(0.0, 0.0, "a"), (-0.1, 0.0, None), (-0.3, -0.5, "a")])
def test_zero_and_negative_thresholds_are_values(score: float, threshold: float, route: str | None) -> None:
    assert decided(("a", score, threshold), ("b", -0.9, 0.0)).route == route


def test_negative_margin_is_a_value() -> None:
    assert decided(("a", 0.6, 0.5), ("b", 0.6, 0.5), min_margin=-1.0).route == "a"


def test_only_route_has_no_second_to_be_too_close_to() -> None:
    found = decided(("a", 0.01, 0.0))
    assert (found.route, found.reason) == ("a", Reason.ABOVE_THRESHOLD)
    assert decided(("a", -0.4, -0.5)).route == "a"


def test_asked_route_goes_before_scores_and_is_explained_with_its_own() -> None:
    found = decided(("a", 0.6, 0.5), ("b", 0.1, 0.5), asked="b")
    assert (found.route, found.reason, found.best) == ("b", Reason.ASKED_FOR, "b")
    assert (found.score, found.threshold) == (0.1, 0.5)
    assert found.margin == pytest.approx(-0.5)


def test_explanation_is_json_and_names_what_was_ranked() -> None:
    found = decided(("a", 0.9, 0.5), ("b", 0.3, 0.5), ("c", 0.2, 0.5), is_cut=True)
    value = json.loads(json.dumps(found.to_json()))
    assert [entry["route"] for entry in value["ranked"]] == ["a", "b", "c"]
    assert value["nearest"] == [{"example": "wet?", "route": "a", "similarity": 0.9}]
    assert (value["strategy"], value["reason"], value["embedded_tokens"]) == ("semantic", "above_threshold", 7)
    assert value["is_cut"] is True


@pytest.mark.parametrize(("chars", "tokens"), [(0, 0), (1, 1), (4, 2), (400, 130), (401, 131)])
def test_token_estimate_is_rounded_up_with_a_buffer(chars: int, tokens: int) -> None:
    assert estimate_tokens(chars) == tokens


# --- session ----------------------------------------------------------------------------------------


def within(
    *ranked: tuple[str, float, float],
    leans: bool = False,
    scope: float = 1.0,
    cost: float = 0.1,
    asked: str | None = None,
) -> tuple[str | None, Reason]:
    """Returns what is decided in a session that is on route b."""
    found = decide(
        Scores(tuple(RouteScore(*entry) for entry in ranked), scope=Scope(scope, 0.5)),
        strategy="learned",
        min_margin=0.05,
        asked_route=asked,
        embedded_tokens=7,
        is_cut=False,
        session=Session("r7", "b", ("hub",)),
        is_referential=leans,
        switch_margin=cost,
    )
    assert (found.inherited_from == "r7") == (found.reason is Reason.SESSION)
    return found.route, found.reason


@pytest.mark.parametrize(
    ("ranked", "scope"),
    [
        ([("a", 0.4, 0.5), ("b", 0.1, 0.5)], 1.0),
        ([("a", 0.6, 0.5), ("c", 0.59, 0.5), ("b", 0.1, 0.5)], 1.0),
        ([("a", 0.9, 0.5), ("b", 0.1, 0.5)], 0.0),
    ],
    ids=["below", "close", "out of scope"],
)
def test_question_that_leans_on_its_session_inherits_where_it_would_abstain(
    ranked: list[tuple[str, float, float]], scope: float
) -> None:
    assert within(*ranked, scope=scope, leans=True) == ("b", Reason.SESSION)
    assert within(*ranked, scope=scope, leans=False)[0] is None


def test_inherited_route_is_explained_with_its_own_score() -> None:
    session = Session("r7", "b", ())
    scores = Scores((RouteScore("a", 0.4, 0.5), RouteScore("b", 0.1, 0.2)))
    kwargs = {"strategy": "s", "min_margin": 0.0, "asked_route": None, "embedded_tokens": 1, "is_cut": False}
    found = decide(scores, **kwargs, session=session, is_referential=True)  # type: ignore[arg-type]
    assert (found.best, found.score, found.threshold) == ("b", 0.1, 0.2)
    assert found.margin == pytest.approx(-0.3)


def test_another_route_needs_a_gain_above_the_cost_of_switching() -> None:
    assert within(("a", 0.65, 0.5), ("b", 0.57, 0.5)) == ("b", Reason.SESSION)
    assert within(("a", 0.65, 0.5), ("b", 0.55, 0.5), cost=0.09) == ("a", Reason.ABOVE_THRESHOLD)
    assert within(("a", 0.65, 0.5), ("b", 0.57, 0.5), cost=0.0) == ("a", Reason.ABOVE_THRESHOLD)


def test_close_call_with_the_sessions_route_stays() -> None:
    assert within(("b", 0.60, 0.5), ("a", 0.59, 0.5)) == ("b", Reason.SESSION)
    assert within(("a", 0.60, 0.5), ("b", 0.59, 0.5)) == ("b", Reason.SESSION)
    assert within(("a", 0.60, 0.5), ("b", 0.59, 0.595)) == (None, Reason.TOO_CLOSE)


def test_sessions_own_route_and_an_asked_one_are_no_inheritance() -> None:
    assert within(("b", 0.65, 0.5), ("a", 0.1, 0.5), leans=True) == ("b", Reason.ABOVE_THRESHOLD)
    assert within(("b", 0.65, 0.5), ("a", 0.1, 0.5), asked="a", leans=True) == ("a", Reason.ASKED_FOR)
