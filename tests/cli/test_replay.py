"""`mqrouter route replay`: what would change is counted; questions stay out of sight."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import PREFIX, QUEUE, START_MS, request

from mqrouter.cli.daemon import open_database
from mqrouter.cli.replay import Outcome, Replayed, _lines, summary
from mqrouter.cli.replay_cost import Call, cost, cost_lines, tokens_of
from mqrouter.core.request import Answer, Form
from mqrouter.core.states import State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.past import Answered, decided
from mqrouter.edge.store.store import Policy, Store
from mqrouter.settings import LocalTier, OpenAiTier, Tier


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


def test_private_question_is_never_shown() -> None:
    entry = replace(replayed(1, HUB, CODE), is_private=True)
    found = summary([entry], show_text=True)
    assert found["differences"][0]["text"] == "(private)"
    assert "secret" not in json.dumps(found) + "\n".join(_lines(found))


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [
        (("hub", "edge"), ("hub", "far"), ["edge", "far"]),
        (("hub",), ("hub", "edge"), [None, "edge"]),
        (("hub",), ("hub",), None),
    ],
)
def test_first_tier_that_differs_is_named(before: tuple[str, ...], after: tuple[str, ...], first: object) -> None:
    entry = replayed(1, Outcome("cattle", before, None), Outcome("code", after, None))
    (found,) = summary([entry], show_text=False)["differences"]
    assert found["first_other_tier"] == first


def tier(price: float | None, kind: str = "openai") -> Tier:
    prices = {} if price is None else {"prompt_price_per_million": price, "completion_price_per_million": 10 * price}
    if kind == "local":
        return LocalTier.model_validate({"kind": kind} | prices)
    return OpenAiTier.model_validate({"kind": kind, "url": "http://x", "model": "m", "max_tokens": 300} | prices)


def test_cost_is_of_stored_tokens_where_there_are_any_and_else_estimated() -> None:
    tiers = {"edge": tier(None, "local"), "hub": tier(1.0), "far": tier(100.0), "friend": tier(None)}
    counted = tokens_of(4_000, Answered("hub", 50, (200_000, 100_000)))
    text = tokens_of(400, Answered("hub", 400, None))
    unanswered = tokens_of(400, None)
    calls = [
        Call("hub", "far", counted),
        Call("edge", "hub", text),
        Call("hub", None, unanswered),
        Call("hub", "friend", counted),
        Call("gone", "hub", counted),
    ]
    found = cost(calls, tiers, tiers)
    assert found is not None
    mean = round((3 * 100_000 + 130) / 4)
    assert found["before"] == pytest.approx((200_000 + 1_000_000) / 1e6 + (130 + 10 * mean) / 1e6)
    assert found["after"] == pytest.approx((20_000_000 + 100_000_000) / 1e6 + (130 + 1_300) / 1e6)
    assert (found["requests"], found["by_stored_usage"], found["estimated"], found["without_price"]) == (3, 1, 2, 2)
    lines = "\n".join(cost_lines(found))
    assert "tokens of 1 as the tier counted them, of 2 estimated" in lines and "2 requests are left out" in lines


def test_answer_nobody_has_seen_counts_as_the_longest() -> None:
    found = cost([Call("hub", "hub", tokens_of(0, None))], {"hub": tier(1.0)}, {"hub": tier(2.0)})
    assert found is not None and (found["before"], found["after"]) == (0.003, 0.006)


def test_without_prices_there_is_no_cost() -> None:
    assert cost([Call("hub", "hub", tokens_of(9, None))], {"hub": tier(None)}, {"hub": tier(None)}) is None


async def test_tokens_are_read_from_the_answer_sent(tmp_path: Path) -> None:
    async with Database(tmp_path / "mqrouter.db") as database:
        store = Store(database, Policy(QUEUE, 1, 1))
        for payload in ('{"question": "how"}', "how"):
            item = request(payload, topic=f"{PREFIX}/ask/d1")
            await store.accept([item], START_MS)
            (row,) = await store.next_received(10, ())
            await store.queue_for_tiers(row, ("hub",), route="r", confidence=1, decision={"a": 1}, now_ms=START_MS)
            answer = Answer("it is so", tier="hub", usage={"prompt_tokens": 7, "completion_tokens": 9})
            await store.finish(row, answer, State.ANSWERED, START_MS)
    with open_database(tmp_path / "mqrouter.db") as db:
        found = {entry.request.reply.form: entry.answered for entry in decided(db, 0, 10)}
    assert found == {Form.JSON: Answered("hub", 8, (7, 9)), Form.TEXT: Answered("hub", 8, None)}


def test_nothing_changed_is_said_without_empty_tables() -> None:
    lines = "\n".join(_lines(summary([replayed(1, HUB, HUB)], show_text=False)))
    assert "1 requests decided again; 0 would" in lines
    assert "WOULD BE" in lines and "-> " not in lines
