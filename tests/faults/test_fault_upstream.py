"""Tiers that fail, refuse, babble, trickle and flood: every question still gets one whole answer, or a clear error."""

import gzip
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from bad_tier import (
    CHUNKED_HEAD,
    MIB,
    STREAM_HEAD,
    BadTier,
    Part,
    RawCall,
    drip,
    echo,
    event,
    repeated,
    reply,
    whole_object,
    whole_stream,
)
from harness import Behaviour, Call, Gateway, Site, StubTier, poll, running_site
from oracle import Oracle, Sent

from mqrouter.core.backoff import Backoff

pytestmark = pytest.mark.real_model

BACKOFF = Backoff(min_s=0.5, max_s=1.5)
PROBES = Backoff(min_s=0.2, max_s=1.6)
MAX_ATTEMPTS = 6
TOTAL_LIMIT_S = 4.0
LATE_S = 2.0
"""What a busy machine may add to any wait."""

CONFIG = f"""
[mqtt]
protocol = "5"
[tiers.hub]
concurrency = 1
[tiers.bad]
kind = "openai"
url = "%(bad)s"
model = "bad"
concurrency = 4
total_timeout_s = {TOTAL_LIMIT_S}
[tiers.spare]
kind = "openai"
url = "%(spare)s"
model = "spare"
[retry]
max_attempts = {MAX_ATTEMPTS}
breaker_failures = 1000
backoff_min_s = {BACKOFF.min_s}
backoff_max_s = {BACKOFF.max_s}
probe_min_s = {PROBES.min_s}
probe_max_s = {PROBES.max_s}
"""
ROUTES = "".join(
    f'[routes.{name}]\nexamples = ["{example}"]\nto = {json.dumps(tiers)}\n'
    for name, example, tiers in (
        ("hub", "will there be frost tonight?", ["hub"]),
        ("hub_spare", "which fungus is on my tomatoes?", ["hub", "spare"]),
        ("bad", "when should I water the beans?", ["bad"]),
        ("bad_spare", "is the soil dry enough to plough?", ["bad", "spare"]),
    )
)


@dataclass
class Farm:
    """A daemon with a tier to script by status (`hub`), one to script by bytes (`bad`), and a good one (`spare`)."""

    gateway: Gateway
    hub: StubTier
    bad: BadTier
    spare: StubTier
    oracle: Oracle

    def ask(self, route: str, number: int = 1) -> list[Sent]:
        return self.oracle.ask(number, form="json", route=route)

    def answered_by(self, sent: Sent) -> str | None:
        """The tier of the one answer; None for an error."""
        (answer,) = self.oracle.answers_to(sent)
        return None if answer.error_code else answer.properties["mq-tier"]

    def error(self, sent: Sent) -> str | None:
        (answer,) = self.oracle.answers_to(sent)
        return answer.error_code


@pytest.fixture(scope="module")
def shared_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, BadTier, StubTier]]:
    bad, spare = BadTier().start(), StubTier().start()
    text = CONFIG % {"bad": bad.url, "spare": spare.url}
    try:
        with running_site(tmp_path_factory.mktemp("site"), text=text, routes=ROUTES) as site:
            yield site, bad, spare
    finally:
        bad.close()
        spare.close()


@pytest.fixture
def farm(shared_parts: tuple[Site, BadTier, StubTier]) -> Iterator[Farm]:
    site, bad, spare = shared_parts
    for tier in (site.tier, bad, spare):
        tier.reset()
    with Oracle(site.broker, site.gateway) as oracle:
        yield Farm(site.gateway, site.tier, bad, spare, oracle)


def _number(question: str) -> int:
    found = re.search(r"(\d+)\?$", question)
    assert found is not None, question
    return int(found[1])


# --- statuses ----------------------------------------------------------------------------------------


def test_fault_15_tier_that_fails_five_times_is_asked_again_within_the_backoff(farm: Farm) -> None:
    asked_at_s: dict[str, list[float]] = {}

    def fail_five_times(call: Call) -> Behaviour:
        times = asked_at_s.setdefault(call.question, [])
        times.append(time.monotonic())
        return Behaviour(status=500 if len(times) <= 5 else 200)

    farm.hub.script = fail_five_times
    sent = farm.ask("hub", 20)

    farm.oracle.wait_for_answers()

    assert [farm.answered_by(one) for one in sent] == ["hub"] * 20
    waits_s = [[after - before for before, after in itertools.pairwise(times)] for times in asked_at_s.values()]
    assert [len(waits) for waits in waits_s] == [5] * 20
    for waits in waits_s:
        for failures, wait_s in enumerate(waits, 1):
            assert wait_s <= BACKOFF.ceiling_s(failures) + LATE_S, waits
    # Drawn from zero to the ceiling, five waits come to 3 s: less than 2.2 s as the mean of twenty is 4 sigma off.
    assert sum(map(sum, waits_s)) / len(waits_s) > 2.2
    assert len({round(wait_s, 2) for waits in waits_s for wait_s in waits}) > 10, "no jitter"
    farm.oracle.extra["calls"] = len(farm.hub.calls)
    farm.oracle.judge()


class Patience:
    """A hub that is too busy for its first call, and says until when."""

    def __init__(self, hub: StubTier, form: str, for_s: int) -> None:
        self.asked_at_s: list[float] = []
        self.until_s = 0.0
        self._form = form
        self._for_s = for_s
        hub.script = self._answer

    def _answer(self, _call: Call) -> Behaviour:
        now_s = time.time()
        self.asked_at_s.append(now_s)
        if len(self.asked_at_s) > 1:
            return Behaviour()
        if self._form == "seconds":
            self.until_s = now_s + self._for_s
            return Behaviour(status=429, headers={"Retry-After": str(self._for_s)})
        self.until_s = int(now_s) + 1.0 + self._for_s
        return Behaviour(status=503, headers={"Retry-After": formatdate(self.until_s, usegmt=True)})

    def was_kept(self) -> bool:
        return all(asked_at_s >= self.until_s - 0.01 for asked_at_s in self.asked_at_s[1:])


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_fault_16_nothing_is_sent_before_the_time_the_tier_named(farm: Farm, form: str) -> None:
    patience = Patience(farm.hub, form, for_s=2)
    farm.ask("hub")
    farm.hub.wait_for_calls("?")
    farm.ask("hub", 3)
    poll(lambda: farm.gateway.status()["tiers"]["hub"]["held_s"] or None, lambda: "the hub is not left alone")

    farm.oracle.wait_for_answers()

    assert patience.was_kept(), patience.asked_at_s
    assert patience.asked_at_s[1] <= patience.until_s + LATE_S
    assert len(farm.hub.calls) == 5
    farm.oracle.judge()


def test_fault_16_the_time_the_tier_named_outlives_a_restart(farm: Farm) -> None:
    patience = Patience(farm.hub, "seconds", for_s=6)
    written = len(farm.gateway.log.lines)
    farm.ask("hub")
    farm.gateway.wait_for_event("forward.attempt_failed", after=written)
    farm.gateway.kill()

    farm.gateway.start()
    farm.ask("hub", 3)
    farm.oracle.wait_for_answers()

    assert patience.was_kept(), f"asked at {patience.asked_at_s}, not before {patience.until_s}"
    farm.oracle.judge()


def test_fault_17_tier_that_refuses_is_asked_once(farm: Farm) -> None:
    farm.hub.script = lambda call: Behaviour(status=(400, 413)[_number(call.question) % 2])
    alone, spared = farm.ask("hub", 4), farm.ask("hub_spare", 4)

    farm.oracle.wait_for_answers()

    assert [farm.error(one) for one in alone] == ["upstream_failed"] * 4
    assert [farm.answered_by(one) for one in spared] == ["spare"] * 4
    assert Counter(call.question for call in farm.hub.calls) == {one.text: 1 for one in alone + spared}
    assert Counter(call.question for call in farm.spare.calls) == {one.text: 1 for one in spared}
    farm.oracle.judge()


def test_fault_18_tier_that_refuses_the_key_is_paused_and_the_queue_is_kept(farm: Farm) -> None:
    asked_at_s: list[float] = []

    def refuse_the_key(_call: Call) -> Behaviour:
        asked_at_s.append(time.monotonic())
        return Behaviour(status=401)

    farm.hub.script = refuse_the_key
    written = len(farm.gateway.log.lines)
    waiting = farm.ask("hub", 12)
    farm.hub.wait_for_calls("?", 5)  # its list of models it shows to anybody: each probe finds it up

    alert = farm.gateway.wait_for_event("forward.tier_refused_credentials", after=written)
    assert (alert["level"], alert["tier"], alert["error"]) == ("error", "hub", "HTTP 401 Unauthorized")
    line = next(line for line in farm.gateway.cli("status").stdout.splitlines() if line.split()[0] == "hub")
    assert "HTTP 401 Unauthorized" in line
    for failures, (before_s, after_s) in enumerate(itertools.pairwise(asked_at_s[:5]), 1):
        assert after_s - before_s >= 0.5 * PROBES.ceiling_s(failures), asked_at_s
    spared = farm.ask("hub_spare")
    farm.oracle.wait_for_answers(spared)
    assert farm.answered_by(spared[0]) == "spare"
    rows = {row["id"]: row for row in farm.gateway.requests() if row["route"] == "hub"}.values()
    queued = [(row["state"], row["attempts"]) for row in rows if row["state"] in ("pending", "leased")]
    assert len(queued) == 12 and {attempts for _, attempts in queued} == {0}

    refused = len(asked_at_s)
    farm.hub.script = lambda _call: Behaviour()
    farm.oracle.wait_for_answers(waiting)

    assert [farm.answered_by(one) for one in waiting] == ["hub"] * 12
    assert len(farm.hub.calls) <= refused + 1 + 12
    farm.oracle.extra["calls refused"] = refused
    farm.oracle.judge()


# --- bytes -------------------------------------------------------------------------------------------

HALF = event("half an answer")
END = event(None, finish_reason="stop") + b"data: [DONE]\n\n"
OBJECT = whole_object("half an answer")

BROKEN: dict[str, list[Part]] = {
    "object cut, its length right": [reply(OBJECT[:-20])],
    "object cut, its length wrong": [reply(OBJECT[:-20], length=len(OBJECT))],
    "object whole, its length too long": [reply(OBJECT, length=len(OBJECT) + 50)],
    "object whole, its length too short": [reply(OBJECT, length=len(OBJECT) - 50)],
    "not JSON": [reply(b'{"choices": [{"message": {"content": half an answer}}]}')],
    "not UTF-8": [reply(OBJECT.replace(b"half", b"h\xff\xfelf"))],
    "a list": [reply(b"[" + OBJECT + b"]")],
    "no choices": [reply(b'{"choices": []}')],
    "a number for a text": [reply(b'{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}')],
    "no body": [reply(b"")],
    "a page to log in": [reply(b"<html><body>Welcome to the guest network</body></html>", kind="text/html")],
    "stream cut between events": [STREAM_HEAD + HALF],
    "stream cut within an event": [STREAM_HEAD + HALF + HALF[:-9]],
    "stream cut within its last event": [STREAM_HEAD + HALF + event(None, finish_reason="stop")[:-5]],
    "stream cut within a chunk": [CHUNKED_HEAD + b"%x\r\n" % (len(HALF) + 40) + HALF],
    "stream without its last chunk": [CHUNKED_HEAD + b"%x\r\n" % len(HALF) + HALF + b"\r\n"],
    "garbage for a chunk": [CHUNKED_HEAD + b"%x\r\n" % len(HALF) + HALF + b"\r\n" + b"zz\r\nwhat?\r\n"],
    "stream with an event that is not JSON": [STREAM_HEAD + HALF + b"data: {half}\n\n" + END],
    "stream that ends without a reason": [STREAM_HEAD + HALF + b"data: [DONE]\n\n"],
    "stream that fails on its way": [STREAM_HEAD + HALF + b'data: {"error": {"message": "out of memory"}}\n\n'],
    "compressed, and not": [STREAM_HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n" + HALF + END],
    "not HTTP": [b"220 smtp.example ESMTP\r\n"],
    "nothing at all": [b""],
}


class Breaking:
    """Gives each new question its own way to break, for its first `times` calls."""

    def __init__(self, times: float) -> None:
        self.ways: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self._times = times
        self._left = iter(BROKEN)

    def __call__(self, call: RawCall) -> Iterable[Part]:
        if call.question not in self.ways:
            self.ways[call.question] = next(self._left)
        self.calls[call.question] += 1
        return BROKEN[self.ways[call.question]] if self.calls[call.question] <= self._times else echo(call)

    def by_way(self) -> dict[str, int]:
        return {self.ways[question]: calls for question, calls in self.calls.items()}


def test_fault_19_broken_answer_is_asked_for_again(farm: Farm) -> None:
    breaking = farm.bad.script = Breaking(times=1)
    sent = farm.ask("bad", len(BROKEN))

    farm.oracle.wait_for_answers()

    assert {breaking.ways[one.text]: farm.answered_by(one) for one in sent} == dict.fromkeys(BROKEN, "bad")
    assert breaking.by_way() == dict.fromkeys(BROKEN, 2)
    farm.oracle.judge()


def test_fault_19_answer_broken_for_good_comes_from_the_next_tier(farm: Farm) -> None:
    breaking = farm.bad.script = Breaking(times=float("inf"))
    sent = farm.ask("bad_spare", len(BROKEN))

    farm.oracle.wait_for_answers()

    assert {breaking.ways[one.text]: farm.answered_by(one) for one in sent} == dict.fromkeys(BROKEN, "spare")
    # A connection that ends before a word may be a stale one: it is replaced at once, within the attempt.
    assert breaking.by_way() == dict.fromkeys(BROKEN, 1) | {"nothing at all": 2}
    farm.oracle.judge()


def test_fault_19_answer_broken_for_good_and_no_other_tier_is_an_error(farm: Farm) -> None:
    breaking = farm.bad.script = Breaking(times=float("inf"))
    sent = farm.ask("bad", len(BROKEN))

    farm.oracle.wait_for_answers()

    assert {breaking.ways[one.text]: farm.error(one) for one in sent} == dict.fromkeys(BROKEN, "upstream_failed")
    assert breaking.by_way() == dict.fromkeys(BROKEN, MAX_ATTEMPTS) | {"nothing at all": 2 * MAX_ATTEMPTS}
    farm.oracle.judge()


def test_fault_20_answer_of_one_byte_per_second_is_cut_and_holds_up_nobody(farm: Farm) -> None:
    from_the_start, from_the_head = drip(whole_stream("too slow")), drip(HALF * 2)
    slow_replies = iter([from_the_start, itertools.chain([STREAM_HEAD], from_the_head)])
    farm.bad.script = lambda _call: next(slow_replies)
    slow = farm.ask("bad_spare", 2)
    for one in slow:
        farm.bad.wait_for_calls(one.text)
    farm.bad.script = echo

    others = farm.ask("bad", 6) + farm.ask("hub", 6)
    farm.oracle.wait_for_answers(others)

    assert farm.bad.hang_ups == [], "the others had to wait"
    ends = [farm.bad.wait_for_hang_up(one.text) for one in slow]
    assert all(TOTAL_LIMIT_S - 0.1 <= end.after_s <= TOTAL_LIMIT_S + LATE_S for end in ends), ends
    farm.oracle.wait_for_answers(slow)
    assert [farm.answered_by(one) for one in slow] == ["spare"] * 2
    farm.oracle.judge()


FLOOD_BYTES = 100 * MIB
BOMB = gzip.compress(event("word " * 2000) * (FLOOD_BYTES // 10_000))
FLOODS: dict[str, Callable[[], Iterable[Part]]] = {
    "words without end": lambda: itertools.chain([STREAM_HEAD], repeated(event("word " * 200), FLOOD_BYTES)),
    "one line without end": lambda: itertools.chain([STREAM_HEAD, b"data: "], repeated(b"a", FLOOD_BYTES)),
    "one object without end": lambda: itertools.chain([STREAM_HEAD, b'{"choices": ['], repeated(b"[0],", FLOOD_BYTES)),
    "a head without end": lambda: itertools.chain([STREAM_HEAD[:-2]], repeated(b"X-More: of this\r\n", FLOOD_BYTES)),
    "an error without end": lambda: itertools.chain(
        [STREAM_HEAD.replace(b"200 OK", b"500 Oh")], repeated(b"oh no ", FLOOD_BYTES)
    ),
    "little that unpacks to much": lambda: [
        STREAM_HEAD[:-2] + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
    ],
}


def test_fault_21_answer_of_100_mb_is_cut_and_memory_stays_bounded(farm: Farm) -> None:
    farm.ask("bad_spare", 4)
    farm.oracle.wait_for_answers()
    before_kib = _reset_peak_kib(farm.gateway.log.pid)
    kinds = iter(FLOODS)
    flooded: dict[str, str] = {}

    def flood(call: RawCall) -> Iterable[Part]:
        flooded[call.question] = next(kinds)
        return FLOODS[flooded[call.question]]()

    farm.bad.script = flood
    sent = farm.ask("bad_spare", len(FLOODS))
    farm.oracle.wait_for_answers()

    assert {flooded[one.text]: farm.answered_by(one) for one in sent} == dict.fromkeys(FLOODS, "spare")
    peak_kib = _memory_kib(farm.gateway.log.pid, "VmHWM")
    endless = [question for question, kind in flooded.items() if "without end" in kind]
    taken = {flooded[question]: farm.bad.wait_for_hang_up(question).sent_bytes for question in endless}
    assert len(taken) == 5 and all(sent_bytes < 16 * MIB for sent_bytes in taken.values()), taken
    # Four at once of at most 4 MiB each, held up to three times over while they are read.
    assert peak_kib - before_kib < 48 * 1024, f"from {before_kib} to {peak_kib} KiB"
    farm.oracle.extra["peak"] = f"+{(peak_kib - before_kib) / 1024:.1f} MiB"
    farm.oracle.judge()


def _reset_peak_kib(pid: int) -> int:
    """Returns what the process has in memory now; from here on its peak counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return _memory_kib(pid, "VmRSS")


def _memory_kib(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))
