"""Why a request waits is said as it is now, not as it was when it came in or last failed."""

from typing import Any

import pytest

from mqrouter.core.waiting import Standing, TierStanding, explained, standing_of_status, why_waiting

DOWN = TierStanding(is_up=False, is_open=True, reason="no route to host", probe_in_s=12.3)
PAUSED = TierStanding(is_up=False, paused_by="mqtt")
FULL = TierStanding(is_up=False, limit="budget per day", limit_for_s=7200.0)
HELD = TierStanding(is_up=False, held_s=30.0)
UP, BUSY = TierStanding(), TierStanding(in_flight=2)


def row(**fields: Any) -> dict[str, Any]:
    return {
        "state": "pending",
        "route": "frost",
        "tier": None,
        "waiting_for": "hub>edge",
        "next_attempt_in_s": None,
        "attempts": 0,
        "last_failure": None,
        "is_suspect": False,
        "dropped_for_s": None,
    } | fields


@pytest.mark.parametrize(
    ("hub", "edge", "expected"),
    [
        (DOWN, PAUSED, "hub is down (no route to host), looked at again in 12 s; edge is paused by mqtt"),
        (FULL, HELD, "hub is at its limit for 2.0 h: budget per day; edge asked to be left alone for 30 s"),
        (UP, DOWN, "its turn comes at hub, behind others"),
        (BUSY, UP, "its turn comes at hub, behind others: hub works on 2"),
        (PAUSED, UP, "its turn comes at edge, behind others (hub is paused by mqtt)"),
    ],
)
def test_pending_request_waits_for_its_tiers(hub: TierStanding, edge: TierStanding, expected: str) -> None:
    failed_before = row(last_failure="hub: transient: HTTP 503", attempts=1)
    assert why_waiting(failed_before, Standing({"hub": hub, "edge": edge})) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "received"}, "is being decided"),
        ({"state": "leased", "tier": "hub"}, "hub is working on it"),
        ({"state": "dropped", "dropped_for_s": 82_800.0}, "dropped: ends in 23.0 h unless undone"),
        (
            {"next_attempt_in_s": 40.0, "attempts": 2, "last_failure": "hub: transient: HTTP 503"},
            "next try in 40 s after attempt 2: hub: transient: HTTP 503",
        ),
        ({"is_suspect": True}, "it was in hand when the daemon was killed: such requests are tried one at a time"),
        ({"waiting_for": "moon"}, "moon is not configured any more"),
        ({"state": "answered", "attempts": 2}, None),
        ({"state": "delivered"}, None),
        ({"state": "expired"}, None),
    ],
)
def test_reason_follows_the_state(fields: dict[str, Any], expected: str | None) -> None:
    assert why_waiting(row(**fields), Standing({"hub": UP, "edge": UP})) == expected


def test_paused_route_comes_before_everything_else() -> None:
    standing = Standing({"hub": DOWN, "edge": UP}, {"frost": "the operator"})
    assert why_waiting(row(next_attempt_in_s=40.0), standing) == "route frost is paused by the operator"
    assert why_waiting(row(route="talk"), standing) == (
        "its turn comes at edge, behind others (hub is down (no route to host), looked at again in 12 s)"
    )


def test_without_the_daemon_it_is_what_was_known_last() -> None:
    standing = Standing({"hub": PAUSED}, is_live=False)
    assert why_waiting(row(waiting_for="hub"), standing) == "hub is paused by mqtt"
    assert why_waiting(row(last_failure="edge: HTTP 500"), standing) == "the daemon is not running: edge: HTTP 500"
    assert why_waiting(row(state="received"), standing) == "was not decided yet"


def test_status_of_the_daemon_says_the_same() -> None:
    tier = {"usable": False, "paused_by": None, "breaker": "open", "reason": "x", "probe_in_s": 3.0, "held_s": 0.0}
    status = {
        "tiers": {"hub": tier | {"limit": None, "in_flight": 1}},
        "paused_routes": {"frost": {"paused_by": "me", "for_s": 1.0}},
    }
    standing = standing_of_status(status)
    assert standing.tiers["hub"] == TierStanding(False, None, True, "x", 3.0, in_flight=1)
    assert standing.paused_routes == {"frost": "me"}
    assert explained(row(), standing)["waits_because"] == "route frost is paused by me"
