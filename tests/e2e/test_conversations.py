"""Sessions, progress and provisional answers, as a device sees them: over mosquitto, with a daemon that is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness import Behaviour, Call, Message, Requester, Site, StubTier, running_site

pytestmark = pytest.mark.real_model

ASK, ANSWER, PROGRESS = "mqrouter/farm/ask", "mqrouter/farm/answer", "mqrouter/farm/progress"
ROUTES = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?"]
to = ["hub", "spare"]

[routes.leaves]
examples = ["which fungus is on my tomato leaves?", "brown spots on the potato plants"]
to = ["hub"]
when_offline = "answer_then_refine"
prompt = "chat"

[routes.talk]
examples = ["good morning, how are you today?", "hello, nice to meet you"]
to = ["edge", "hub"]
prompt = "chat"
"""
FROST, LEAVES = "will there be frost tonight?", "which fungus is on my tomato leaves?"
FORECAST = " ".join(f"At {hour} it will be {-hour} degrees." for hour in range(12))
MODEL_S = 60.0  # the chat model is loaded first


@pytest.fixture
def spare() -> Iterator[StubTier]:
    tier = StubTier().start()
    yield tier
    tier.close()


@pytest.fixture
def site(tmp_path: Path, spare: StubTier) -> Iterator[Site]:
    text = f'[tiers.spare]\nkind = "openai"\nurl = "{spare.url}"\nmodel = "spare"\n'
    text += '[tiers.edge]\nkind = "local"\ntemperature = 0\n'
    with running_site(tmp_path, text=text, routes=ROUTES) as site:
        yield site


def ask(device: Requester, name: str, question: str, **more: object) -> None:
    device.publish(f"{ASK}/probe/{name}", json.dumps({"question": question, "id": name, **more}))


def told(call: Call) -> list[str]:
    """What the tier was sent, less the system message."""
    return [message["content"] for message in call.body["messages"] if message["role"] != "system"]


def test_session_survives_a_kill_and_goes_on_at_another_tier(site: Site, spare: StubTier) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#", f"{ANSWER}/other/#")
        ask(device, "s1", FROST, session="a")
        assert device.answer_on(f"{ANSWER}/probe/s1").json["tier"] == "hub"
        site.gateway.kill()
        site.tier.stop()

        site.gateway.start()
        ask(device, "s2", "and the second one?", session="a")
        assert device.answer_on(f"{ANSWER}/probe/s2").json["tier"] == "spare"
        device.publish(f"{ASK}/other/s3", json.dumps({"question": "and frost there?", "id": "s3", "session": "a"}))
        device.answer_on(f"{ANSWER}/other/s3")

    assert told(spare.calls[0]) == [FROST, f"echo: {FROST}", "and the second one?"]
    assert told(spare.calls[1]) == ["and frost there?"], "another device has a session of that name"


def test_session_that_began_on_this_device_goes_on_upstream(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "t1", "good morning, how are you today?", session="a")
        first = device.wait_for(lambda m: m.topic == f"{ANSWER}/probe/t1", MODEL_S).json
        assert first["tier"] == "edge"
        assert site.gateway.cli("queue", "pause", "edge").returncode == 0
        site.gateway.kill()

        site.gateway.start()
        ask(device, "t2", "and what is new?", session="a")
        assert device.answer_on(f"{ANSWER}/probe/t2").json["tier"] == "hub"

    (call,) = site.tier.calls
    assert told(call) == ["good morning, how are you today?", first["answer"], "and what is new?"]


def bodies(device: Requester, topic: str) -> list[dict[str, Any]]:
    return [message.json for message in device.messages if message.topic == topic]


@pytest.mark.parametrize("version", [5, 4], ids=["5", "3.1.1"])
def test_progress_comes_in_order_before_the_answer(site: Site, version: int) -> None:
    words = " ".join(f"word{number}" for number in range(400))
    site.tier.script = lambda _call: Behaviour(text=words)
    site.tier.hold(after_words=5)
    with site.requester(version) as device:
        device.subscribe(f"{ANSWER}/probe/#", f"{PROGRESS}/probe/#", "me/in")
        more = {"reply_to": "me/in", "correlation": b"\x00c"} if version == 5 else {}
        payload = json.dumps({"question": FROST, "id": "p1", "progress": True})
        device.publish(f"{ASK}/probe/p1", payload, **more)  # type: ignore[arg-type]
        first = device.answer_on(f"{PROGRESS}/probe/p1")
        assert (first.json["id"], first.json["seq"], first.json["text"][:5]) == ("p1", 0, "word0")
        assert (first.qos, first.is_retained, first.correlation) == (0, False, b"\x00c" if version == 5 else None)
        site.tier.release()
        answer = device.answer_on("me/in" if version == 5 else f"{ANSWER}/probe/p1")

    assert device.messages[-1] == answer, "nothing is said after the answer"
    chunks = bodies(device, f"{PROGRESS}/probe/p1")
    assert [chunk["seq"] for chunk in chunks] == list(range(len(chunks)))
    assert {chunk["attempt"] for chunk in chunks} == {1}
    assert "".join(chunk["text"] for chunk in chunks) == answer.json["answer"] == words
    assert len(chunks) < 40, "not a message a word"


def test_progress_of_a_second_attempt_begins_anew_and_is_told_apart(site: Site, spare: StubTier) -> None:
    site.tier.script = lambda _call: Behaviour(text="half an answer", is_cut=True)
    spare.script = lambda _call: Behaviour(text="a whole answer")
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#", f"{PROGRESS}/probe/#")
        ask(device, "p2", FROST, progress=True)
        answer = device.answer_on(f"{ANSWER}/probe/p2")
    chunks = bodies(device, f"{PROGRESS}/probe/p2")
    by_attempt = {number: [c for c in chunks if c["attempt"] == number] for number in (1, 2)}
    assert [[chunk["seq"] for chunk in found][:1] for found in by_attempt.values()] == [[0], [0]]
    assert "".join(chunk["text"] for chunk in by_attempt[2]) == answer.json["answer"] == "a whole answer"


def test_nobody_hears_of_progress_who_did_not_ask(site: Site) -> None:
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#", f"{PROGRESS}/#")
        ask(device, "p3", FROST)
        device.answer_on(f"{ANSWER}/probe/p3")
    assert len(device.messages) == 1


def test_payload_fits_and_says_that_it_is_cut(site: Site) -> None:
    site.tier.script = lambda _call: Behaviour(text=FORECAST)
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "b1", FROST, max_bytes=200)
        answer = device.answer_on(f"{ANSWER}/probe/b1")
    assert len(answer.payload) <= 200
    assert answer.json["truncated"] is True
    assert answer.json["answer"].endswith(" degrees.")
    assert FORECAST.startswith(answer.json["answer"])


def provisional(device: Requester, name: str) -> Message:
    return device.wait_for(lambda m: m.topic == f"{ANSWER}/probe/{name}" and m.json["provisional"], MODEL_S)


def terminal(device: Requester, name: str, timeout_s: float = 10.0) -> Message:
    return device.wait_for(
        lambda m: m.topic == f"{ANSWER}/probe/{name}" and not m.json.get("provisional", False), timeout_s
    )


def test_better_answer_follows_a_provisional_one_across_a_kill(site: Site) -> None:
    site.tier.stop()
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "r1", LEAVES, accept_provisional=True)
        first = provisional(device, "r1")
        assert (first.json["tier"], first.properties["mq-status"]) == ("edge", "provisional")
        site.gateway.wait_for_request(client_id="r1", state="pending")
        site.gateway.kill()
        site.tier.start()

        site.gateway.start()
        last = terminal(device, "r1")

        assert (last.json["tier"], last.json["answer"]) == ("hub", f"echo: {LEAVES}")
        assert last.json["refined"] is True
        assert last.properties["mq-id"] == first.properties["mq-id"]
        site.gateway.wait_for_request(client_id="r1", state="delivered")
        assert [message.json["provisional"] for message in device.messages].count(False) == 1
        assert len({message.payload for message in device.messages}) == 2
    assert len(site.tier.asked(LEAVES)) == 1
    assert json.loads(site.gateway.cli("db", "check", "--json").stdout)["ok"] is True


def test_provisional_answer_stands_when_no_better_one_comes(site: Site) -> None:
    site.tier.stop()
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "r2", LEAVES, accept_provisional=True)
        first = provisional(device, "r2")
        shown = json.loads(site.gateway.cli("queue", "show", "--json", "r2").stdout)
        assert (shown["state"], shown["answer_is_provisional"]) == ("pending", True)
        refuse(site)
        last = terminal(device, "r2")
    assert (last.json["answer"], last.json["refined"], last.json["tier"]) == (first.json["answer"], False, "edge")
    row = site.gateway.wait_for_request(client_id="r2", reason=None)
    assert row["detail"].startswith("hub: refused: ")


def refuse(site: Site) -> None:
    """The hub is back, and refuses everything for good."""
    site.tier.script = lambda _call: Behaviour(status=400)
    site.tier.start()


def test_who_accepts_no_provisional_answer_waits(site: Site) -> None:
    site.tier.stop()
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/probe/#")
        ask(device, "r4", LEAVES)
        site.gateway.wait_for_event("tier.breaker_changed", tier="hub", new="open")
        ask(device, "r5", LEAVES)
        for name in ("r4", "r5"):
            assert site.gateway.wait_for_request(client_id=name, state="pending")["waiting_for"] == "hub"
        site.tier.start()
        assert [terminal(device, name).json["tier"] for name in ("r4", "r5")] == ["hub", "hub"]
    assert len(device.messages) == 2


def test_ask_shows_progress_and_a_provisional_answer_before_the_last_one(site: Site) -> None:
    shown = site.gateway.cli("ask", "--progress", "--session", "c", "--max-bytes", "400", FROST)
    assert (shown.returncode, shown.stdout) == (0, f"echo: {FROST}\n")
    assert shown.stderr.startswith(f"echo: {FROST}\n[frost > hub")
    site.tier.stop()

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(site.gateway.cli, "ask", "--provisional", "--timeout", "80", LEAVES, timeout_s=100)
        site.gateway.wait_for_event("request.answered_provisionally", MODEL_S)
        refuse(site)
        refined = asking.result()

    assert refined.returncode == 0, refined.stderr
    assert "provisional: a better answer may follow]" in refined.stderr
    assert refined.stderr.rstrip().endswith("no better answer came]")
    assert refined.stdout.strip() and refined.stdout.strip() in refined.stderr
