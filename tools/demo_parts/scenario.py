"""The demo from its first process to its last answer: three questions, and a hub that goes away and comes back."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from demo_parts.configuration import write_configuration
from demo_parts.device import Device
from demo_parts.gateway import Gateway
from demo_parts.outcome import Outcome
from demo_parts.processes import Child, Children, DemoError, environment
from demo_parts.report import Report
from mqrouter.config import load

HERE = Path(__file__).parent
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 120.0

# At temperature 0 the small model has a short and passable answer to these.
ON_DEVICE = "Good morning, how are you today?"
TO_HUB = "When do I plant potatoes?"
DURING_OUTAGE = "Why are the leaves of my tomatoes turning yellow?"


class Scenario:
    def __init__(self, folder: Path, children: Children, report: Report) -> None:
        self._children = children
        self._wait = children.wait_until
        self._report = report
        self.broker_port, self._hub_port = _free_ports(2)
        config = write_configuration(folder, broker_port=self.broker_port, hub_port=self._hub_port)
        settings = load(config, environment()).settings
        self.gateway = Gateway(children, config, settings)
        self._device = Device(self.broker_port, settings.prefix)
        self._outcomes: list[Outcome] = []

    def play(self) -> list[Outcome]:
        """Returns the outcome of every question, each reported as soon as it is known; the services still run."""
        with ExitStack() as stack:
            hub = self._set_up()
            stack.enter_context(self._device)
            self._wait(self._device.is_subscribed.is_set, "the device to be subscribed", START_TIMEOUT_S)
            self._answered_by("edge", ON_DEVICE, "answered on this device")
            self._answered_by("hub", TO_HUB, "sent to the hub")
            self._through_an_outage(hub)
        return self._outcomes

    # --- starting -----------------------------------------------------------------------------------

    def _set_up(self) -> Child:
        self._report.part("Setting up")
        with self._report.step("models: all-MiniLM-L6-v2 embeds, SmolLM2-135M-Instruct chats", has_own_output=True):
            self.gateway.pull_models()
        with self._report.step(f"MQTT broker on 127.0.0.1:{self.broker_port}, in a process of its own"):
            words = (sys.executable, HERE / "broker.py", str(self.broker_port))
            self._children.start_announced("broker", *words, timeout_s=START_TIMEOUT_S)
        with self._report.step(f"hub: llama-cpp-python's OpenAI-compatible server on 127.0.0.1:{self._hub_port}"):
            hub = self._start_hub()
        with self._report.step("daemon: mqrouter run"):
            self.gateway.start()
            status = self._wait(self.gateway.is_ready, "the daemon to be ready", START_TIMEOUT_S)
        self._report.note(f"It tried MQTT 5, the broker refused, and it fell back to {status['broker']['protocol']}.")
        return hub

    def _start_hub(self) -> Child:
        models_dir = self.gateway.settings.gateway.models_dir
        words = (sys.executable, HERE / "hub.py", str(self._hub_port), models_dir)
        return self._children.start_announced("hub", *words, timeout_s=START_TIMEOUT_S)

    # --- asking -------------------------------------------------------------------------------------

    def _answered_by(self, tier: str, question: str, story: str) -> None:
        self._report.part(f"Question {len(self._outcomes) + 1}: {story}")
        self._report.asked(question)
        name = self._ask(question)
        with self._report.step("answer"):
            answer = self._wait_for_answer(name, tier)
        self._conclude(name, question, answer)

    def _through_an_outage(self, hub: Child) -> None:
        self._report.part(f"Question {len(self._outcomes) + 1}: asked while the hub is cut off")
        with self._report.step("hub cut off: its process is stopped"):
            self._children.stop(hub)
        self._report.asked(DURING_OUTAGE)
        name = self._ask(DURING_OUTAGE)
        with self._report.step("the daemon finds nobody there and keeps the question"):
            reason = self._wait(
                lambda: self.gateway.pending_with_open_breaker("hub"), "the question to be pending", ANSWER_TIMEOUT_S
            )
        self._report.note(f"hub: {reason}")
        self._report.command(self.gateway.line("queue", "list"), self.gateway.queue_list())
        with self._report.step("hub started again, on the same port"):
            self._start_hub()
        with self._report.step("the daemon's probe finds it"):
            self._wait(lambda: self.gateway.is_tier_up("hub"), "the hub to be found", ANSWER_TIMEOUT_S)
        with self._report.step("answer"):
            answer = self._wait_for_answer(name, "hub")
        self._conclude(name, DURING_OUTAGE, answer)

    def _ask(self, question: str) -> str:
        name = f"question-{len(self._outcomes) + 1}"
        self._device.ask(name, question)
        return name

    def _wait_for_answer(self, name: str, tier: str) -> dict[str, Any]:
        answer = self._wait(lambda: self._device.answer_to(name), "the answer", ANSWER_TIMEOUT_S)
        if answer["status"] != "ok":
            raise DemoError(f"{name} got the error {answer['error']['code']}: {answer['error']['message']}")
        if answer["tier"] != tier:
            raise DemoError(f"{name} was answered by {answer['tier']} on route {answer['route']}, not by {tier}")
        return answer

    def _conclude(self, name: str, question: str, answer: dict[str, Any]) -> None:
        """Reports the outcome once the broker's receipt for the answer is in the history too."""
        count = len(self._outcomes) + 1
        self._wait(lambda: self.gateway.has_delivered(count), "the answer to be acknowledged", ANSWER_TIMEOUT_S)
        history = [entry["event"] for entry in self.gateway.queue_show(name)["history"]]
        outcome = Outcome(
            question, answer["route"], answer["tier"], answer["model"], history, answer["answer"], answer["latency_ms"]
        )
        self._outcomes.append(outcome)
        self._report.answered(outcome)


def _free_ports(count: int) -> list[int]:
    """Returns ports of the loopback interface that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
