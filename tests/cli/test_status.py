"""`mqrouter status`: what each tier has used of its limits, for people."""

from __future__ import annotations

import pytest

from mqrouter.cli.status import _limit_lines, _lines, _page_lines, _why_unused, breaker_word


def test_levels_of_a_tier_are_shown_with_what_is_left_to_wait() -> None:
    levels = [
        {"name": "requests_per_minute", "used": 3, "limit": 60, "resets_in_s": 12.0},
        {"name": "tokens_per_minute", "used": 0, "limit": 9000, "resets_in_s": None},
        {"name": "budget_per_day", "used": 0.25, "limit": None, "resets_in_s": 7200.0},
    ]
    assert _limit_lines("hub", levels) == [
        "  hub: requests per minute: 3 of 60 taken; there is more room in 12.0 s",
        "  hub: tokens per minute: 0 of 9000 taken",
        "  hub: budget per day: 0.25 taken; there is more room in 2.0 h",
    ]


def test_tier_at_its_limit_says_which_and_for_how_long() -> None:
    limit = {"reason": "budget per day: 5 of 5 taken", "until_ms": 1, "for_s": 3600.0}
    tier = {"paused_by": None, "limit": limit, "held_s": 0.0, "reason": None}
    assert _why_unused(tier) == "at its limit for 1.0 h: budget per day: 5 of 5 taken"


def test_breaker_of_a_tier_that_nobody_asked_yet_is_not_called_closed() -> None:
    assert breaker_word({"breaker": "closed", "tried": False}) == "not tried yet"
    assert breaker_word({"breaker": "closed", "tried": True}) == "closed"
    assert breaker_word({"breaker": "open", "tried": True}) == "open"


def test_states_are_told_in_words_that_need_no_glossary() -> None:
    requests = {"received": 0, "pending": 2, "expired": 1}
    text = _lines({"running": False, "requests": requests, "oldest_waiting_s": None, "salvage": None})
    assert "requests: 0 waiting to be decided, 2 waiting for a tier, 1 expired" in text


@pytest.mark.parametrize(
    ("url", "error", "line"),
    [
        ("http://127.0.0.1:8087", None, "  page      http://127.0.0.1:8087"),
        ("http://[::]:80", None, "  page      http://[::]:80 (every address of this machine)"),
        (None, None, "  page      not listening yet"),
        (None, "127.0.0.1:80: denied", "  PAGE      HTTP is not listening: 127.0.0.1:80: denied; see http.host"),
    ],
)
def test_page_is_said_to_be_where_it_is(url: str | None, error: str | None, line: str) -> None:
    (found,) = _page_lines({"enabled": True, "url": url, "error": error})
    assert found.startswith(line) and (error is not None or found == line)


def test_page_that_is_off_or_unknown_is_not_given_an_address() -> None:
    assert _page_lines({"enabled": False, "url": None, "error": None}) == ["  page      off: http.enabled is false"]
    assert _page_lines(None) == []
