"""Verdicts as rows: of one's own requests only, the latest of each source, gone with their request."""

from __future__ import annotations

from typing import Any

from fakes import LIMITS, PREFIX, START_MS, FlakyDatabase, cancel, refused, request

from mqrouter.core.feedback import Feedback, Judged, Source, Verdict
from mqrouter.core.request import Answer
from mqrouter.core.states import State
from mqrouter.core.timeline import Now
from mqrouter.edge.store import feedback
from mqrouter.edge.store.reading import show_request
from mqrouter.edge.store.store import Store

GOOD, BAD, WRONG = Verdict


def verdict(name: str, word: Verdict = GOOD, *, device: str | None = "d1", **more: Any) -> Feedback:
    return Feedback(name, word, Source.MQTT if device else Source.OPERATOR, device, **more)


async def decided(store: Store, text: str = "how are the cows?", reason: str = "above_threshold", **more: Any) -> str:
    item = request(text, **more)
    await store.accept([item], START_MS)
    (row,) = [row for row in await store.next_received(10, ()) if row.id == item.id]
    decision: dict[str, Any] = {"strategy": "semantic", "reason": reason}
    await store.queue_for_tiers(row, ("hub",), route="cattle", confidence=0.9, decision=decision, now_ms=START_MS)
    return item.id


async def rows(database: FlakyDatabase) -> list[Judged]:
    return await database.read(lambda db: feedback.read(db, LIMITS))


async def test_verdict_finds_its_request_by_either_name(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store, topic=f"{PREFIX}/ask/d1/7")
    assert await store.record_feedback([verdict(request_id), verdict("7", BAD)], START_MS) == [request_id, request_id]
    (found,) = await rows(database)
    assert found == Judged(found.request_id, "d1", Source.MQTT, BAD, "cattle", True, None, "how are the cows?")


async def test_device_judges_nobody_elses_requests(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store, topic=f"{PREFIX}/ask/d1/7")
    others = [verdict(request_id, device="d2"), verdict("7", device="d2"), verdict("nothing")]
    assert await store.record_feedback(others, START_MS) == [None, None, None]
    assert await rows(database) == []


async def test_same_id_of_two_devices_is_each_ones_own(store: Store) -> None:
    first = await decided(store, topic=f"{PREFIX}/ask/d1/7")
    second = await decided(store, topic=f"{PREFIX}/ask/d2/7")
    found = await store.record_feedback([verdict("7"), verdict("7", device="d2")], START_MS)
    assert found == [first, second]


async def test_operator_judges_any_and_beside_the_device(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store)
    await store.record_feedback([verdict(request_id)], START_MS)
    await store.record_feedback([verdict(request_id, WRONG, device=None, right_route="code")], START_MS + 1)
    assert [(row.source, row.right_route) for row in await rows(database)] == [("operator", "code"), ("mqtt", None)]
    assert await store.count_feedback() == 2


async def test_route_of_a_session_or_asked_for_is_not_confirmed_by_a_good_answer(
    store: Store, database: FlakyDatabase
) -> None:
    for reason in ("session", "asked_for"):
        await store.record_feedback([verdict(await decided(store, reason, reason))], START_MS)
    assert [row.is_by_text for row in await rows(database)] == [False, False]
    assert await store.count_feedback() == 0


async def test_bad_alone_labels_nothing(store: Store) -> None:
    await store.record_feedback([verdict(await decided(store), BAD)], START_MS)
    assert await store.count_feedback() == 0


async def test_private_question_is_judged_and_not_learnt_from(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store, '{"question": "my debts?", "private": true}')
    assert await store.record_feedback([verdict(request_id)], START_MS) == [request_id]
    assert await rows(database) == []


async def test_refused_request_has_nothing_to_judge(store: Store) -> None:
    item = refused(b"\xff")
    await store.accept([item], START_MS)
    assert await store.record_feedback([verdict(item.id)], START_MS) == [None]


async def test_verdict_goes_with_its_request(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store)
    await store.record_feedback([verdict(request_id)], START_MS)
    (row,) = await store.claim("hub", ["hub"], 1, START_MS)
    await store.finish(row, Answer(text="well"), State.ANSWERED, START_MS, lease=row.lease)
    (answer,) = await store.outbox_after(0, 1)
    await store.delivered(answer, START_MS)
    assert await store.purge(START_MS + 1, START_MS + 1) == 1
    assert await database.read(lambda db: db.execute("SELECT count(*) FROM feedback").fetchone()[0]) == 0


async def test_looking_for_a_name_that_all_devices_use_is_bounded(database: FlakyDatabase) -> None:
    query = "EXPLAIN QUERY PLAN SELECT seq FROM requests WHERE client_id = ? ORDER BY seq DESC LIMIT 5000"
    plan = await database.read(lambda db: [tuple(row)[3] for row in db.execute(query, ("7",))])
    assert any("requests_by_name" in step for step in plan) and not any("TEMP B-TREE" in step for step in plan)


async def test_verdicts_stand_with_the_request_they_are_on(store: Store, database: FlakyDatabase) -> None:
    request_id = await decided(store)
    await store.record_feedback([verdict(request_id, WRONG, right_route="code", note="a script")], START_MS)
    shown = await database.read(lambda db: show_request(db, request_id, Now(START_MS, 0)))
    assert shown is not None
    assert shown["verdicts"] == [
        {"at_ms": START_MS, "source": "mqtt", "verdict": "wrong_route", "right_route": "code", "note": "a script"}
    ]


async def test_of_a_request_that_ended_without_an_answer_only_the_route_is_judged(store: Store) -> None:
    request_id = await decided(store)
    await cancel(store, request_id, START_MS)
    assert await store.record_feedback([verdict(request_id), verdict(request_id, BAD)], START_MS) == [None, None]
    right = verdict(request_id, WRONG, right_route="code")
    assert await store.record_feedback([right], START_MS) == [request_id]
