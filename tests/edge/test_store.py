"""What the stages rely on: one row, one lease, one answer, and counts that add up. Against a real file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import PREFIX, QUEUE, START_MS, FlakyDatabase, cancel, refused, request

from mqrouter.core.backoff import Backoff
from mqrouter.core.records import Accepted, OutboxRow, StoredRequest
from mqrouter.core.request import Answer, Refused, Request, RequestId
from mqrouter.core.retry import Waiting
from mqrouter.core.states import State
from mqrouter.edge.store.database import Database
from mqrouter.edge.store.leases import MAX_CRASHES
from mqrouter.edge.store.store import Policy, Store
from mqrouter.errors import ErrorCode, StoreError
from mqrouter.routing.session import Session

NOW = START_MS
GRACE_MS = 600_000
DEDUPE_MS = 3_600_000
TIERS = frozenset({"hub", "edge"})
OK = Answer(text="Yes.", tier="hub", model="m")
HUB_EDGE = Waiting(("hub", "edge"), ("hub", "edge"))


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    return await database.read(lambda db: [tuple(row) for row in db.execute(query)])


async def states(database: Database) -> list[str]:
    return [state for (state,) in await rows(database, "SELECT state FROM requests ORDER BY seq")]


async def history(database: Database, request_id: str) -> list[str]:
    query = (
        f"SELECT event FROM history WHERE request = (SELECT seq FROM requests WHERE id = '{request_id}') ORDER BY seq"
    )
    return [event for (event,) in await rows(database, query)]


async def accept(store: Store, *items: Request | Refused, now_ms: int = NOW) -> list[Accepted]:
    return await store.accept(items, now_ms)


async def queue(store: Store, *tiers: str, now_ms: int = NOW) -> None:
    for row in await store.next_received(1000, ()):
        await store.queue_for_tiers(
            row, tiers or ("hub", "edge"), route="r", confidence=0.5, decision={"why": 1}, now_ms=now_ms
        )


async def pending(store: Store, item: Request) -> StoredRequest:
    """The request is accepted, decided, and leased to the hub."""
    assert await accept(store, item) == [Accepted.NEW]
    await queue(store)
    (leased,) = await store.claim("hub", ["hub>edge"], 1, NOW)
    return leased


async def answered(store: Store, item: Request, *, now_ms: int = NOW) -> OutboxRow:
    leased = await pending(store, item)
    assert await store.finish(leased, OK, State.ANSWERED, now_ms, lease=leased.lease)
    return (await store.outbox_after(0, 1000))[-1]


# --- accept -----------------------------------------------------------------------------------------


async def test_new_request_is_a_row_that_tells_everything(store: Store, database: FlakyDatabase) -> None:
    payload = json.dumps({"question": "wet?", "id": "q", "priority": 3, "private": True, "max_bytes": 199})
    item = request(payload, correlation=b"\x00c", expiry_s=60, content_type="application/json")
    assert await accept(store, item) == [Accepted.NEW]
    (row,) = await store.next_received(10, ())
    assert (row.id, row.device, row.payload) == (item.id, "d1", payload.encode())
    assert (row.reply, row.is_private, row.client_gave_expiry) == (item.reply, True, True)
    assert (row.received_at_ms, row.expires_at_ms) == (NOW, NOW + 60_000)
    assert (row.tiers, row.todo, row.attempts, row.lease) == ((), (), 0, 0)
    assert await history(database, item.id) == ["received"]


async def test_results_come_in_the_order_of_what_came_in(store: Store) -> None:
    first = request("one?", correlation=b"1")
    other = request("two?", correlation=b"1")
    again = request("one?", correlation=b"1")
    bad = refused(b"\xff")
    found = await accept(store, first, bad, again, other, request("x"), request("x"))
    expected = [Accepted.NEW, Accepted.REFUSED, Accepted.ABSORBED, Accepted.REUSED, Accepted.NEW, Accepted.NEW]
    assert found == expected


async def test_burst_is_accepted_as_if_it_had_come_one_by_one(store: Store, database: FlakyDatabase) -> None:
    kinds: list[tuple[Request | Refused, Accepted]] = []
    for number in range(50):
        fresh = request(f"{number}?", correlation=str(number).encode(), topic=f"{PREFIX}/ask/d{number % 3}")
        kinds.append((fresh, Accepted.NEW))
        if number % 20 == 7:
            kinds += [
                (refused(), Accepted.REFUSED),
                (replace(fresh, id=RequestId(f"again-{number}")), Accepted.ABSORBED),
            ]
    items = [item for item, _ in kinds]

    results = await accept(store, *items)

    assert results == [result for _, result in kinds]
    stored = await rows(database, "SELECT id FROM requests ORDER BY seq")
    assert stored == [(item.id,) for item, result in kinds if result is not Accepted.ABSORBED]
    assert store.counts[State.RECEIVED] == 50
    assert await history(database, items[7].id) == ["received", "duplicate_absorbed"]
    assert await history(database, items[8].id) == ["dead"]
    turns = await rows(database, "SELECT turn FROM requests WHERE device = 'd1' AND state = 'received' ORDER BY seq")
    assert turns == [(turn,) for turn in range(len(turns))]  # a repetition takes no turn


async def test_question_and_its_repetition_may_come_in_one_burst_in_any_order_of_delivery(store: Store) -> None:
    for number, (first, second) in enumerate([(True, False), (False, True), (True, True), (False, False)]):
        asked = [request("q?", correlation=b"%d" % number, is_dup=is_dup, qos=1, mid=7) for is_dup in (first, second)]
        assert await accept(store, *asked) == [Accepted.NEW, Accepted.ABSORBED]


async def test_refused_request_is_a_dead_row_with_an_error_answer(store: Store, database: FlakyDatabase) -> None:
    item = refused(b"\xff" * 100, correlation=b"c")
    await accept(store, item)
    assert await rows(database, "SELECT state, reason, finished_at_ms FROM requests") == [("dead", "not_utf8", NOW)]
    (answer,) = await store.outbox_after(0, 10)
    assert answer.message.payload == b"error not_utf8: byte 0 is not UTF-8"
    assert (answer.message.topic, answer.message.correlation) == (f"{PREFIX}/answer/d1", b"c")
    assert (answer.state, answer.reason) == (State.DEAD, "not_utf8")
    assert store.counts.total() == 0


async def test_refused_request_without_an_address_is_a_row_all_the_same(store: Store, database: FlakyDatabase) -> None:
    await accept(store, refused("x", topic=None), refused(b"x" * 100_000, topic=f"{PREFIX}/ask"))
    assert await states(database) == ["dead", "dead"]
    assert await store.outbox_after(0, 10) == []
    assert await rows(database, "SELECT max(length(payload)) FROM requests") == [(4096,)]


async def test_duplicate_is_absorbed_and_its_answer_sent_again(store: Store, database: FlakyDatabase) -> None:
    item = request("wet?", correlation=b"c")
    answer = await answered(store, item)
    await store.delivered(answer, NOW)
    assert await store.outbox_after(0, 10) == []
    later = NOW + 5_000
    assert await accept(store, request("wet?", correlation=b"c"), now_ms=later) == [Accepted.ABSORBED]
    (again,) = await store.outbox_after(answer.seq, 10)
    assert again.message == answer.message
    await store.delivered(again, later)
    assert await states(database) == ["delivered"]
    assert (await history(database, item.id)).count("duplicate_absorbed") == 1


async def test_duplicate_of_an_open_request_writes_nothing_new(store: Store, database: FlakyDatabase) -> None:
    await accept(store, request("wet?", correlation=b"c"), request("wet?", correlation=b"c"))
    assert await states(database) == ["received"]
    assert store.counts[State.RECEIVED] == 1


async def test_duplicate_wakes_an_answer_that_waits_for_a_subscriber(store: Store) -> None:
    answer = await answered(store, request("wet?", correlation=b"c"))
    await store.not_taken(answer, "no_subscriber", NOW + 60_000, NOW)
    assert await store.outbox_after(0, 10) == []
    await accept(store, request("wet?", correlation=b"c"))
    (again,) = await store.outbox_after(answer.seq, 10)
    assert again.tries == 1


async def test_duplicate_over_a_limit_is_still_a_duplicate(store: Store, database: FlakyDatabase) -> None:
    first, again = request("wet?", correlation=b"c"), request("wet?", correlation=b"c")
    await accept(store, first)
    limited = Refused(
        again.id,
        again.incoming,
        ErrorCode.QUEUE_FULL,
        "full",
        again.device,
        again.reply,
        again.payload_hash,
        NOW,
        dedupe_key=again.dedupe_key,
    )
    assert await accept(store, limited) == [Accepted.ABSORBED]
    assert await store.outbox_after(0, 10) == []  # no error for a question that will be answered
    assert await states(database) == ["received"]


async def test_reused_correlation_gets_an_error_and_never_the_old_answer(store: Store, database: FlakyDatabase) -> None:
    await answered(store, request("wet?", correlation=b"c"))
    await accept(store, request("dry?", correlation=b"c"))
    answers = await store.outbox_after(0, 10)
    assert [answer.message.payload[:24] for answer in answers] == [b"Yes.", b"error correlation_reused"]
    assert await states(database) == ["answered", "dead"]


async def test_equal_correlation_on_another_topic_is_another_request(store: Store) -> None:
    found = await accept(
        store,
        request("wet?", correlation=b"c"),
        request("dry?", correlation=b"c", response_topic="replies/me"),
        request("dry?", correlation=b"c", topic=f"{PREFIX}/ask/d2"),
    )
    assert found == [Accepted.NEW] * 3


async def test_redelivered_packet_without_a_name_is_absorbed(store: Store, database: FlakyDatabase) -> None:
    await accept(store, request("wet?", mid=7), refused(b"\xff", mid=8))
    again = (request("wet?", mid=7, is_dup=True), refused(b"\xff", mid=8, is_dup=True))
    assert await accept(store, *again) == [Accepted.ABSORBED, Accepted.ABSORBED]
    assert await states(database) == ["received", "dead"]


@pytest.mark.parametrize(
    "other",
    [
        {"mid": 7, "is_dup": False},
        {"mid": 9, "is_dup": True},
        {"mid": 7, "is_dup": True, "payload": "dry?"},
        {"mid": 7, "is_dup": True, "topic": f"{PREFIX}/ask/d2"},
    ],
)
async def test_other_packets_are_not_redeliveries(store: Store, other: dict[str, Any]) -> None:
    await accept(store, request("wet?", mid=7))
    assert await accept(store, request(**({"payload": "wet?"} | other))) == [Accepted.NEW]


async def test_qos_0_packets_are_not_remembered(store: Store) -> None:
    await accept(store, request("wet?", mid=0, qos=0))
    assert await accept(store, request("wet?", mid=0, is_dup=True)) == [Accepted.NEW]


# --- decide -----------------------------------------------------------------------------------------


async def test_undecided_requests_come_by_priority_then_age(store: Store) -> None:
    await accept(
        store,
        *(request(json.dumps({"question": "x", "priority": int(p), "id": f"{p}{n}"})) for n, p in enumerate("0903")),
    )
    found = await store.next_received(10, ())
    assert [row.reply.client_id for row in found] == ["91", "33", "00", "02"]
    assert [row.reply.client_id for row in await store.next_received(2, {found[0].seq})] == ["33", "00"]


async def test_queueing_counts_once(store: Store, database: FlakyDatabase) -> None:
    await accept(store, request())
    (row,) = await store.next_received(1, ())
    for _ in range(2):
        await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.1, decision={}, now_ms=NOW)
    assert (store.counts[State.RECEIVED], store.counts[State.PENDING]) == (0, 1)
    assert await history(database, row.id) == ["received", "pending"]


async def test_request_cancelled_while_it_was_decided_stays_cancelled(store: Store, database: FlakyDatabase) -> None:
    item = request()
    await accept(store, item)
    (row,) = await store.next_received(1, ())
    await cancel(store, item.id, NOW)
    await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.0, decision={}, now_ms=NOW)
    assert await states(database) == ["cancelled"]
    assert store.counts.total() == 0


# --- forward ----------------------------------------------------------------------------------------


async def test_claims_come_by_priority_then_age_over_all_lists(store: Store) -> None:
    payloads = [json.dumps({"question": "x", "priority": int(p), "id": f"{p}{n}"}) for n, p in enumerate("0290")]
    for number, payload in enumerate(payloads):
        await accept(store, request(payload))
        await queue(store, *(("hub", "edge") if number % 2 else ("hub",)))
    found = await store.claim("hub", ["hub", "hub>edge"], 3, NOW)
    assert [row.reply.client_id for row in found] == ["92", "21", "00"]
    assert (store.counts[State.PENDING], store.counts[State.LEASED]) == (1, 3)
    assert [row.reply.client_id for row in await store.claim("hub", ["hub", "hub>edge"], 3, NOW)] == ["03"]


async def test_only_the_lists_asked_for_are_claimed(store: Store) -> None:
    await accept(store, request())
    await queue(store, "hub", "edge")
    assert await store.claim("edge", ["edge"], 5, NOW) == []


async def test_request_past_its_time_is_not_claimed(store: Store) -> None:
    await accept(store, request(expiry_s=10))
    await queue(store)
    assert await store.claim("hub", ["hub>edge"], 5, NOW + 10_000) == []
    assert len(await store.claim("hub", ["hub>edge"], 5, NOW + 9_999)) == 1


async def test_lease_fences_late_answers(store: Store, database: FlakyDatabase) -> None:
    first = await pending(store, request())
    assert await store.release(first, HUB_EDGE, note="x", now_ms=NOW, is_counted=False)
    (second,) = await store.claim("hub", ["hub>edge"], 1, NOW)
    assert second.lease == first.lease + 1
    assert not await store.finish(first, OK, State.ANSWERED, NOW, lease=first.lease)
    assert not await store.release(first, HUB_EDGE, note="x", now_ms=NOW, is_counted=True)
    assert await states(database) == ["leased"]
    assert await store.finish(second, OK, State.ANSWERED, NOW, lease=second.lease)


async def test_release_hands_over_to_the_next_tier(store: Store) -> None:
    leased = await pending(store, request())
    await store.release(leased, Waiting(("hub", "edge"), ("edge",)), note="500", now_ms=NOW, is_counted=True)
    assert await store.claim("hub", ["hub>edge"], 1, NOW) == []
    (found,) = await store.claim("edge", ["edge"], 1, NOW)
    assert (found.attempts, found.rounds, found.tiers, found.todo) == (1, 0, ("hub", "edge"), ("edge",))
    assert "edge" in store.todo_lists


async def test_waiting_request_comes_due_when_its_time_is_over(store: Store) -> None:
    leased = await pending(store, request())
    await store.release(leased, HUB_EDGE, note="500", now_ms=NOW, is_counted=True, not_before_ms=NOW + 2_000)
    assert await store.next_due_ms() == NOW + 2_000
    assert await store.wake_due(NOW + 1_999) == (0, 0)
    assert await store.claim("hub", ["hub>edge"], 1, NOW + 1_999) == []
    assert await store.wake_due(NOW + 2_000) == (1, 0)
    (found,) = await store.claim("hub", ["hub>edge"], 1, NOW + 2_000)
    assert found.rounds == 1


async def test_request_is_finished_exactly_once(store: Store, database: FlakyDatabase) -> None:
    leased = await pending(store, request())
    results = await asyncio.gather(
        *(store.finish(leased, OK, State.ANSWERED, NOW, lease=leased.lease) for _ in range(5)),
        store.finish(leased, Answer(error=ErrorCode.EXPIRED), State.EXPIRED, NOW),
    )
    assert results.count(True) == 1
    assert await rows(database, "SELECT count(*) FROM outbox") == [(1,)]
    assert store.counts.total() == 0


async def test_answer_carries_what_remains_of_the_requesters_own_expiry(store: Store) -> None:
    answer = await answered(store, request(expiry_s=60))
    assert answer.message.expires_at_ms == NOW + 60_000
    other = await answered(store, request('{"question": "x", "ttl_s": 60}'))
    assert other.message.expires_at_ms is None


async def test_order_of_stop_gives_leases_back(store: Store, database: FlakyDatabase) -> None:
    await pending(store, request())
    assert await store.release_leases(NOW) == 1
    assert await states(database) == ["pending"]
    assert (await rows(database, "SELECT crashes FROM requests")) == [(0,)]
    assert (store.counts[State.PENDING], store.counts[State.LEASED]) == (1, 0)


@pytest.mark.parametrize("stage", ["received", "pending", "leased"])
async def test_operator_cancels_an_open_request(store: Store, database: FlakyDatabase, stage: str) -> None:
    item = request()
    await accept(store, item)
    if stage != "received":
        await queue(store)
    leased = await store.claim("hub", ["hub>edge"], 1, NOW) if stage == "leased" else []
    assert await cancel(store, item.id, NOW) == stage
    assert await states(database) == ["cancelled"]
    assert len(await store.outbox_after(0, 10)) == 1
    for late in leased:
        assert not await store.finish(late, OK, State.ANSWERED, NOW, lease=late.lease)
    assert await cancel(store, item.id, NOW) == State.CANCELLED
    assert len(await store.outbox_after(0, 10)) == 1
    assert store.counts.total() == 0


async def test_unknown_request_cannot_be_cancelled(store: Store) -> None:
    assert await cancel(store, "nobody", NOW) is None


# --- deliver ----------------------------------------------------------------------------------------


async def test_answers_leave_in_the_order_they_were_written(store: Store) -> None:
    seqs = [(await answered(store, request(correlation=bytes([n])))).seq for n in range(5)]
    assert seqs == sorted(seqs)
    assert [row.seq for row in await store.outbox_after(seqs[1], 2)] == seqs[2:4]


async def test_delivered_answer_ends_its_request(store: Store, database: FlakyDatabase) -> None:
    answer = await answered(store, request())
    await store.delivered(answer, NOW + 5)
    assert await rows(database, "SELECT state, finished_at_ms, attempts FROM requests") == [("delivered", NOW + 5, 1)]
    assert await store.outbox_after(0, 10) == []


async def test_answer_nobody_took_is_offered_again_after_its_pause(store: Store) -> None:
    answer = await answered(store, request())
    await store.not_taken(answer, "no_subscriber", NOW + 2_000, NOW)
    assert await store.outbox_after(0, 10) == []
    assert await store.next_due_ms() == NOW + 2_000
    assert await store.wake_due(NOW + 2_000) == (0, 1)
    (again,) = await store.outbox_after(answer.seq, 10)
    assert again.tries == 1


async def test_new_answers_always_come_after_published_ones(store: Store, database: FlakyDatabase) -> None:
    """The deliverer asks for what comes after the last row it published, whatever was purged meanwhile."""
    first = await answered(store, request(correlation=b"1"))
    waiting = await answered(store, request(correlation=b"2"))
    third = await answered(store, request(correlation=b"3"))
    for row in (first, third):
        await store.delivered(row, NOW)
    await store.not_taken(waiting, "no_subscriber", NOW + 1_000, NOW)
    assert await store.purge(NOW + 1, 0, 10) == 2
    await store.wake_due(NOW + 1_000)
    (woken,) = await store.outbox_after(third.seq, 10)
    await store.delivered(woken, NOW)
    assert await store.purge(NOW + 1, 0, 10) == 1
    assert await rows(database, "SELECT count(*) FROM outbox") == [(0,)]
    await answered(store, request(correlation=b"4"))
    assert len(await store.outbox_after(woken.seq, 10)) == 1
    await accept(store, refused(b"\xff"))
    assert len(await store.outbox_after(woken.seq, 10)) == 2


# --- upkeep -----------------------------------------------------------------------------------------


async def test_open_requests_expire_at_their_time(store: Store) -> None:
    await accept(store, request(expiry_s=10), request(expiry_s=20))
    assert await store.next_due_ms() == NOW + 10_000
    assert await store.expired(NOW + 9_999) == []
    assert len(await store.expired(NOW + 10_000)) == 1
    assert len(await store.expired(NOW + 20_000)) == 2
    assert len(await store.expired(NOW + 20_000, limit=1)) == 1


async def test_answers_are_given_up_after_expiry_and_grace(store: Store, database: FlakyDatabase) -> None:
    await answered(store, request(expiry_s=10), now_ms=NOW)
    assert await store.give_up_answers(NOW + GRACE_MS - 1) == 0
    assert await store.give_up_answers(NOW + GRACE_MS) == 1
    assert await states(database) == ["undelivered"]
    assert await store.outbox_after(0, 10) == []
    assert await store.next_due_ms() is None


async def test_answer_within_a_long_time_to_live_is_kept_longer(store: Store) -> None:
    await answered(store, request(expiry_s=7200))
    assert await store.give_up_answers(NOW + GRACE_MS) == 0
    assert await store.give_up_answers(NOW + 7_200_000) == 1


async def test_purge_deletes_what_is_finished_and_delivered(store: Store, database: FlakyDatabase) -> None:
    done = await answered(store, request(correlation=b"1"))
    await store.delivered(done, NOW)
    await accept(store, refused(b"\xff", correlation=b"2"), request(correlation=b"3"))
    assert await store.purge(NOW, NOW) == 0
    assert await store.purge(NOW + 1, 0) == 1
    assert await states(database) == ["dead", "received"]  # the error answer is not delivered yet
    error = (await store.outbox_after(0, 10))[0]
    await store.delivered(error, NOW)
    assert await store.purge(NOW + 1, 0) == 1
    assert await rows(database, "SELECT (SELECT count(*) FROM history), (SELECT count(*) FROM outbox)") == [(1, 0)]


async def test_purge_takes_bounded_bites(store: Store) -> None:
    await accept(store, *(refused("x", topic=None) for _ in range(7)))
    assert [await store.purge(NOW + 1, 0, 3) for _ in range(4)] == [3, 3, 1, 0]


# --- start ------------------------------------------------------------------------------------------


async def restarted(path: Path, times: int, *, claim: bool) -> list[str]:
    """The daemon dies `times` times, holding whatever it could claim."""
    for _ in range(times):
        async with Database(path) as database:
            store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
            await store.recover(NOW, TIERS)
            if claim:
                await store.claim("hub", ["hub>edge"], 10, NOW)
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
        await store.recover(NOW, TIERS)
        return await states(database)


async def test_leases_of_an_earlier_life_are_void(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database(path) as database:
        leased = await pending(Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS)), request())
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
        recovery = await store.recover(NOW, TIERS)
        assert (recovery.released, recovery.dead) == (1, 0)
        assert (store.counts[State.PENDING], store.todo_lists) == (1, {"hub>edge"})
        assert not await store.finish(leased, OK, State.ANSWERED, NOW, lease=leased.lease)
        (again,) = await store.claim("hub", store.todo_lists, 1, NOW)
        assert (again.lease, again.attempts) == (leased.lease + 1, 0)


async def test_request_that_kills_the_daemon_three_times_is_dead_with_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
        await pending(store, request(correlation=b"bad"))
        await accept(store, request(correlation=b"good"))
    assert await restarted(path, MAX_CRASHES - 2, claim=True) == ["pending", "received"]
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
        await store.recover(NOW, TIERS)
        await store.claim("hub", ["hub>edge"], 10, NOW)
    async with Database(path) as database:
        store = Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS))
        recovery = await store.recover(NOW, TIERS)
        assert (recovery.released, recovery.dead) == (0, 1)
        assert await states(database) == ["dead", "received"]
        (answer,) = await store.outbox_after(0, 10)
        assert answer.message.correlation == b"bad"
        assert answer.message.payload.startswith(b"error internal")
        assert (store.counts[State.RECEIVED], store.counts[State.PENDING], store.counts[State.LEASED]) == (1, 0, 0)


async def test_restarts_without_a_lease_bury_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Database(path) as database:
        await accept(Store(database, Policy(QUEUE, GRACE_MS, DEDUPE_MS)), request())
    assert await restarted(path, 5, claim=False) == ["received"]


# --- trouble ----------------------------------------------------------------------------------------


async def test_counts_follow_writes_whose_caller_was_cancelled(store: Store) -> None:
    caller = asyncio.create_task(store.accept([request()], NOW))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert len(await store.next_received(10, ())) == 1
    await accept(store)
    assert store.counts[State.RECEIVED] == 1


async def test_counts_ignore_writes_that_did_not_happen(store: Store, database: FlakyDatabase) -> None:
    item = request()
    with pytest.raises(StoreError):
        await accept(store, item, request(correlation=b"2"), item)  # the same id twice
    assert store.counts.total() == 0
    assert await states(database) == []


async def test_counts_are_right_after_a_shared_transaction_failed(store: Store) -> None:
    item = request()
    await accept(store, item)
    others = [accept(store, request(correlation=bytes([n]))) for n in range(3)]
    found = await asyncio.gather(*others, accept(store, item), return_exceptions=True)
    assert found[:3] == [[Accepted.NEW]] * 3
    assert isinstance(found[3], StoreError)
    assert store.counts[State.RECEIVED] == 4


async def test_full_disk_accepts_nothing_and_heals(store: Store, database: FlakyDatabase) -> None:
    await accept(store, request("first?"))
    pages = (await rows(database, "PRAGMA page_count"))[0][0]
    await rows(database, f"PRAGMA max_page_count = {pages}")
    big = [request(b"x" * 1000, correlation=bytes([n])) for n in range(100)]
    with pytest.raises(StoreError, match="full"):
        await accept(store, *big)
    assert (store.counts[State.RECEIVED], len(await states(database))) == (1, 1)
    await rows(database, "PRAGMA max_page_count = 1000000")
    assert await accept(store, *big) == [Accepted.NEW] * 100
    assert store.counts[State.RECEIVED] == 101


def test_schema_allows_one_answer_per_request() -> None:
    db = sqlite3.connect(":memory:")
    script = Path(__file__).parents[2] / "mqrouter/edge/store/sql/0001_initial.sql"
    db.executescript(script.read_text())
    insert = (
        "INSERT INTO outbox (request, topic, payload, content_type, user_properties, give_up_at_ms)"
        " VALUES (1, 't', x'', '', '', 0)"
    )
    db.execute(insert)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(insert)
    db.close()


# --- asking again, and rounds that are stuck --------------------------------------------------------


async def test_question_may_be_asked_again_after_a_retryable_error_has_reached_its_sender(store: Store) -> None:
    item = request("again", correlation=b"c")
    assert await store.accept([item], START_MS) == [Accepted.NEW]
    (row,) = await store.next_received(1, ())
    await store.finish(row, Answer(error=ErrorCode.UPSTREAM_FAILED), State.ANSWERED, START_MS)
    again = request("again", correlation=b"c")
    assert await store.accept([again], START_MS) == [Accepted.ABSORBED]  # the error is still on its way
    (answer,) = await store.outbox_after(0, 10)
    await store.delivered(answer, START_MS)
    assert await store.accept([again], START_MS) == [Accepted.NEW]


async def test_question_with_a_final_error_keeps_its_answer(store: Store) -> None:
    await store.accept([request("never", correlation=b"c")], START_MS)
    (row,) = await store.next_received(1, ())
    await store.finish(row, Answer(error=ErrorCode.PRIVATE_UNANSWERABLE), State.ANSWERED, START_MS)
    (answer,) = await store.outbox_after(0, 10)
    await store.delivered(answer, START_MS)
    assert await store.accept([request("never", correlation=b"c")], START_MS) == [Accepted.ABSORBED]


async def test_round_with_only_lost_tiers_left_starts_again_after_a_pause(
    store: Store, database: FlakyDatabase
) -> None:
    await store.accept([request("a"), request("b")], START_MS)
    first, second = await store.next_received(2, ())
    for row in (first, second):
        await store.queue_for_tiers(row, ("edge", "hub"), route=None, confidence=0.5, decision={}, now_ms=START_MS)
    (leased,) = await store.claim("edge", ["edge>hub"], 1, START_MS)
    await store.release(
        leased, Waiting(("edge", "hub"), ("hub",)), note="edge: transient", now_ms=START_MS, is_counted=True
    )
    assert store.partial_lists == {"hub"}
    assert await store.restart_rounds("hub", START_MS, Backoff(2.0, 60.0)) == 1
    assert store.partial_lists == set()
    rows = await database.read(
        lambda db: [tuple(row) for row in db.execute("SELECT todo, rounds, not_before_ms FROM requests ORDER BY seq")]
    )
    assert rows == [("edge>hub", 1, START_MS + 2000), ("edge>hub", 0, None)]


async def test_id_is_free_again_when_its_window_is_over(store: Store) -> None:
    await store.accept([request("old", correlation=b"c")], START_MS)
    (row,) = await store.next_received(1, ())
    await store.finish(row, Answer(text="then"), State.ANSWERED, START_MS)
    (answer,) = await store.outbox_after(0, 10)
    await store.delivered(answer, START_MS)
    early, late = request("new", correlation=b"c"), request("new", correlation=b"c")
    assert await store.accept([early], START_MS + DEDUPE_MS - 1) == [Accepted.REUSED]
    assert await store.accept([late], START_MS + DEDUPE_MS) == [Accepted.NEW]


async def test_request_refused_without_an_address_is_nothing_to_cancel(store: Store) -> None:
    item = refused("x", topic=None)
    await store.accept([item], START_MS)
    assert await cancel(store, item.id, START_MS) is State.DEAD


async def test_refused_requests_are_purged_by_their_own_time(store: Store, database: FlakyDatabase) -> None:
    await store.accept([refused(b"\xff"), request("kept")], START_MS)
    (answer,) = await store.outbox_after(0, 10)
    assert await store.purge(0, START_MS + 1) == 0  # its error answer has not left yet
    await store.delivered(answer, START_MS)
    assert await store.purge(0, START_MS + 1) == 1
    assert await states(database) == ["received"]


async def test_request_whose_tiers_left_the_configuration_is_decided_again(store: Store) -> None:
    await accept(store, request())
    await queue(store, "hub", "edge")
    await store.recover(NOW, {"regional"})
    (row,) = await store.next_received(10, ())
    assert (row.tiers, row.todo) == ((), ())
    assert (store.counts[State.RECEIVED], store.counts[State.PENDING]) == (1, 0)


# --- sessions ---------------------------------------------------------------------------------------


def in_session(name: str, text: str, *, device: str = "d1", now_ms: int = NOW) -> Request:
    payload = json.dumps({"question": text, "session": name})
    return request(payload, topic=f"{PREFIX}/ask/{device}/{text}", now_ms=now_ms)


async def test_session_is_found_by_its_latest_routed_request(store: Store, database: Database) -> None:
    items = [in_session("s", "a"), in_session("s", "b"), in_session("t", "c"), in_session("s", "d", device="d2")]
    await accept(store, *items)
    await queue(store, "hub", "edge")
    await accept(store, in_session("s", "e"))
    (row,) = await store.next_received(9, ())
    assert row.session == "s"
    assert await store.latest_of_session(row, NOW) == Session(items[1].id, "r", ("hub", "edge"))
    assert await store.latest_of_session(row, NOW + 1) is None


async def test_request_that_took_no_route_passes_none_on(store: Store) -> None:
    await accept(store, in_session("s", "a"))
    (row,) = await store.next_received(9, ())
    await store.queue_for_tiers(row, ("hub",), route=None, confidence=0.1, decision={}, now_ms=NOW)
    await accept(store, in_session("s", "b"))
    (row,) = await store.next_received(9, ())
    assert await store.latest_of_session(row, 0) is None
