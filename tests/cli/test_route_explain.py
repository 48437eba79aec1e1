"""`mqrouter route explain`: every strategy's score and its terms, for people."""

from __future__ import annotations

from pathlib import Path

from mqrouter.cli.queue import format_decision
from mqrouter.cli.route import _format_local_answers, _format_strategies, _format_tiers, daemons_tiers
from mqrouter.routing.signals import TierSignal
from mqrouter.settings import Settings


def test_terms_are_shown_with_their_weights() -> None:
    terms = [{"name": "C_tokens", "value": 0.5, "weight": 0.2}, {"name": "Sim_centroid", "value": 0.9, "weight": 0.7}]
    ranked = [{"route": "water", "score": 0.73, "threshold": 0.3, "terms": terms}]
    lines = _format_strategies({"hybrid": {"ranked": ranked, "scope": {"score": 1.0, "threshold": 0.5}}})
    assert lines[1] == (
        "    hybrid     water 0.730 = 0.2 x C_tokens 0.500, 0.7 x Sim_centroid 0.900; in scope 1.00, least 0.50"
    )


def test_health_of_the_tiers_is_shown_where_the_daemon_runs() -> None:
    signals = {"hub": {"is_up": True, "latency_ms": 812.4}, "edge": {"is_up": False, "latency_ms": None}}
    assert _format_tiers({"tier_signals": signals, "unknown": None}) == "  health:   hub up 812 ms, edge not usable"


def test_health_is_said_to_be_a_guess_where_it_does_not(tmp_path: Path) -> None:
    seen = daemons_tiers(Settings.model_validate({"gateway": {"data_dir": tmp_path}}))
    assert seen.tiers == dict.fromkeys(("edge", "hub"), TierSignal(True, None))
    assert _format_tiers(seen.to_json()) == "  health:   taken as if every tier were up: the daemon is not running"


def test_order_by_gain_and_inheritance_are_shown() -> None:
    gain = {"expected": 0.031, "least": 0.1, "is_weak_first": True, "is_sessions": False}
    decision = {
        "route": "water", "best": "water", "reason": "session", "score": 0.2, "threshold": 0.3, "margin": -0.1,
        "strategy": "learned", "inherited_from": "r7", "tiers": ["edge", "hub"], "when_offline": "queue", "struck": [],
        "ranked": [], "nearest": [], "is_cut": False, "gain": gain,
    }  # fmt: skip
    lines = format_decision(decision)
    assert "  session:  keeps the route of request r7" in lines
    assert "  gain:     +0.031 expected, least +0.100: the weak tiers first" in lines


def test_what_a_local_answer_must_reach_is_shown() -> None:
    entries = [("a", None, None), ("b", 0.5, None), ("c", 0.5, 40)]
    found = [{"tier": name, "least_confidence": least, "calibrated_on": on} for name, least, on in entries]
    assert _format_local_answers(found) == [
        "  judged:   an answer of a by its form",
        "  judged:   an answer of b by its form and its confidence, least 0.50, not calibrated",
        "  judged:   an answer of c by its form and its confidence, least 0.50, calibrated on 40 verdicts",
    ]
