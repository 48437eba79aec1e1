"""The local model's process under a real daemon: killed under load, unloaded when idle, shown in the status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from harness import Requester, Site, poll, running_site

pytestmark = pytest.mark.real_model

SEED = 20_261_121
KILLS = int(os.environ.get("MQROUTER_WORKER_KILLS", "10"))
ASK = "mqrouter/farm/ask"
QUESTION = "What is the capital of Italy?"
MAX_OPEN = 12
WARM_KILLS = 5
"""By then every buffer has had its first growth: the router's memory is compared from here on."""
MAX_GROWTH_MB = 8.0
ROUTES = """
[routes.talk]
examples = ["What is the capital of Italy?", "What is the capital of Spain?", "name the capital of a country"]
to = ["edge", "hub"]
prompt = "chat"
"""
EDGE = """
[routing.abstain]
to = ["edge", "hub"]

[limits]
device_rate_per_minute = 1000000

[tiers.edge]
kind = "local"
threads = 1
max_tokens = 24
temperature = 0.0

[prompts]
chat = "Answer in one short sentence."
"""


def worker_of(site: Site) -> dict[str, Any]:
    worker: dict[str, Any] = site.gateway.status()["tiers"]["edge"]["worker"]
    return worker


class Talk:
    """Use as a context manager: asks without end, at most MAX_OPEN questions at a time without an answer."""

    def __init__(self, device: Requester) -> None:
        self.asked = 0
        self._device = device
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_over.wait(0.05):
            if self.asked - len(self._device.messages) < MAX_OPEN:
                number = str(self.asked).encode()
                self._device.publish(f"{ASK}/d{self.asked % 3}", QUESTION, reply_to="me/in", correlation=number)
                self.asked += 1


def kill_in_the_middle(site: Site, random: Random, killed: set[int]) -> None:
    """Ends another worker with SIGKILL, at some moment after it was seen at work."""

    def busy_pid() -> int | None:
        worker = worker_of(site)
        return worker["pid"] if worker["state"] == "busy" and worker["pid"] not in killed else None

    pid = poll(busy_pid, lambda: f"no worker at work: {worker_of(site)}", 90.0)
    threading.Event().wait(random.uniform(0.0, 0.6))  # never set: a moment nothing of the daemon decides
    os.kill(pid, signal.SIGKILL)
    killed.add(pid)


def wait_for_local_answer(device: Requester) -> None:
    """Returns once the model has given another answer that was sent."""

    def given() -> int:
        return sum(message.properties["mq-tier"] == "edge" for message in list(device.messages))

    before = given()
    poll(lambda: given() > before or None, lambda: "no answer of the local model", 90.0)


def test_every_request_is_answered_while_the_worker_is_killed_and_the_router_does_not_grow(
    tmp_path: Path,
) -> None:
    random = Random(SEED)
    with running_site(tmp_path, text=EDGE, routes=ROUTES) as site, site.requester() as device:
        device.subscribe("me/in")
        router = psutil.Process(site.gateway.log.pid)
        sizes_mb: list[float] = []
        killed: set[int] = set()
        with Talk(device) as talk:
            for number in range(KILLS):
                if number % 2:  # in a row they would be a crash loop, and that is slowed down more and more
                    wait_for_local_answer(device)
                kill_in_the_middle(site, random, killed)
                sizes_mb.append(router.memory_info().rss / 1e6)
        messages = device.wait_for_number(talk.asked, 120.0)
        tiers = Counter(message.properties["mq-tier"] for message in messages)
        deaths = len(site.gateway.events("chat.worker_died"))
        sys.stderr.write(
            f"\n{talk.asked} questions, {len(killed)} workers killed, {deaths} of them in an answer, answers by tier"
            f" {dict(tiers)}; router {sizes_mb[0]:.1f} MB at the first kill, {sizes_mb[WARM_KILLS]:.1f} at kill"
            f" {WARM_KILLS + 1}, {sizes_mb[-1]:.1f} at the last\n"
        )
        assert len(killed) == KILLS and deaths
        assert Counter(message.correlation for message in messages) == {
            str(number).encode(): 1 for number in range(talk.asked)
        }
        assert [message.text for message in messages if message.error_code] == []
        assert tiers["edge"] and tiers["hub"]
        assert sizes_mb[-1] - sizes_mb[WARM_KILLS] < MAX_GROWTH_MB


@pytest.fixture
def idle_site(tmp_path: Path) -> Iterator[Site]:
    text = EDGE.replace("max_tokens", "idle_unload_s = 0.5\nmax_tokens")
    with running_site(tmp_path, text=text, routes=ROUTES.replace('["edge", "hub"]', '["edge"]')) as site:
        yield site


def test_idle_model_is_unloaded_and_loaded_again_and_the_status_shows_it(idle_site: Site) -> None:
    assert worker_of(idle_site) == {
        "state": "unloaded",
        "pid": None,
        "resident_mb": None,
        "loads": 0,
        "idle_s": None,
        "unloaded_because": None,
    }
    with idle_site.requester() as device:
        device.subscribe("me/in")
        for loads in (1, 2):
            device.publish(f"{ASK}/d", QUESTION, reply_to="me/in", correlation=str(loads).encode())
            answer = device.answer_to(str(loads).encode(), 60.0)
            assert answer.properties["mq-tier"] == "edge"
            poll(
                lambda: worker_of(idle_site)["state"] == "unloaded" or None,
                lambda: f"still {worker_of(idle_site)}",
                30.0,
            )
            assert (worker_of(idle_site)["loads"], worker_of(idle_site)["unloaded_because"]) == (
                loads,
                "idle for 0.5 s",
            )
    shown = idle_site.gateway.cli("status").stdout
    assert "unloaded: idle for 0.5 s" in shown


def test_model_that_finds_no_memory_is_not_loaded_and_the_next_tier_answers(tmp_path: Path) -> None:
    text = EDGE.replace("max_tokens", "min_free_mb = 1e9\nmax_tokens")
    with running_site(tmp_path, text=text, routes=ROUTES) as site, site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/d", QUESTION, reply_to="me/in", correlation=b"1")
        assert device.answer_to(b"1", 30.0).properties["mq-tier"] == "hub"
        tier = site.gateway.status()["tiers"]["edge"]
        assert (tier["usable"], tier["worker"]["state"], tier["worker"]["loads"]) == (False, "unloaded", 0)
        assert tier["reason"].startswith("not enough memory for the local model")


def test_endless_repetition_is_judged_goes_up_and_is_shown(tmp_path: Path) -> None:
    text = EDGE.replace("max_tokens = 24", "max_tokens = 192")
    routes = ROUTES.replace('prompt = "chat"\n', "")
    with running_site(tmp_path, text=text, routes=routes) as site, site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/d", "What is the capital of France?", reply_to="me/in", correlation=b"1")
        answer = device.answer_to(b"1", 90.0)
        assert (answer.properties["mq-tier"], answer.text) == ("hub", "echo: What is the capital of France?")
        shown = site.gateway.cli("queue", "show", answer.properties["mq-id"]).stdout
        (judged,) = [line for line in shown.splitlines() if "judged" in line]
        assert "edge: repetitive: characters" in judged and "(limit 0.5)!" in judged and "mean_logprob" in judged
        assert "edge: unfit: the answer was repetitive" in shown
