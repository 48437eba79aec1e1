"""Asks, breaks, and looks at every byte."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

from harness import Message, Requester, poll

from mqrouter.cli.daemon import DaemonDownError, call_daemon
from watching.marks import OPEN, Question, count_bytes, questions, signs
from watching.report import Report
from watching.site import READY_S, TIERS, WatchedSite, watched_site

MAX_OPEN = 150
DRAIN_S = 180.0
PER_FAULT = 40
"""Questions between two faults."""
HUNG_S = 60.0

Say = Callable[[str], None]


def run(folder: Path, requests: int, seed: int, say: Say, *, per_fault: int = PER_FAULT) -> Report:
    with watched_site(folder, seed) as site, Requester(site.broker.port, client_id="watch") as device:
        device.subscribe("mqrouter/farm/answer/#")
        faults = Faults(site, seed)
        asked: list[Question] = []
        heard = Heard(device)
        for question in questions(requests, seed):
            if len(asked) % per_fault == per_fault - 1:
                faults.do_next()
                say(f"{len(asked)} asked, {heard.count()} answered, {faults.done.total()} faults")
            device.send(question.topic, question.payload)
            asked.append(question)
            heard.wait_for(len(asked) - MAX_OPEN, HUNG_S)
        faults.heal()
        say("draining")
        with suppress(AssertionError):  # the report names those that never were
            heard.wait_for(requests, DRAIN_S)
        faults.look()
        site.kill(signal.SIGTERM)
        site.open_barn()
        say("judging")
        return _report(site, faults, asked, device.messages, seed)


class Heard:
    """Which questions have their answer: after a kill it may come twice."""

    def __init__(self, device: Requester) -> None:
        self._device = device
        self._looked_at = 0
        self._topics: set[str] = set()

    def count(self) -> int:
        new = self._device.messages[self._looked_at :]
        self._topics.update(message.topic for message in new)
        self._looked_at += len(new)
        return len(self._topics)

    def wait_for(self, number: int, timeout_s: float) -> None:
        poll(lambda: True if self.count() >= number else None, lambda: f"{self.count()} of {number} answers", timeout_s)


class Faults:
    """One after the other, all of them in each round, in an order of its own each time."""

    def __init__(self, site: WatchedSite, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.listed = bytearray()
        """What the commands printed."""
        self._site = site
        self._chance = Random(f"faults {seed}")
        self._names = self._rounds()

    def do_next(self) -> None:
        name = next(self._names)
        if getattr(self, f"_{name}")() is not False:
            self.done[name] += 1

    def heal(self) -> None:
        for tier in self._site.tiers.values():
            if not tier.is_up:
                tier.start()
        for name in (*TIERS, "edge"):
            self._steer(f"/v1/tiers/{name}/resume")

    def look(self) -> None:
        """What an operator sees who does not ask for a question itself."""
        for command in (["status"], ["status", "--json"], ["queue", "list", "--all"], ["queue", "list", "--json"]):
            self.listed += self._site.gateway.cli(*command, timeout_s=60.0).stdout.encode()

    def _rounds(self) -> Iterator[str]:
        while True:
            yield from self._chance.sample(NAMES, len(NAMES))

    def _kill(self) -> None:
        self._site.kill()
        self._site.launch()

    def _stop(self) -> None:
        self._site.kill(signal.SIGTERM)
        self._site.launch()

    def _tier_down(self) -> bool:
        up = [tier for tier in self._site.tiers.values() if tier.is_up]
        if len(up) < 2:
            return False
        self._chance.choice(up).down()
        return True

    def _tier_up(self) -> bool:
        down = [tier for tier in self._site.tiers.values() if not tier.is_up]
        for tier in down:
            tier.start()
        return bool(down)

    def _take_trust(self) -> bool:
        """A reload, with nothing under way at the tier, so that what it is sent from then on can be told."""
        site = self._site
        if not site.barn_is_trusted:
            return False
        self._steer("/v1/tiers/barn/pause")
        site.wait_until_idle("barn")
        site.configure(barn_is_trusted=False)
        before = len(site.gateway.log.lines)
        site.gateway.log.send(signal.SIGHUP)
        site.gateway.wait_for_event("daemon.reloaded", READY_S, after=before)
        site.close_barn()
        self._steer("/v1/tiers/barn/resume")
        return True

    def _give_trust(self) -> bool:
        """Only a restart does."""
        site = self._site
        if site.barn_is_trusted:
            return False
        site.kill(signal.SIGTERM)
        site.open_barn()
        site.configure(barn_is_trusted=True)
        site.launch()
        return True

    def _pause(self) -> bool:
        return self._steer(f"/v1/tiers/{self._chance.choice(TIERS)}/pause")

    def _resume(self) -> None:
        for name in TIERS:
            self._steer(f"/v1/tiers/{name}/resume")

    def _retry(self) -> bool:
        waiting = [row["id"] for row in self._site.gateway.requests() if row["state"] == "pending"]
        return sum(self._steer(f"/v1/requests/{name}/retry") for name in waiting[:20]) > 0

    def _list(self) -> None:
        self.look()

    def _steer(self, target: str) -> bool:
        try:
            status, _ = call_daemon(self._site.gateway.folder / "data" / "control.sock", "POST", target)
        except DaemonDownError:
            return False
        return status == 200


NAMES = ("kill", "stop", "tier_down", "tier_up", "take_trust", "give_trust", "pause", "resume", "retry", "list")


def _report(site: WatchedSite, faults: Faults, asked: list[Question], heard: list[Message], seed: int) -> Report:
    tapes = {name: bytes(tier.tape) for name, tier in site.tiers.items()}
    barn_closed = b"\n".join(tapes["barn"][start:end] for start, end in site.closed)
    sent = site.sent()
    ports = {name: tier.port for name, tier in site.tiers.items()}
    known = {site.broker.port, *ports.values()}
    outcomes, restored, offences = _judged(asked, heard)
    if strangers := sent.strangers(known):
        offences.append(f"something was sent to nobody's port: {strangers}")
    if not sent.private[site.broker.port]:
        offences.append("the trace shows no answer to a private question: it cannot see")
    logs = "\n".join(life.text for life in site.lives).encode()
    return Report(
        requests=len(asked),
        seed=seed,
        private=sum(question.is_private for question in asked),
        outcomes=outcomes,
        faults=faults.done,
        restored=restored,
        tier_bytes={name: len(tape) for name, tape in tapes.items()},
        open_seen=count_bytes(tapes["hub"] + tapes["cloud"], [OPEN]),
        private_bytes={
            "hub": count_bytes(tapes["hub"], signs()),
            "cloud": count_bytes(tapes["cloud"], signs(is_redacting=True)),
            "barn, not trusted": count_bytes(barn_closed, signs()),
            "hub, traced": sent.private[ports["hub"]],
            "other ports, traced": sum(sent.private[port] for port in sent.private.keys() - known),
            "logs": count_bytes(logs, signs()),
            "status and lists": count_bytes(bytes(faults.listed), signs()),
        },
        offences=offences,
    )


def _judged(asked: list[Question], heard: list[Message]) -> tuple[Counter[str], int, list[str]]:
    """Returns how the private questions ended, the answers that were restored, and what went wrong."""
    by_id = {question.id: question for question in asked}
    outcomes: Counter[str] = Counter()
    offences: list[str] = []
    restored = 0
    for message in heard:
        question, answer = by_id[message.topic.rsplit("/", 1)[1]], json.loads(message.payload)
        if not question.is_private:
            continue
        error, tier = answer.get("error"), answer.get("tier")
        outcomes[error["code"] if error else tier] += 1
        if error:
            continue
        if tier == "hub" or (tier == "cloud" and question.is_marked):
            offences.append(f"{question.id} was answered by {tier}: {question.payload}")
        if tier == "cloud" and question.value is not None:
            if "<" in answer["answer"]:
                offences.append(f"{question.id} was not restored: {answer['answer']}")
            restored += question.value in answer["answer"]
    unanswered = by_id.keys() - {message.topic.rsplit("/", 1)[1] for message in heard}
    offences += [f"{name} was never answered" for name in sorted(unanswered)[:3]]
    return outcomes, restored, offences
