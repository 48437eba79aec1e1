"""The API against a real store: what it shows, what its verbs do, and that its description is whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes import START_MS, FlakyDatabase, refused, request
from structlog.testing import capture_logs
from test_web_guard import Moment
from web_site import OPERATOR, VIEWER, Api, serving

from mqrouter.cli.transfer import FIELDS
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.steering import Selection, Verb
from mqrouter.core.timeline import Now
from mqrouter.edge.store.export import export
from mqrouter.edge.store.store import Store
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.recent import FRESH_S


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
async def api(store: Store, tmp_path: Path, moment: Moment) -> AsyncIterator[Api]:
    async with serving(store, tmp_path, moment) as api:
        yield api


# --- health -----------------------------------------------------------------------------------------


async def test_tier_that_is_down_leaves_the_gateway_ready(api: Api) -> None:
    api.board.unreachable("hub", "no route to host")
    assert await api.ask("GET", "/readyz", token=None) == (200, {"ready": True, "reasons": []})
    api.reasons.append("starting")
    assert await api.ask("GET", "/readyz", token=None) == (503, {"ready": False, "reasons": ["starting"]})
    assert await api.ask("GET", "/livez", token=None) == (200, {"alive": True})


# --- looking ----------------------------------------------------------------------------------------


async def devices(api: Api, query: str, *, token: str = VIEWER) -> list[str]:
    status, body = await api.ask("GET", f"/v1/requests?{query}", token=token)
    assert status == 200, body
    return [row["device"] for row in body["requests"]]


async def test_pages_follow_one_another_without_gap_or_repetition(api: Api) -> None:
    await api.queue(*(f"d{number}" for number in range(7)))
    for sort, expected in (("newest", range(6, -1, -1)), ("oldest", range(7))):
        found: list[str] = []
        after = ""
        while True:
            _, body = await api.ask("GET", f"/v1/requests?limit=3&sort={sort}{after}")
            found += [row["device"] for row in body["requests"]]
            if body["next"] is None:
                break
            after = f"&after={body['next']}"
        assert found == [f"d{number}" for number in expected]


async def paged(api: Api, query: str) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        status, body = await api.ask("GET", f"/v1/requests?{query}{after}")
        assert status == 200, body
        found += [row["device"] for row in body["requests"]]
        if body["next"] is None:
            return found
        after = f"&after={body['next']}"


async def test_what_waits_is_listed_by_who_is_next_what_expires_and_what_failed(api: Api) -> None:
    names = await api.queue(*"abcdefg")
    await api.queue("x", route="talk")
    for name, priority in zip(names, (0, 5, 0, 9, 5, 9, 0), strict=True):
        await api.ask("POST", f"/v1/requests/{name}/priority", json={"priority": priority})
    for name, ttl_s in zip(names, (70, 10, 40, 30, 60, 20, 50), strict=True):
        await api.ask("POST", f"/v1/requests/{name}/ttl", json={"ttl_s": ttl_s})
    served = [row.device for row in await api.store.claim("hub", ["hub>edge"], 9, START_MS)]
    await api.store.release_leases(START_MS)
    assert await paged(api, "sort=priority&limit=3") == served
    assert served[:4] == ["d", "f", "b", "e"]
    assert await paged(api, "sort=expiry&limit=2") == ["b", "f", "d", "c", "g", "e", "a", "x"]
    assert await paged(api, "sort=expiry&limit=2&route=frost&priority=0") == ["c", "g", "a"]
    assert await paged(api, "sort=expiry&state=delivered") == []
    for number in (3, 2):
        await api.fails(number, "HTTP 503")
        await api.store.wake_due(START_MS + 60_000)
    tried = await paged(api, "sort=attempts&limit=1")
    assert tried == ["f", "d", "b"]
    assert (await api.ask("GET", "/v1/requests?sort=attempts&after=999"))[1] == {"requests": [], "next": None}


async def test_filters_narrow_and_join(api: Api) -> None:
    await api.queue("a", "b")
    await api.queue("c", tiers=("edge",), route="talk")
    await api.fails(1, "HTTP 503 Busy")
    assert await devices(api, "route=talk") == ["c"]
    assert await devices(api, "tier=hub") == ["b", "a"]
    assert await devices(api, "tier=edge&sort=oldest") == ["a", "b", "c"]
    assert await devices(api, "device=b&route=frost") == ["b"]
    assert await devices(api, "device=b&route=talk") == []
    assert await devices(api, "error=http%20503") == ["a"]
    assert await devices(api, "text=SAYS%20b", token=OPERATOR) == ["b"]
    assert await devices(api, "priority=3") == []
    assert await devices(api, "state=pending&state=received&sort=oldest") == ["a", "b", "c"]
    assert await devices(api, "state=delivered") == []


async def test_age_is_a_bound_of_numbers(api: Api, store: Store) -> None:
    for number in range(5):
        item = request(f"q{number}?", topic=f"mqrouter/farm/ask/d{number}", now_ms=START_MS - 1000 * (5 - number))
        await store.accept([item], START_MS)
    assert await devices(api, "older_than_s=3&sort=oldest") == ["d0", "d1", "d2"]
    assert await devices(api, "newer_than_s=3&sort=oldest") == ["d2", "d3", "d4"]
    assert await devices(api, "older_than_s=2&newer_than_s=4&sort=oldest") == ["d1", "d2", "d3"]
    assert await devices(api, "older_than_s=9") == []


async def test_texts_are_shown_to_operators_who_ask(api: Api) -> None:
    (name,) = await api.queue("a")
    status, body = await api.ask("GET", f"/v1/requests/{name}", token=VIEWER)
    assert (status, body["payload"], body["payload_chars"]) == (200, None, 28)
    assert "what says" not in str(body)
    assert body["decision"]["route"] == "frost"
    assert [entry["event"] for entry in body["history"]] == ["received", "pending"]
    assert (await api.ask("GET", f"/v1/requests/{name}?text=true", token=VIEWER))[0] == 403
    assert (await api.ask("GET", "/v1/requests?text=what", token=VIEWER))[0] == 403  # a guess that is right tells it
    assert (await api.ask("GET", f"/v1/requests/{name}?text=true"))[1]["payload"] == '{"question": "what says a?"}'
    assert (await api.ask("GET", f"/v1/requests/{name}/decision"))[1] == {"decision": body["decision"]}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "state=nonsense",
        "after=-1",
        f"after={2**63}",
        "older_than_s=nan",
        "older_than_s=-1",
        "priority=10",
        "sort=best",
        "what=1",
        "route=a&route=b",
        "route=",
        "%ff=1",
        f"text={'x' * 501}",
    ],
)
async def test_query_that_is_not_understood_is_said(api: Api, query: str) -> None:
    status, body = await api.ask("GET", f"/v1/requests?{query}")
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_what_is_not_there_is_said(api: Api) -> None:
    for method, path, expected in (
        ("GET", "/v1/requests/nobody", 404),
        ("POST", "/v1/requests/nobody/cancel", 404),
        ("POST", "/v1/tiers/moon/pause", 404),
        ("POST", "/v1/orders/dance", 404),
        ("POST", "/v1/orders/purge?older_than_s=x", 400),
        ("POST", "/v1/orders/purge?older_than_s=inf", 400),
        ("POST", "/v1/orders/purge?older=7", 400),
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/requests", 405),
    ):
        status, body = await api.ask(method, path)
        assert (status, set(body["error"])) == (expected, {"code", "message"}), path


# --- verbs ------------------------------------------------------------------------------------------


async def shown(api: Api, name: str) -> dict[str, Any]:
    body: dict[str, Any] = (await api.ask("GET", f"/v1/requests/{name}"))[1]
    return body


async def test_retry_makes_a_request_due(api: Api) -> None:
    (name,) = await api.queue("a")
    await api.fails(1, "HTTP 503")
    assert (await shown(api, name))["next_attempt_in_s"] == 60.0
    status, body = await api.ask("POST", f"/v1/requests/{name}/retry")
    assert (status, body) == (200, {"id": name, "found": "pending", "is_changed": True, "why_not": None})
    found = await shown(api, name)
    assert (found["next_attempt_in_s"], found["attempts"]) == (None, 0)


async def test_retry_looks_at_a_tier_that_is_down_at_once(api: Api) -> None:
    """Its pause may have grown to minutes, and whoever mended it says so by this."""
    (name,) = await api.queue("a")
    api.board.unreachable("hub", "refused")
    assert api.board.standing()["hub"].probe_in_s
    await api.ask("POST", "/v1/bulk/retry", json={"ids": [name], "dry_run": True})
    assert api.board.standing()["hub"].probe_in_s
    await api.ask("POST", f"/v1/requests/{name}/retry")
    assert api.board.standing()["hub"].probe_in_s == 0.0


async def test_cancelled_request_is_answered_and_stays_so(api: Api) -> None:
    (name,) = await api.queue("a")
    status, body = await api.ask("POST", f"/v1/requests/{name}/cancel", json={"message": "harvest is over"})
    assert (status, body["found"]) == (200, "pending")
    (answer,) = await api.store.outbox_after(0, 9)
    assert b"harvest is over" in answer.message.payload
    _, again = await api.ask("POST", f"/v1/requests/{name}/cancel")
    assert (again["is_changed"], again["why_not"]) == (False, "it is cancelled")
    assert api.store.counts.total() == 0


async def test_moved_request_waits_for_that_tier_alone(api: Api) -> None:
    (name,) = await api.queue("a")
    assert (await api.ask("POST", f"/v1/requests/{name}/move", json={"tier": "moon"}))[0] == 404
    assert (await api.ask("POST", f"/v1/requests/{name}/move", json={"tier": "edge"}))[0] == 200
    assert (await shown(api, name))["waiting_for"] == "edge"
    assert not await api.store.claim("hub", ["hub>edge", "hub"], 9, START_MS)
    assert "edge" in api.store.todo_lists
    (row,) = await api.store.claim("edge", ["edge"], 9, START_MS)
    assert row.id == name


async def test_private_request_is_not_moved_to_a_tier_that_is_not_trusted(api: Api) -> None:
    await api.store.accept([request('{"question": "x?", "private": true}')], START_MS)
    (row,) = await api.store.next_received(1, ())
    decision = {"private_by": ["request"]}
    await api.store.queue_for_tiers(row, ("edge",), route="r", confidence=1.0, decision=decision, now_ms=START_MS)
    for path in (f"/v1/requests/{row.id}/move", "/v1/bulk/move"):
        body = {"tier": "hub"} | ({"all": True} if "bulk" in path else {})
        status, found = await api.ask("POST", path, json=body)
        outcome = found if "bulk" not in path else found["outcomes"][0]
        assert (status, outcome["is_changed"], "private" in outcome["why_not"]) == (200, False, True)
    assert (await shown(api, row.id))["waiting_for"] == "edge"


async def test_priority_decides_who_is_next(api: Api) -> None:
    first, second = await api.queue("a", "b")
    assert (await api.ask("POST", f"/v1/requests/{second}/priority", json={"priority": 9}))[0] == 200
    (row,) = await api.store.claim("hub", ["hub>edge"], 1, START_MS)
    assert row.id == second
    status, body = await api.ask("POST", f"/v1/requests/{second}/priority", json={"priority": 1})
    assert (status, body["why_not"]) == (200, "it is leased")
    assert (await api.ask("POST", f"/v1/requests/{first}/priority", json={"priority": 10}))[0] == 400


async def test_time_to_live_counts_from_now_and_has_its_limit(api: Api) -> None:
    (name,) = await api.queue("a")
    await api.ask("POST", f"/v1/requests/{name}/ttl", json={"ttl_s": 60})
    assert (await shown(api, name))["expires_in_s"] == 60.0
    await api.ask("POST", f"/v1/requests/{name}/ttl", json={"ttl_s": 1e9})
    assert (await shown(api, name))["expires_in_s"] == 7 * 86_400.0
    assert [row.id for row in await api.store.expired(START_MS + 8 * 86_400_000)] == [name]


async def test_bulk_says_what_it_would_do_and_then_does_it(api: Api) -> None:
    await api.queue("a", "b", "c")
    await api.fails(2, "HTTP 503")
    order = {"filter": {"error": "HTTP 503"}}
    _, dry = await api.ask("POST", "/v1/bulk/retry", json=order | {"dry_run": True})
    assert (dry["matched"], dry["changed"], dry["next"]) == (2, 2, None)
    assert (await api.ask("GET", "/v1/actions"))[1] == {"actions": []}
    _, done = await api.ask("POST", "/v1/bulk/retry", json=order)
    assert (done["changed"], [row["found"] for row in done["outcomes"]]) == (2, ["pending", "pending"])
    (action,) = (await api.ask("GET", "/v1/actions"))[1]["actions"]
    assert (action["action"], action["target"]) == ("retry", "2 requests: states=pending error=HTTP 503")
    assert len(await api.store.claim("hub", ["hub>edge"], 9, START_MS)) == 3


async def test_bulk_goes_on_where_it_stopped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.flow.desk.MAX_ORDERED", 2)
    await api.queue("a", "b", "c", "d", "e")
    after, changed = None, 0
    for _ in range(4):
        _, done = await api.ask("POST", "/v1/bulk/cancel", json={"all": True, "after": after})
        changed += done["changed"]
        if (after := done["next"]) is None:
            break
    assert (changed, after, api.store.counts.total()) == (5, None, 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {}},
        {"all": True, "filter": {"route": "frost"}},
        {"ids": []},
        {"ids": ["x"], "all": True},
        {"filter": {"route": "frost", "colour": "red"}},
        {"filter": {"state": ["nonsense"]}},
        {"all": "yes please"},
        {"all": "true"},
        {"all": 1},
        {"all": True, "after": False},
        [],
        {"all": True, "filter": None, "extra": 1},
    ],
    ids=str,
)
async def test_bulk_without_saying_which_changes_nothing(api: Api, body: object) -> None:
    await api.queue("a")
    for verb in Verb:
        assert (await api.ask("POST", f"/v1/bulk/{verb}", json=body))[0] == 400
    assert api.store.counts.total() == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b'"' + b"x" * 2_000_000 + b'"'])
async def test_body_that_is_no_json_is_said(api: Api, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    status, _ = await api.ask("POST", "/v1/bulk/cancel", data=content, headers=headers)
    assert status == (413 if len(content) > 1 << 20 else 400)


async def test_body_that_is_not_packed_as_it_says_is_refused(api: Api) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    status, body = await api.ask("POST", "/v1/bulk/cancel", data=b'{"all": true}', headers=headers)
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_expectation_that_cannot_be_read_is_refused(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    writer.write(b"POST /v1/pause HTTP/1.1\r\nHost: localhost\r\nExpect: 100-\xff\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 417 ") and b"Content-Security-Policy" in answer


async def test_what_is_no_http_is_refused_and_leaves_a_line_without_its_bytes(api: Api) -> None:
    with capture_logs() as logs:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
        writer.write(b"GET /v1/requests?text=" + b"okapi" * 2_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()
    assert [(line["event"], line["error"]) for line in logs] == [("http.request_unreadable", "LineTooLong")]
    assert "okapi" not in str(logs)


async def test_form_of_another_kind_is_no_order(api: Api) -> None:
    status, body = await api.ask("POST", "/v1/bulk/cancel", data={"all": "true"})
    assert (status, body["error"]["code"]) == (415, "unsupported_type")


async def test_paused_tiers_are_held_back_until_they_are_resumed(api: Api) -> None:
    assert await api.ask("POST", "/v1/tiers/hub/pause") == (200, {"tiers": ["hub"], "routes": []})
    assert not api.board.is_available("hub") and api.board.is_available("edge")
    assert set(await api.store.paused()) == {"hub"}
    assert await api.ask("POST", "/v1/pause") == (200, {"tiers": ["hub", "edge"], "routes": []})
    assert await api.ask("POST", "/v1/resume") == (200, {"tiers": ["hub", "edge"], "routes": []})
    assert api.board.is_available("hub") and await api.store.paused() == {}


async def test_paused_route_waits_and_the_others_go_on(api: Api) -> None:
    (first,) = await api.queue("a")
    (second,) = await api.queue("b", route="talk")
    assert (await api.ask("POST", "/v1/routes/moon/pause"))[0] == 404
    assert await api.ask("POST", "/v1/routes/frost/pause") == (200, {"tiers": [], "routes": ["frost"]})
    assert [row.id for row in await api.store.claim("hub", ["hub>edge"], 9, START_MS)] == [second]
    assert (await shown(api, first))["waits_because"] == "route frost is paused by operator at 127.0.0.1"
    await api.store.recover(START_MS, ("hub", "edge"))
    assert set(api.store.paused_routes) == {"frost"}, "a restart must not resume what an operator paused"
    assert await api.ask("POST", "/v1/resume") == (200, {"tiers": ["hub", "edge"], "routes": ["frost"]})
    assert [row.id for row in await api.store.claim("hub", ["hub>edge"], 1, START_MS)] == [first]


async def test_why_a_request_waits_is_said_as_it_is_now(api: Api) -> None:
    (name,) = await api.queue("a")
    api.board.unreachable("hub", "no route to host")
    await api.ask("POST", "/v1/tiers/edge/pause")
    found = (await shown(api, name))["waits_because"]
    assert found.startswith("hub is down (no route to host), looked at again in ")
    assert found.endswith("; edge is paused by operator at 127.0.0.1")
    await api.ask("POST", "/v1/tiers/edge/resume")
    (row,) = (await api.ask("GET", "/v1/requests", token=VIEWER))[1]["requests"]
    assert row["waits_because"].startswith("its turn comes at edge")


async def test_what_an_earlier_failure_said_is_not_why_it_ended(api: Api, moment: Moment) -> None:
    (name,) = await api.queue("a")
    await api.fails(1, "HTTP 503")
    assert "after attempt 1: hub: HTTP 503" in (await shown(api, name))["waits_because"]
    await api.store.wake_due(START_MS + 60_000)
    (row,) = await api.store.claim("hub", ["hub>edge"], 1, START_MS)
    await api.store.finish(row, Answer(text="Yes.", tier="hub"), State.ANSWERED, START_MS, lease=row.lease)
    moment.advance(FRESH_S)
    found = await shown(api, name)
    assert (found["reason"], found["detail"], found["waits_because"]) == (None, None, None)


async def test_dropped_request_comes_back(api: Api) -> None:
    (name,) = await api.queue("a")
    assert (await api.ask("POST", f"/v1/requests/{name}/drop"))[1]["is_changed"]
    assert await devices(api, "state=pending") == []
    assert (await shown(api, name))["waits_because"] == "dropped: ends in 1.0 h unless undone"
    _, dry = await api.ask("POST", "/v1/bulk/cancel", json={"all": True, "dry_run": True})
    assert dry["matched"] == 0, "what was dropped is there to be brought back"
    _, done = await api.ask("POST", "/v1/bulk/undo", json={"all": True})
    assert (done["changed"], await devices(api, "state=pending")) == (1, ["a"])


async def test_stats_count_by_state_and_route(api: Api) -> None:
    (first, _) = await api.queue("a", "b")
    await api.queue("c", route="talk")
    await api.ask("POST", f"/v1/requests/{first}/cancel")
    status, body = await api.ask("GET", "/v1/stats", token=VIEWER)
    assert (status, body["requests"], body["oldest_waiting_s"]) == (200, {"cancelled": 1, "pending": 2}, 0.0)
    assert {(row["route"], row["state"], row["requests"]) for row in body["routes"]} == {
        ("frost", "cancelled", 1),
        ("frost", "pending", 1),
        ("talk", "pending", 1),
    }


async def test_what_was_exported_is_asked_again_once(api: Api, database: FlakyDatabase) -> None:
    asked = [
        request("what says a?", topic="mqrouter/farm/ask/a", correlation=b"\x00\xff", response_topic="my/answers"),
        request('{"id": "7", "question": "and b?", "ttl_s": 60}', topic="mqrouter/farm/ask/b"),
    ]
    await api.store.accept([*asked, refused(b"\xff\xfe", topic="mqrouter/farm/ask/c")], START_MS)
    lines = await database.read(lambda db: list(export(db, Selection(), Now(START_MS))))
    assert [line["device"] for line in lines] == ["a", "b", "c"]
    assert (lines[0]["payload"], lines[0]["correlation"], lines[2]["payload_base64"]) == (
        "what says a?",
        "00ff",
        "//4=",
    )
    body = {"requests": [{name: line[name] for name in FIELDS if line.get(name) is not None} for line in lines]}
    assert await api.ask("POST", "/v1/import", json=body) == (200, {"counts": {"absorbed": 2, "refused": 1}})

    for item in asked:
        await api.ask("POST", f"/v1/requests/{item.id}/cancel")
    for row in await api.store.outbox_after(0, 9):
        await api.store.delivered(row, START_MS)
    await api.store.purge(START_MS + 1, START_MS + 1)
    assert await api.ask("POST", "/v1/import", json=body) == (200, {"counts": {"new": 2, "refused": 1}})
    found = {row.device: row for row in await api.store.next_received(9, ())}
    assert (found["a"].reply.topic, found["a"].reply.correlation) == ("my/answers", b"\x00\xff")
    assert (found["b"].reply.client_id, found["b"].expires_at_ms) == ("7", START_MS + 60_000)
    action = (await api.ask("GET", "/v1/actions"))[1]["actions"][0]
    assert (action["action"], action["target"]) == ("import", "3 requests: 2 new, 1 refused")


@pytest.mark.parametrize(
    "entry",
    [
        {"topic": "t"},
        {"topic": "t", "payload": "x", "payload_base64": "eA=="},
        {"payload": "x"},
        {"topic": "t", "payload": "x", "correlation": "0g"},
        {"topic": "t", "payload_base64": "?"},
        {"topic": "t", "payload": "x", "state": "pending"},
    ],
    ids=str,
)
async def test_import_of_what_is_no_request_changes_nothing(api: Api, entry: dict[str, str]) -> None:
    assert (await api.ask("POST", "/v1/import", json={"requests": [entry]}))[0] == 400
    assert await devices(api, "") == []


# --- the description --------------------------------------------------------------------------------


async def test_description_has_every_route_and_every_reference_leads_somewhere(api: Api) -> None:
    status, found = await api.ask("GET", "/v1/openapi.json", token=None)
    assert (status, found["openapi"]) == (200, "3.1.0")
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in api.server.routes if route.is_described}
    names = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for reference in re.findall(r"'#/components/schemas/(\w+)'", str(found)):
        assert reference in found["components"]["schemas"]
    for route in api.server.routes:
        operation = found["paths"][route.path][route.method.lower()]
        assert (operation["security"] == []) is (route.role is Role.NOBODY)
        assert ("requestBody" in operation) is (route.body is not None)
        in_path = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", route.path))


async def test_answers_are_what_the_description_says(api: Api) -> None:
    (name,) = await api.queue("a")
    asked = [("GET", "/v1/requests", "/v1/requests"), ("GET", "/v1/actions", "/v1/actions")]
    asked += [("POST", f"/v1/requests/{name}/retry", "/v1/requests/{id}/retry"), ("POST", "/v1/pause", "/v1/pause")]
    for method, path, template in asked:
        _, body = await api.ask(method, path)
        (route,) = [route for route in api.server.routes if (route.method, route.path) == (method, template)]
        assert route.answer is not None
        route.answer.model_validate(body)
        assert set(body) == set(route.answer.model_fields)
