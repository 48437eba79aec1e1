"""The shipped configuration of four tiers, as it is, against four servers on loopback: only addresses are replaced.

The edge is the real worker with the small model in Gemma's place, the hub speaks Ollama's API, the others OpenAI's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from harness import WAIT_S, Behaviour, Call, Gateway, Mosquitto, Process, Requester, StubTier, poll, run_cli

from mqrouter.config import load
from mqrouter.starter import starter_dir

pytestmark = pytest.mark.real_model

CONFIG = starter_dir() / "four_tiers.toml"
ASK = "mqrouter/farm/ask/device"
QUICK = {
    "MQROUTER_RETRY__PROBE_MIN_S": "0.1",
    "MQROUTER_RETRY__PROBE_MAX_S": "0.3",
    "MQROUTER_MQTT__RECONNECT_MAX_S": "0.5",
    "MQROUTER_LOG__FORMAT": "json",
}
FIRST_START_S = 120.0  # embeds the 1,109 examples of the routes
PRIVATE = "may my neighbour know what I owe?"


class OllamaTier(StubTier):
    """As much of Ollama's API as a question needs."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _start(self) -> None:
        app = web.Application()
        app.add_routes([web.post("/api/chat", self._complete), web.get("/api/tags", self._tags)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _tags(self, _request: web.Request) -> web.Response:
        self._happened.give(self._count_probe)
        model = load(CONFIG, {}).settings.tiers["hub"].model
        return web.json_response({"models": [{"name": model, "model": model, "details": {}}]})

    async def _stream(self, request: web.Request, call: Call, how: Behaviour) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        head = {"model": call.body["model"], "created_at": "2026-01-01T00:00:00Z"}
        part = head | {"message": {"role": "assistant", "content": f"echo: {call.question}"}, "done": False}
        end = head | {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
        end |= {"total_duration": 1, "load_duration": 1, "prompt_eval_count": 7, "eval_count": 3}
        for line in (part, end):
            await response.write(json.dumps(line).encode() + b"\n")
        return response


class Farm(Gateway):
    """The daemon on the shipped configuration; what it is told by the environment is all that is changed."""

    def __init__(self, folder: Path, broker: Mosquitto, tiers: Mapping[str, StubTier]) -> None:
        self.folder, self.config, self.tiers = folder, CONFIG, tiers
        self.process: Process | None = None
        self._ends: list[Process] = []
        urls = {f"MQROUTER_TIERS__{name.upper()}__URL": tier.url for name, tier in tiers.items()}
        self.env = QUICK | urls | {
            "MQROUTER_MQTT__PORT": str(broker.port),
            "MQROUTER_GATEWAY__DATA_DIR": str(folder / "data"),
            "MQROUTER_EMBEDDER__MODEL": "all-minilm-l6-v2",
            "MQROUTER_TIERS__EDGE__MODEL": "smollm2-135m-instruct",
            "MQROUTER_TIERS__REGIONAL__API_KEY": "regional",
            "MQROUTER_TIERS__DATACENTER__API_KEY": "datacenter",
        }  # fmt: skip
        self.device = Requester(broker.port).subscribe("me/in")

    def start(self, env: Mapping[str, str] | None = None, **more: Any) -> Farm:
        self.launch(self.env | dict(env or {}), **more)
        self.wait_for_event("daemon.ready", FIRST_START_S)
        return self

    def cli(self, *arguments: str, timeout_s: float = 30.0) -> Any:
        return run_cli(*arguments, timeout_s=timeout_s, env=self.env | {"MQROUTER_CONFIG": str(CONFIG)})

    def ask(self, name: str, question: str, **keys: Any) -> None:
        body = json.dumps({"question": question, "id": name} | keys)
        self.device.publish(f"{ASK}/{name}", body, reply_to="me/in", correlation=name.encode())

    def answer(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        return self.device.answer_to(name.encode(), timeout_s).json

    def tier_of(self, name: str, question: str, **keys: Any) -> str:
        """Returns the tier whose answer came, or the code of the error."""
        self.ask(name, question, **keys)
        answer = self.answer(name)
        return str(answer["tier"] if answer["status"] == "ok" else answer["error"]["code"])

    def asked_first(self, name: str) -> str:
        """Returns the first tier that a request was given to."""
        history = json.loads(self.cli("queue", "show", "--json", name).stdout)["history"]
        return next(str(entry["note"]) for entry in history if entry["event"] == "leased")

    def wait_until(self, tier: str, *, is_usable: bool) -> None:
        poll(lambda: self.status()["tiers"][tier]["usable"] is is_usable or None, lambda: f"{tier}: {self.status()}")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    broker = Mosquitto(folder / "broker").start()
    tiers = {"hub": OllamaTier().start(), "regional": StubTier().start(), "datacenter": StubTier().start()}
    farm = Farm(folder, broker, tiers)
    try:
        yield farm.start()
        farm.close()
    finally:
        if farm.process is not None and farm.process.is_running:
            farm.kill()
        farm.device.close()
        for tier in tiers.values():
            tier.close()
        broker.kill()


@pytest.fixture
def all_up(farm: Farm) -> Iterator[Farm]:
    yield farm
    farm.cli("queue", "resume", "edge")
    for name, tier in farm.tiers.items():
        tier.stop()
        tier.start()
        tier.reset()
        farm.wait_until(name, is_usable=True)


def down(farm: Farm, *names: str) -> None:
    for name in names:
        farm.tiers[name].stop()


ROUTES = load(CONFIG, {}).settings.routes


def test_check_accepts_it_and_names_what_is_left_to_set(tmp_path: Path) -> None:
    env = {**os.environ, "MQROUTER_GATEWAY__MODELS_DIR": str(tmp_path), "MQROUTER_CONFIG": str(CONFIG)}
    done = run_cli("check", env=env)
    assert (done.returncode, done.stdout.count("is valid")) == (0, 1), done.stderr
    assert "tiers edge, hub, regional, datacenter" in done.stdout
    for name in ("nomic-embed-text-v1.5", "gemma-3-1b-it"):
        assert f"model {name} is not in {tmp_path}: run `mqrouter models pull" in done.stderr
    for key in ("tiers.regional.url", "tiers.datacenter.url", "tiers.regional.api_key", "tiers.datacenter.api_key"):
        assert f"{key}: " in done.stderr


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_begins_at_its_first_tier(all_up: Farm, route: str) -> None:
    all_up.tier_of(f"first-{route}", ROUTES[route].examples[0], route=route)
    assert all_up.asked_first(f"first-{route}") == ROUTES[route].to[0]


def test_keys_and_models_are_those_of_each_tier(all_up: Farm) -> None:
    for route, name in (("crop_disease", "hub"), ("livestock_health", "regional"), ("deep_analysis", "datacenter")):
        assert all_up.tier_of(f"key-{name}", f"who answers at {name}?", route=route) == name
        (call,) = all_up.tiers[name].asked(f"who answers at {name}?")
        settings = load(CONFIG, {}).settings.tiers[name]
        assert call.body["model"] == settings.model
        assert call.headers.get("Authorization") == (None if name == "hub" else f"Bearer {name}")


def test_route_fails_over_down_its_list_and_back_up(all_up: Farm) -> None:
    assert ROUTES["crop_disease"].to == ["hub", "regional", "datacenter"]
    found = [all_up.tier_of("down-0", "spots on the leaves", route="crop_disease")]
    for number, name in enumerate(("hub", "regional"), start=1):
        down(all_up, name)
        found.append(all_up.tier_of(f"down-{number}", "spots on the leaves", route="crop_disease"))
    for number, name in enumerate(("regional", "hub"), start=3):
        all_up.tiers[name].start()
        all_up.wait_until(name, is_usable=True)
        found.append(all_up.tier_of(f"down-{number}", "spots on the leaves", route="crop_disease"))
    assert found == ["hub", "regional", "datacenter", "regional", "hub"]


def test_route_that_begins_on_the_device_goes_up_when_the_device_may_not_answer(all_up: Farm) -> None:
    assert ROUTES["irrigation_advice"].to == ["edge", "hub", "regional", "datacenter"]
    all_up.cli("queue", "pause", "edge")
    found = []
    for number, name in enumerate(("hub", "regional", "datacenter")):
        found.append(all_up.tier_of(f"up-{number}", "water the north field?", route="irrigation_advice"))
        down(all_up, name)
    assert found == ["hub", "regional", "datacenter"]


def test_with_every_server_down_each_route_does_what_its_file_says(all_up: Farm) -> None:
    down(all_up, *all_up.tiers)
    assert all_up.tier_of("off-reject", "the cow limps", route="livestock_health") == "offline_rejected"
    all_up.ask("off-local", "Good morning, how are you today?", route="small_talk")
    assert all_up.answer("off-local")["tier"] == "edge"
    all_up.ask("off-queue", "compare ten years of yields", route="deep_analysis")
    all_up.wait_for_request(client_id="off-queue", state="pending")
    all_up.tiers["regional"].start()
    assert all_up.answer("off-queue")["tier"] == "regional"


def test_private_question_stays_on_the_farm(all_up: Farm) -> None:
    assert all_up.tier_of("mine-1", PRIVATE, route="crop_disease", private=True) == "hub"
    down(all_up, "hub")
    all_up.ask("mine-2", PRIVATE, route="crop_disease", private=True)
    all_up.wait_for_request(client_id="mine-2", state="pending")
    all_up.wait_until("hub", is_usable=False)
    all_up.tiers["hub"].start()
    assert all_up.answer("mine-2")["tier"] == "hub"
    assert all_up.tier_of("mine-3", PRIVATE, route="deep_analysis", private=True) == "private_unanswerable"
    assert [all_up.tiers[name].asked(PRIVATE) for name in ("regional", "datacenter")] == [[], []]


@pytest.fixture
def short_of_money(all_up: Farm) -> Iterator[Farm]:
    """The daemon was killed and began anew with half of the money that the datacenter had cost by then."""
    assert all_up.tier_of("pay-1", "compare two years of yields", route="deep_analysis") == "datacenter"
    before = _spent(all_up)
    all_up.kill()
    all_up.start({"MQROUTER_TIERS__DATACENTER__BUDGET_PER_DAY": f"{before / 2:.9f}"})
    assert _spent(all_up) == before > 0
    yield all_up
    all_up.stop(WAIT_S)
    all_up.start()


def test_budget_is_kept_through_kill_9_and_strikes_the_tier_out(short_of_money: Farm) -> None:
    farm = short_of_money
    assert farm.tier_of("pay-2", "compare three years of yields", route="deep_analysis") == "regional"
    assert farm.tiers["datacenter"].asked("three years") == []
    assert "struck:   datacenter: budget per day: " in farm.cli("queue", "show", "pay-2").stdout
    assert "datacenter: budget per day: " in farm.cli("status").stdout
    explained = farm.cli("route", "explain", "compare ten years of yields and model next season").stdout
    assert "datacenter not usable" in explained


def _spent(farm: Farm) -> float:
    levels = farm.status()["tiers"]["datacenter"]["limits"]
    return next(float(level["used"]) for level in levels if level["name"] == "budget_per_day")
