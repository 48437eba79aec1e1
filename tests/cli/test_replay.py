"""`mqrouter route replay`: what would change is counted; questions stay out of sight."""

from __future__ import annotations

import json

from mqrouter.cli.replay import Outcome, Replayed, _lines, summary


def replayed(number: int, before: Outcome, after: Outcome) -> Replayed:
    return Replayed(f"r{number}", "d1", "my secret question", before, after)


HUB, EDGE = Outcome("cattle", ("hub", "edge"), None), Outcome("cattle", ("edge",), None)
CODE, NONE, REFUSED = Outcome("code", ("hub",), None), Outcome(None, ("edge",), None), Outcome(None, (), "no_route")


def test_changes_are_counted_by_route_and_by_first_tier() -> None:
    pairs = [(HUB, HUB), (HUB, EDGE), (HUB, CODE), (NONE, CODE), (CODE, REFUSED)]
    found = summary([replayed(n, *pair) for n, pair in enumerate(pairs)], show_text=False)
    assert (found["requests"], found["changed"]) == (5, 4)
    assert found["route_changes"] == [
        {"from": "cattle", "to": "code", "requests": 1},
        {"from": None, "to": "code", "requests": 1},
        {"from": "code", "to": None, "requests": 1},
    ]
    moved = {(change["from"], change["to"]): change["requests"] for change in found["tier_changes"]}
    assert moved == {("hub", "edge"): 1, ("edge", "hub"): 1, ("hub", "(none)"): 1}
    assert {tier["tier"]: tier["difference"] for tier in found["tiers"]} == {"hub": -1, "edge": 0, "(none)": 1}


def test_question_is_shown_only_when_asked_for() -> None:
    entries = [replayed(1, HUB, CODE)]
    hidden, shown = summary(entries, show_text=False), summary(entries, show_text=True)
    assert "secret" not in json.dumps(hidden) + "\n".join(_lines(hidden))
    assert "secret" in json.dumps(shown) and "secret" in "\n".join(_lines(shown))


def test_nothing_changed_is_said_without_empty_tables() -> None:
    lines = "\n".join(_lines(summary([replayed(1, HUB, HUB)], show_text=False)))
    assert "1 requests decided again; 0 would" in lines
    assert "WOULD BE" in lines and "-> " not in lines
