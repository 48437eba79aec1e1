"""Hours without upstream, a tier that comes and goes, a clock that somebody set: time passes, and nothing is lost."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal

import pytest
from harness import Behaviour, Call, Message, Site, poll, run_cli, running_site
from moved_clock import YEAR_S, MovedClock
from oracle import Oracle, Sent
from tracing import give_up_without, need

pytestmark = pytest.mark.real_model

HOUR_S = 3600
DAY_S = 24 * HOUR_S
ROUTES = '[routes.frost]\nexamples = ["will there be frost tonight?"]\nto = ["hub"]\n'
ALWAYS_5 = '[mqtt]\nprotocol = "5"\n'  # a busy broker's silence must not lose the correlations


class MovedSite:
    """A site whose daemon lives by a clock of the test's."""

    def __init__(self, site: Site, clock: MovedClock, oracle: Oracle) -> None:
        self.site = site
        self.clock = clock
        self.oracle = oracle
        self.tier = site.tier
        self._pids: list[int] = []
        self._asked_before = 0

    def start(self, *, through: Sequence[str] = ()) -> None:
        self.site.gateway.launch(self.clock.env, through=through)
        self._pids.append(self.site.gateway.log.pid)
        self.site.gateway.wait_for_event("daemon.ready", 20)
        self._asked_before = len(self.oracle.sent)

    def close(self) -> None:
        if self.site.gateway.log.is_running:
            self.site.gateway.log.end(signal.SIGTERM)
        for pid in self._pids:
            self.clock.clean(pid)

    def ask(
        self, number: int = 1, *, ttl_s: float = DAY_S, priority: int = 0, expiry_s: int | None = None
    ) -> list[Sent]:
        """They may wait for `ttl_s`, or for `expiry_s`, which goes as the message expiry of MQTT."""
        ttl = {} if expiry_s else {"ttl_s": ttl_s}
        fields: dict[str, Any] = {"route": "frost", "priority": priority, **ttl}
        return self.oracle.ask(number, form="json", expiry_s=expiry_s, **fields)

    def status(self) -> dict[str, Any]:
        return self.site.gateway.status()

    def pass_time(self, by_s: float) -> None:
        """All clocks go on by this, and the daemon has gone round its loop twice since: what was due has begun."""
        self.clock.move(by_s)
        self.status()
        self.status()

    def settle(self) -> None:
        """Every question asked in this life of the daemon is accepted and decided, and the hub is at none of them."""
        asked = len(self.oracle.sent) - self._asked_before

        def is_quiet() -> bool | None:
            status = self.status()
            is_busy = status["requests"]["received"] or status["tiers"]["hub"]["in_flight"]
            return (not is_busy and sum(status["accepted"].values()) >= asked) or None

        poll(is_quiet, lambda: f"still busy: {self.status()}")

    def states(self) -> Counter[str]:
        return Counter(str(row.state) for row in self.oracle.ledger().rows)

    def cli(self, *arguments: str) -> str:
        """What a command prints that is run by the same clock."""
        return run_cli(*arguments, env={**self.clock.env, "MQROUTER_CONFIG": str(self.site.gateway.config)}).stdout

    def answer_to(self, sent: Sent) -> Message:
        (answer,) = self.oracle.answers_to(sent)
        return answer


@contextmanager
def moved_site(folder: Path, moves: Literal["time", "wall"], config: str = "") -> Iterator[MovedSite]:
    clock = MovedClock(folder / "clock", moves)
    with (
        running_site(folder, text=ALWAYS_5 + config, routes=ROUTES, is_started=False) as site,
        Oracle(site.broker, site.gateway) as oracle,
    ):
        moved = MovedSite(site, clock, oracle)
        moved.start()
        try:
            yield moved
        finally:
            moved.close()


# --- flapping ----------------------------------------------------------------------------------------

STEP_S, FLAP_S, FLAPS_FOR_S = 0.5, 2.0, 300
FAILURES, CONCURRENCY = 3, 2
ASKED_PER_OUTAGE, ASKED_IN_THE_LAST = 6, 60
FLAPPING = f"""
[tiers.hub]
concurrency = {CONCURRENCY}
first_token_timeout_s = 3.0
[retry]
max_attempts = 1000
breaker_failures = {FAILURES}
backoff_min_s = 1.0
backoff_max_s = 4.0
probe_min_s = 1.0
probe_max_s = 8.0
"""


def test_fault_22_flapping_tier_is_left_alone_while_it_is_down(tmp_path: Path) -> None:
    with moved_site(tmp_path, "time", FLAPPING) as moved:
        failed: list[int] = []
        for number in range(round(FLAPS_FOR_S / FLAP_S / 2)):
            failed.append(_outage(moved, is_refusing=number % 2 == 0))
            _pass(moved, FLAP_S)

        # The breaker lets so many fail together; in half open, and once it is open, one and none.
        assert max(failed) <= FAILURES + CONCURRENCY - 1, failed
        _outage(moved, is_refusing=False, asked=ASKED_IN_THE_LAST, and_stays=True)
        _calm_return(moved)
        moved.oracle.extra["attempts failed"] = sum(failed)
        moved.oracle.extra["probes"] = moved.tier.probes
        moved.oracle.judge()


def _outage(moved: MovedSite, *, is_refusing: bool, asked: int = ASKED_PER_OUTAGE, and_stays: bool = False) -> int:
    """Two seconds without the hub; returns how many attempts failed in them."""
    written, probes = len(moved.site.gateway.log.lines), moved.tier.probes
    if is_refusing:
        moved.tier.stop()
    else:
        moved.tier.script, moved.tier.models_status = (lambda _call: Behaviour(status=503)), 503
    moved.ask(asked)
    moved.settle()
    _pass(moved, FLAP_S)
    assert moved.tier.probes - probes <= 4, "probed more often than its pauses of 0.5, 1 and 2 s at least allow"
    if not and_stays:
        if is_refusing:
            moved.tier.start()
        moved.tier.script, moved.tier.models_status = (lambda _call: Behaviour()), 200
    return sum("forward.attempt_failed" in line for line in moved.site.gateway.log.lines[written:])


def _pass(moved: MovedSite, for_s: float) -> None:
    for _ in range(round(for_s / STEP_S)):
        moved.pass_time(STEP_S)
        moved.settle()


def _calm_return(moved: MovedSite) -> None:
    """Once the hub is back it is asked one question, and after that each open one, once."""
    open_before = moved.status()["requests"]["pending"]
    assert open_before >= ASKED_IN_THE_LAST
    moved.tier.calls.clear()
    moved.tier.hold()
    moved.tier.script, moved.tier.models_status = (lambda _call: Behaviour()), 200
    for _ in range(round(30 / STEP_S)):
        if moved.tier.calls:
            break
        moved.pass_time(STEP_S)
    moved.pass_time(STEP_S)
    assert len(moved.tier.calls) == 1, "half open lets one question through"
    moved.tier.release()

    def is_done() -> bool | None:
        moved.pass_time(STEP_S)
        return moved.status()["requests"]["pending"] == 0 or None

    poll(is_done, lambda: f"not drained: {moved.status()}", 30)
    moved.oracle.wait_for_answers()
    assert len(moved.tier.calls) == open_before


# --- a day without upstream --------------------------------------------------------------------------

DAY_LONG = """
[tiers.hub]
concurrency = 1
[retry]
probe_min_s = 1.0
probe_max_s = 60.0
"""


def test_fault_23_day_without_upstream_ends_in_answers_by_priority(tmp_path: Path) -> None:
    with moved_site(tmp_path, "time", DAY_LONG) as moved:
        moved.tier.stop()
        kept = [moved.ask(priority=priority, ttl_s=2 * DAY_S)[0] for priority in (0, 9, 5, 0, 7, 9, 3, 5, 1, 9) * 3]
        kept += moved.ask(2, expiry_s=25 * HOUR_S, priority=4)
        brief = {hours: moved.ask(3, ttl_s=hours * HOUR_S - 60) for hours in (1, 6, 13, 23)}
        brief[24] = moved.ask(3, expiry_s=24 * HOUR_S - 60)
        moved.settle()

        for hour in range(1, 25):
            if hour == 12:
                moved.site.gateway.kill()
                moved.start()
            moved.pass_time(HOUR_S)
            if hour in brief:
                moved.oracle.wait_for_answers(brief[hour])
        assert moved.states() == Counter(pending=len(kept), expired=sum(map(len, brief.values())))

        moved.tier.start()
        moved.pass_time(61)
        moved.oracle.wait_for_answers()

        _check_expired(moved, brief)
        asked = [json.dumps(call.question) for call in moved.tier.calls]
        assert Counter(asked) == Counter(json.dumps(one.text) for one in kept)
        priority_of = {json.dumps(one.text): _priority(one) for one in kept}
        assert [priority_of[text] for text in asked] == sorted(map(_priority, kept), reverse=True)
        assert _order_of_answers(moved, kept) == sorted(map(_priority, kept), reverse=True)
        moved.oracle.extra["expired"] = sum(map(len, brief.values()))
        moved.oracle.judge()


def _check_expired(moved: MovedSite, brief: dict[int, list[Sent]]) -> None:
    """Each was told so within the hour in which its time was over."""
    for hours, questions in brief.items():
        for one in questions:
            answer = moved.answer_to(one)
            assert answer.error_code == "expired"
            waited_s = answer.json["latency_ms"] / 1000
            assert hours * HOUR_S - 60 <= waited_s <= hours * HOUR_S + 60, (hours, waited_s)


def _priority(sent: Sent) -> int:
    assert sent.payload is not None
    priority: int = json.loads(sent.payload).get("priority", 0)
    return priority


def _order_of_answers(moved: MovedSite, sent: Sequence[Sent]) -> list[int]:
    priorities = {one.key: _priority(one) for one in sent}
    keys = [(message.topic, message.correlation) for message in moved.oracle.answers]
    return [priorities[key] for key in keys if key in priorities]


# --- a clock that was set ----------------------------------------------------------------------------

HELD = """
[tiers.hub]
concurrency = 1
total_timeout_s = 60.0
"""
MINUTES_S = 180
"""Longer than any of these tests takes."""
OTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


class Everything:
    """Questions in every state there is, each seconds old; the tier holds what it is asked."""

    def __init__(self, moved: MovedSite, absent: Sequence[str]) -> None:
        self._moved = moved
        self.done = moved.ask(3)
        moved.oracle.wait_for_answers()
        for name in absent:
            self._ask_and_leave(name)
        moved.tier.hold()
        self.leased = moved.ask(ttl_s=HOUR_S)
        moved.tier.wait_for_calls(self.leased[0].text)
        self.with_expiry = moved.ask(3, expiry_s=HOUR_S)
        self.of_an_hour = moved.ask(3, ttl_s=HOUR_S) + self.with_expiry
        self.of_a_week = moved.ask(3) + moved.ask(3, ttl_s=7 * DAY_S)
        self.open = self.leased + self.of_an_hour + self.of_a_week
        poll(lambda: self._number_open() == len(self.open) or None, lambda: str(moved.status()))
        self._expired = 0

    def _ask_and_leave(self, name: str) -> None:
        """Asks for an answer that nobody is there to hear."""
        moved, written = self._moved, len(self._moved.site.gateway.log.lines)
        topic = f"{moved.oracle.prefix}/ask/absent/{name}"
        moved.oracle.asker().publish(topic, "frost while I was away?", reply_to=f"away/{name}", correlation=b"a")
        moved.site.gateway.wait_for_event("deliver.not_taken", after=written)

    def _number_open(self) -> int:
        requests = self._moved.status()["requests"]
        return int(requests["received"] + requests["pending"] + requests["leased"])

    def check_untouched(self, absent: str, *, expired: Sequence[Sent] = (), age_s: float = 0.0) -> None:
        """Nothing but `expired` has ended, and the rest is `age_s` old; what is due ends; one absent is waited for."""
        moved = self._moved
        brief = moved.ask(ttl_s=1)
        with moved.site.requester() as returned:
            returned.subscribe(f"away/{absent}")
            moved.oracle.wait_for_answers([*brief, *expired])
            returned.answer_on(f"away/{absent}", 20)
        assert [moved.answer_to(one).error_code for one in [*brief, *expired]] == ["expired"] * (1 + len(expired))
        self._expired += 1 + len(expired)
        self.open = [one for one in self.open if one not in expired]
        states = moved.states()
        assert (states["expired"], states["undelivered"], states["dead"]) == (self._expired, 0, 0), states
        assert self._number_open() == len(self.open), states
        waiting = json.loads(moved.cli("queue", "list", "--json"))
        assert len(waiting) == len(self.open)
        assert all(age_s <= row["age_s"] < age_s + MINUTES_S for row in waiting), waiting

    def check_answered(self, age_s: float = 0.0) -> None:
        """All the rest is answered, about `age_s` after it was asked."""
        moved = self._moved
        moved.tier.release()
        moved.oracle.wait_for_answers()
        for one in self.open:
            answer = moved.answer_to(one)
            assert answer.error_code is None
            assert age_s <= answer.json["latency_ms"] / 1000 < age_s + MINUTES_S
            if one in self.with_expiry:
                assert answer.expiry_s is not None and HOUR_S - MINUTES_S < answer.expiry_s <= HOUR_S

    def check_remembered(self) -> None:
        """What was answered minutes ago gets the same answer again, and the tier is not asked."""
        moved, sent = self._moved, self.done[0]
        calls = len(moved.tier.calls)
        assert sent.payload is not None
        moved.oracle.asker().publish(sent.topic, sent.payload, reply_to=_reply_to(sent), correlation=sent.correlation)
        poll(lambda: len(moved.oracle.answers_to(sent)) == 2 or None, lambda: "the answer did not come again")
        assert len(moved.tier.calls) == calls


def _reply_to(sent: Sent) -> str | None:
    return None if sent.reply_topic == sent.topic.replace("/ask/", "/answer/") else sent.reply_topic


def test_fault_28_clock_set_by_a_year_while_it_runs_moves_nothing(tmp_path: Path) -> None:
    with moved_site(tmp_path, "wall", HELD) as moved:
        everything = Everything(moved, ["first", "second"])

        moved.clock.move(YEAR_S)
        everything.check_untouched("first")
        moved.clock.move(-2 * YEAR_S)
        everything.check_untouched("second")

        everything.check_answered()
        everything.check_remembered()
        moved.oracle.judge()


def test_fault_28_clock_set_by_a_year_while_it_is_down_moves_nothing(tmp_path: Path) -> None:
    with moved_site(tmp_path, "wall", HELD) as moved:
        everything = Everything(moved, ["first", "second"])

        _restart(moved, YEAR_S)
        everything.check_untouched("first")
        _restart(moved, -2 * YEAR_S)
        everything.check_untouched("second")

        everything.check_answered()
        everything.check_remembered()
        moved.oracle.judge()


def test_fault_28_clock_wrong_by_a_year_after_a_reboot_moves_nothing(tmp_path: Path) -> None:
    with moved_site(tmp_path, "wall", HELD) as moved:
        everything = Everything(moved, ["first", "second"])

        _restart(moved, YEAR_S, through=_in_boot("1", tmp_path))
        everything.check_untouched("first")
        _restart(moved, -2 * YEAR_S, through=_in_boot("2", tmp_path))
        everything.check_untouched("second")

        everything.check_answered()
        everything.check_remembered()
        moved.oracle.judge()


def test_fault_28_hours_in_which_the_gateway_was_off_count(tmp_path: Path) -> None:
    with moved_site(tmp_path, "wall", HELD) as moved:
        everything = Everything(moved, ["only"])

        _restart(moved, 2 * HOUR_S, through=_in_boot("1", tmp_path))

        everything.check_untouched("only", expired=everything.leased + everything.of_an_hour, age_s=2 * HOUR_S)
        everything.check_answered(2 * HOUR_S)
        moved.oracle.judge()


def test_fault_16_date_a_tier_named_means_its_own_clock(tmp_path: Path) -> None:
    with moved_site(tmp_path, "wall", HELD) as moved:
        for by_s in (YEAR_S, -2 * YEAR_S):
            moved.clock.move(by_s)
            asked_at_s: list[float] = []

            def come_back_later(_call: Call, asked_at_s: list[float] = asked_at_s) -> Behaviour:
                asked_at_s.append(time.time())
                date = formatdate(int(asked_at_s[0]) + 3, usegmt=True)
                return Behaviour(status=503, headers={"Retry-After": date}) if len(asked_at_s) == 1 else Behaviour()

            moved.tier.script = come_back_later
            moved.oracle.wait_for_answers(moved.ask())
            assert len(asked_at_s) == 2 and asked_at_s[1] >= int(asked_at_s[0]) + 3
        moved.oracle.judge()


def _restart(moved: MovedSite, by_s: float, *, through: Sequence[str] = ()) -> None:
    moved.site.gateway.kill()
    moved.clock.move(by_s)
    moved.start(through=through)


def _in_boot(number: str, folder: Path) -> Sequence[str]:
    """Returns what to start a program through that takes the machine for one rebooted since."""
    if os.geteuid() != 0:
        give_up_without("needs root, for a mount of its own")
    boot_id = folder / f"boot-{number}"
    boot_id.write_text(f"{number * 8}-{number * 4}-4{number * 3}-8{number * 3}-{number * 12}\n", encoding="ascii")
    return [need("unshare", "util-linux"), "--mount", "sh", "-c", OTHER_BOOT, str(boot_id)]
