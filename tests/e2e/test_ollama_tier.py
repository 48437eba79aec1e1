"""A hub that speaks Ollama's own API, through the whole daemon: answers, a cold load, a missing model, keeping warm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from harness import WAIT_S, Site, poll, running_site
from ollama_server import Behaviour, OllamaServer

pytestmark = pytest.mark.real_model

TIERS = """
[tiers.hub]
kind = "ollama"
url = "%(url)s"
model = "llama3.2"
keep_alive_s = 1800
context_tokens = 2048
idle_timeout_s = 0.5
[tiers.bare]
kind = "ollama"
url = "%(url)s"
model = "qwen3:8b"
[tiers.warm]
kind = "ollama"
url = "%(url)s"
model = "warm:1b"
keep_warm_s = 0.2
keep_warm_hours = "00:00-00:00"
"""
ROUTES = """
[routes.hub]
examples = ["will there be frost tonight?"]
to = ["hub"]
[routes.bare]
examples = ["which fungus is on my tomatoes?"]
to = ["bare"]
"""


class Hub:
    """The server on a loop of its own."""

    def __init__(self) -> None:
        self.server = OllamaServer(models=("llama3.2:latest", "warm:1b"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()

    def __enter__(self) -> Hub:
        self._thread.start()
        self._run(self._stack.enter_async_context(self.server.running()))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def set(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def _run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Hub]]:
    with Hub() as hub:
        text = TIERS % {"url": hub.server.url}
        with running_site(tmp_path_factory.mktemp("site"), text=text, routes=ROUTES) as site:
            yield site, hub


def ask(site: Site, route: str) -> tuple[str, str]:
    """Returns the text of the answer, or the error's message, and the tier."""
    with site.requester() as requester:
        requester.subscribe(f"answers/{route}")
        payload = f'{{"question": "how cold?", "route": "{route}", "ttl_s": 60}}'
        requester.publish(f"mqrouter/farm/ask/{route}", payload, reply_to=f"answers/{route}")
        (answer,) = requester.wait_for_number(1, timeout_s=60.0)
    said = answer.json
    return said.get("answer") or said["error"]["message"], answer.properties.get("mq-tier", "")


def test_question_is_answered_after_a_cold_load(parts: tuple[Site, Hub]) -> None:
    site, hub = parts
    load = asyncio.Event()
    hub.server.behaviour = lambda _question: Behaviour(load=load)
    timer = threading.Timer(1.0, hub.set, [load])
    timer.start()
    assert ask(site, "hub") == ("echo: how cold?", "hub")
    timer.join()
    asked = next(body for body in hub.server.requests if body["messages"])
    assert (asked["keep_alive"], asked["options"]["num_ctx"]) == (1800.0, 2048)


def test_missing_model_is_named_with_its_remedy(parts: tuple[Site, Hub]) -> None:
    site, _ = parts
    message, _ = ask(site, "bare")
    assert 'the model "qwen3:8b" is not on the server: run `ollama pull qwen3:8b` there' in message


def test_model_nobody_asks_is_kept_loaded(parts: tuple[Site, Hub]) -> None:
    _, hub = parts

    def calls() -> bool | None:
        bodies = [body for body in list(hub.server.requests) if body["model"] == "warm:1b"]
        return len(bodies) >= 3 or None

    poll(calls, lambda: f"three calls in {hub.server.requests}")
    bodies = [body for body in list(hub.server.requests) if body["model"] == "warm:1b"]
    assert {len(body["messages"]) for body in bodies} == {0}
