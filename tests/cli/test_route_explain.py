"""`mqrouter route explain`: every strategy's score and its terms, for people."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mqrouter.cli.queue import format_decision
from mqrouter.cli.route import _format_strategies, _format_tiers, _over, daemons_tiers
from mqrouter.core.spending import Over
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


def test_limit_of_a_tier_comes_from_the_running_daemon() -> None:
    limit = {"reason": "budget per day: 5 of 5 taken", "until_ms": 1_700_006_400_000, "for_s": 6400.0}
    assert _over(limit) == Over("budget per day: 5 of 5 taken", 1_700_006_400_000)
    assert _over(None) is None


def test_tier_struck_out_for_now_shows_until_when() -> None:
    struck = {"tier": "hub", "reason": "budget per day: 5 of 5 taken", "until_ms": 1_700_006_400_000}
    decision = {
        "route": "water", "best": "water", "reason": "above_threshold", "score": 0.5, "threshold": 0.3, "margin": 0.1,
        "strategy": "semantic", "tiers": ["hub"], "when_offline": "queue", "ranked": [], "nearest": [],
        "is_cut": False, "struck": [struck, {"tier": "edge", "reason": "too long"}],
    }  # fmt: skip
    until = datetime.fromtimestamp(1_700_006_400)
    lines = format_decision(decision)
    assert f"  struck:   hub: budget per day: 5 of 5 taken; for now, until {until:%Y-%m-%d %H:%M:%S}" in lines
    assert "  struck:   edge: too long" in lines


def test_kind_of_private_data_is_shown() -> None:
    decision = {
        "route": "water", "best": "water", "reason": "above_threshold", "score": 0.5, "threshold": 0.3, "margin": 0.1,
        "strategy": "semantic", "tiers": [], "when_offline": "queue", "ranked": [], "nearest": [], "is_cut": False,
        "struck": [{"tier": "hub", "reason": "private: the tier is not trusted"}], "private_by": ["topic", "phone"],
    }  # fmt: skip
    lines = format_decision(decision)
    assert "  private:  its topic is private, it holds a phone number" in lines
    assert "  struck:   hub: private: the tier is not trusted" in lines


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
