"""Real parts around a real daemon: mosquitto, an OpenAI-compatible tier, MQTT clients, the command line.

Everything listens on a free loopback port and keeps its files below the folder it is given. Nothing sleeps: each
wait is for an event and has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import paho.mqtt.client as paho
from aiohttp import web
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

T = TypeVar("T")

WAIT_S = 60.0  # a machine with other work is ten times slower; only a failure waits that long
MQROUTER = str(Path(sys.executable).with_name("mqrouter"))
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") or "mosquitto"

ROUTES = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?", "frost warning for the orchard"]
to = ["hub"]

[routes.urgent]
description = "rather an error than a wait"
examples = ["stop the irrigation pump right now", "emergency: shut the main valve"]
to = ["hub"]
when_offline = "reject"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Signal:
    """Something happened: wakes whoever waits for a condition over what was collected so far."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def give(self, change: Callable[[], object]) -> None:
        with self._condition:
            change()
            self._condition.notify_all()

    def wait(self, found: Callable[[], T | None], what: Callable[[], str], timeout_s: float = WAIT_S) -> T:
        """Returns the first true result of `found`, tried again at each event."""
        with self._condition:
            if self._condition.wait_for(found, timeout_s):
                result = found()
                assert result is not None
                return result
        raise AssertionError(f"nothing within {timeout_s:g} s: {what()}")


class Process:
    """A program, the lines it writes to stderr, and its end."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.lines: list[str] = []
        self._written = Signal()
        self._popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd, errors="replace"
        )
        assert self._popen.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._popen.stderr,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, matches: Callable[[str], bool], timeout_s: float = WAIT_S, *, after: int = 0) -> str:
        def found() -> str | None:
            return next((line for line in self.lines[after:] if matches(line)), None)

        return self._written.wait(found, lambda: f"in the log:\n{self.text}", timeout_s)

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = WAIT_S) -> int:
        """Returns the exit code, negative where a signal ended it."""
        if self.is_running:
            self._popen.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = WAIT_S) -> int:
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise AssertionError(f"still running after {timeout_s:g} s:\n{self.text}") from None
        self._reader.join(timeout_s)
        return code

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._written.give(lambda line=line: self.lines.append(line.rstrip("\n")))  # type: ignore[misc]
        stream.close()


class Mosquitto:
    """A broker of its own, with persistence; `extra` are lines of its configuration."""

    def __init__(self, folder: Path, *, listener: Sequence[str] = ("allow_anonymous true",), extra: Sequence[str] = ()):
        self.port = free_port()
        self._folder = folder
        self._lines = [f"listener {self.port} 127.0.0.1", *listener, *extra]
        self._process: Process | None = None
        self.lives: list[Process] = []
        """Every start of it, with what it logged."""

    def start(self) -> Mosquitto:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "mosquitto.conf"
        lines = ["set_tcp_nodelay true", f"persistence_location {self._folder}/", "persistence true"]
        lines += ["log_dest stderr", "log_type all", "user root" if os.geteuid() == 0 else "", *self._lines]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process = Process([MOSQUITTO, "-c", str(config)])
        self.lives.append(self._process)
        self._process.wait_for_line(lambda line: "running" in line and "mosquitto version" in line)
        # It says so before it enters its loop, and forgets a SIGTERM that comes between the two.
        with socket.create_connection(("127.0.0.1", self.port), WAIT_S):
            self._process.wait_for_line(lambda line: "New connection" in line)
        return self

    @property
    def log(self) -> Process:
        assert self._process is not None
        return self._process

    def stop(self) -> None:
        """Ends politely: sessions are written to disk."""
        if self._process is not None:
            self._process.end(signal.SIGTERM)

    def kill(self, *, with_sessions_lost: bool = False) -> None:
        if self._process is not None:
            self._process.end(signal.SIGKILL)
        if with_sessions_lost:
            (self._folder / "mosquitto.db").unlink(missing_ok=True)


# --- tier -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One chat completion the tier was asked for."""

    question: str
    key: str
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclass
class Behaviour:
    """How the tier answers one call: by default with the question, streamed."""

    status: int = 200
    text: str | None = None
    finish_reason: str = "stop"
    model: str = "stub-model"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut: bool = False
    raw_chunks: Sequence[bytes] = ()


class StubTier:
    """A real HTTP server that speaks as much of the OpenAI protocol as the router uses."""

    def __init__(self) -> None:
        self.port = free_port()
        self.calls: list[Call] = []
        self.probes = 0
        self.script: Callable[[Call], Behaviour] = lambda _call: Behaviour()
        self.models_status = 200
        self._happened = Signal()
        self._loop = asyncio.new_event_loop()
        self._held_after = 0
        self._gate = asyncio.Event()
        self._gate.set()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> StubTier:
        self._run(self._start())
        return self

    def stop(self) -> None:
        """Connections are closed and new ones refused, until `start`."""
        self._run(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def hold(self, *, after_words: int = 0) -> None:
        """Calls are taken and wait for `release`: before they are answered, or once so many words are out."""
        self._held_after = after_words
        self._loop.call_soon_threadsafe(self._gate.clear)
        self._run(asyncio.sleep(0))

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._gate.set)

    def reset(self) -> None:
        self.release()
        self.script = lambda _call: Behaviour()
        self.models_status = 200
        self.calls.clear()

    def asked(self, question: str) -> list[Call]:
        return [call for call in self.calls if question in call.question]

    def wait_for_calls(self, question: str, number: int = 1, timeout_s: float = WAIT_S) -> list[Call]:
        def found() -> list[Call] | None:
            calls = self.asked(question)
            return calls if len(calls) >= number else None

        return self._happened.wait(found, lambda: f"{number} calls for {question!r} in {self.calls}", timeout_s)

    def wait_for_probes(self, number: int, timeout_s: float = WAIT_S) -> None:
        self._happened.wait(lambda: self.probes >= number or None, lambda: f"{self.probes} probes", timeout_s)

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _start(self) -> None:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._complete), web.get("/v1/models", self._models)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _models(self, _request: web.Request) -> web.Response:
        self._happened.give(self._count_probe)
        return web.json_response({"object": "list", "data": []}, status=self.models_status)

    def _count_probe(self) -> None:
        self.probes += 1

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("Idempotency-Key", "")
        call = Call(body["messages"][-1]["content"], key, body, dict(request.headers))
        self._happened.give(lambda: self.calls.append(call))
        if not self._held_after:
            await self._gate.wait()
        how = self.script(call)
        if how.status != 200:
            return web.json_response({"error": {"message": "scripted"}}, status=how.status, headers=how.headers)
        return await self._stream(request, call, how)

    async def _stream(self, request: web.Request, call: Call, how: Behaviour) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for raw in how.raw_chunks:
            await response.write(raw)
        words = (f"echo: {call.question}" if how.text is None else how.text).split(" ")
        for number, word in enumerate(words):
            if number and number == self._held_after:
                await self._gate.wait()
            await response.write(self._event(how, {"content": word if number == 0 else f" {word}"}, None))
        if how.is_cut:
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(self._event(how, {}, how.finish_reason))
        usage = {"prompt_tokens": 7, "completion_tokens": len(words)}
        await response.write(
            b"data: " + json.dumps({"choices": [], "model": how.model, "usage": usage}).encode() + b"\n\n"
        )
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    def _event(how: Behaviour, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + json.dumps({"model": how.model, "choices": [choice]}).encode() + b"\n\n"


# --- requester --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One message as a requester received it."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.payload.decode()

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.payload)
        return value

    @property
    def error_code(self) -> str | None:
        """The code of an error answer, text or JSON."""
        if self.payload.startswith(b"{"):
            error = self.json.get("error")
            return error and error["code"]
        return self.text.split()[1].rstrip(":") if self.text.startswith("error ") else None


class Requester:
    """A device: publishes questions and keeps every message it gets, in order."""

    def __init__(
        self,
        port: int,
        *,
        version: int = 5,
        client_id: str = "",
        is_session_kept: bool = False,
        user: str | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self._arrived = Signal()
        self._ready = threading.Event()
        self._subscribed = threading.Event()
        self._version = version
        clean = None if version == 5 else not is_session_kept
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion(version), clean_session=clean
        )
        self._client.on_connect = lambda *_: self._ready.set()
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._message
        self._client.on_socket_open = _send_at_once
        self._client.reconnect_delay_set(1, 1)
        if user is not None:
            self._client.username_pw_set(user)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(WAIT_S), "the broker did not greet"

    def __enter__(self) -> Requester:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, *filters: str) -> Requester:
        self._subscribed.clear()
        if self._version == 5:
            self._client.subscribe([(name, SubscribeOptions(1)) for name in filters])
        else:
            self._client.subscribe([(name, 1) for name in filters])
        assert self._subscribed.wait(WAIT_S), "no SUBACK"
        return self

    def publish_at_once(self, topic: str, payloads: Sequence[bytes | str]) -> None:
        """Sends all of them before waiting for the first PUBACK; returns with the last."""
        sent = [self._client.publish(topic, payload, qos=1) for payload in payloads]
        for info in sent:
            info.wait_for_publish(WAIT_S)
            assert info.is_published(), "no PUBACK"

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        reply_to: str | None = None,
        correlation: bytes | None = None,
        content_type: str | None = None,
        expiry_s: int | None = None,
        qos: int = 1,
        is_retained: bool = False,
    ) -> None:
        """Returns once the broker has the message (at QoS 0: once it is written)."""
        info = self.send(
            topic,
            payload,
            reply_to=reply_to,
            correlation=correlation,
            content_type=content_type,
            expiry_s=expiry_s,
            qos=qos,
            is_retained=is_retained,
        )
        info.wait_for_publish(WAIT_S)
        assert info.is_published(), "no PUBACK"

    def send(
        self,
        topic: str,
        payload: bytes | str,
        *,
        reply_to: str | None = None,
        correlation: bytes | None = None,
        content_type: str | None = None,
        expiry_s: int | None = None,
        qos: int = 1,
        is_retained: bool = False,
    ) -> paho.MQTTMessageInfo:
        """Publishes and waits for nothing: the result can be waited for."""
        properties = None
        if self._version == 5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in (
                ("ResponseTopic", reply_to),
                ("CorrelationData", correlation),
                ("ContentType", content_type),
                ("MessageExpiryInterval", expiry_s),
            ):
                if value is not None:
                    setattr(properties, name, value)
        return self._client.publish(topic, payload, qos=qos, retain=is_retained, properties=properties)

    def wait_for(self, matches: Callable[[Message], bool], timeout_s: float = WAIT_S) -> Message:
        def found() -> Message | None:
            return next((message for message in self.messages if matches(message)), None)

        return self._arrived.wait(found, lambda: f"in {self.messages}", timeout_s)

    def wait_for_number(self, number: int, timeout_s: float = WAIT_S) -> list[Message]:
        def found() -> list[Message] | None:
            return list(self.messages) if len(self.messages) >= number else None

        return self._arrived.wait(found, lambda: f"{number} messages, got {self.messages}", timeout_s)

    def answer_to(self, correlation: bytes, timeout_s: float = WAIT_S) -> Message:
        return self.wait_for(lambda message: message.correlation == correlation, timeout_s)

    def answer_on(self, topic: str, timeout_s: float = WAIT_S) -> Message:
        return self.wait_for(lambda message: message.topic == topic, timeout_s)

    def _message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        found = Message(
            message.topic,
            bytes(message.payload),
            message.qos,
            message.retain,
            getattr(properties, "CorrelationData", None),
            getattr(properties, "ContentType", None),
            getattr(properties, "MessageExpiryInterval", None),
            dict(getattr(properties, "UserProperty", [])),
        )
        self._arrived.give(lambda: self.messages.append(found))


# --- daemon -----------------------------------------------------------------------------------------


class Gateway:
    """A configuration in a folder of its own, and the daemon that runs on it."""

    def __init__(self, folder: Path, broker_port: int, tier_url: str, *, text: str = "", routes: str = ROUTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "mqrouter.toml"
        self.routes = folder / "routes" / "farm.toml"
        self.routes.parent.mkdir(exist_ok=True)
        self.routes.write_text(routes, encoding="utf-8")
        self.write(broker_port, tier_url, text)
        self.process: Process | None = None
        self._ends: list[Process] = []

    def write(self, broker_port: int, tier_url: str, text: str = "") -> None:
        """Writes mqrouter.toml; the keys of `text` are added to its tables, or replace what stands there."""
        sections = {
            "gateway": 'name = "farm"',
            "mqtt": f"port = {broker_port}\nreconnect_min_s = 0.05\nreconnect_max_s = 0.3\nconnect_timeout_s = 3.0",
            "tiers.hub": f'kind = "openai"\nurl = "{tier_url}"\nmodel = "stub"\nconnect_timeout_s = 2.0',
            "retry": "backoff_min_s = 0.1\nbackoff_max_s = 0.3\nprobe_min_s = 0.1\nprobe_max_s = 0.3",
            "routing": "threshold = 0.45",
            "routing.abstain": 'to = ["hub"]\nwhen_offline = "queue"\nprompt = "chat"',
            "prompts": 'chat = "Be brief."',
            "log": 'level = "debug"\nformat = "json"',
            "http": "enabled = false",
        }
        head, *rest = ("\n" + text).split("\n[")
        tail: list[str] = []
        for part in rest:
            name, _, body = part.partition("]")
            if name in sections:
                sections[name] = _overridden(sections[name], body)
            else:
                tail.append(f"[{part}")
        lines = [head.strip("\n"), 'include = ["routes/*.toml"]']
        lines += [f"[{name}]\n{body}\n" for name, body in sections.items()] + tail
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def log(self) -> Process:
        assert self.process is not None, "not started"
        return self.process

    def launch(self, env: Mapping[str, str] | None = None, *, through: Sequence[str] = ()) -> Gateway:
        """Starts the daemon, `through` a program that runs it, and does not wait for anything."""
        command = [*through, MQROUTER, "run", "-c", str(self.config)]
        self.process = Process(command, env={**os.environ, **(env or {})})
        self._ends.append(self.process)
        return self

    def launch_another(self) -> Process:
        """A second daemon on the same configuration."""
        return Process([MQROUTER, "run", "-c", str(self.config)])

    def start(self, env: Mapping[str, str] | None = None, *, through: Sequence[str] = ()) -> Gateway:
        """Returns once the daemon is ready."""
        self.launch(env, through=through)
        self.wait_for_event("daemon.ready")
        return self

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in map(_event, self.log.lines) if event.get("event") == name]

    def wait_for_event(
        self, name: str, timeout_s: float = WAIT_S, *, after: int = 0, **fields: object
    ) -> dict[str, Any]:
        """Returns the log's first event of that name (past line `after`) with these fields."""
        wanted = {"event": name, **fields}
        line = self.log.wait_for_line(lambda text: wanted.items() <= _event(text).items(), timeout_s, after=after)
        return _event(line)

    def stop(self, timeout_s: float = WAIT_S) -> int:
        return 0 if self.process is None else self.process.end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        self.log.end(signal.SIGKILL)

    def close(self) -> None:
        """Ends the daemon; no life of it may have logged a traceback."""
        self.stop()
        for process in self._ends:
            assert "Traceback" not in process.text, process.text
            assert not any('"exception"' in line for line in process.lines), process.text

    def cli(self, *arguments: str, timeout_s: float = WAIT_S) -> subprocess.CompletedProcess[str]:
        """Runs a command on this gateway's configuration."""
        return run_cli(*arguments, timeout_s=timeout_s, env={"MQROUTER_CONFIG": str(self.config)})

    def status(self) -> dict[str, Any]:
        """The daemon's own account of itself, asked at its control socket."""
        from mqrouter.cli.daemon import call_daemon

        return call_daemon(self.folder / "data" / "control.sock", "GET", "/v1/status")[1]

    def wait_for_request(self, timeout_s: float = WAIT_S, **fields: object) -> dict[str, Any]:
        """Returns the row of the database that has these fields, once there is one."""

        def found() -> dict[str, Any] | None:
            rows = self.requests()
            return next((row for row in rows if fields.items() <= row.items()), None)

        return poll(found, lambda: f"no request with {fields} in {self.requests()}", timeout_s)

    def requests(self) -> list[dict[str, Any]]:
        from mqrouter.edge.store.reading import gateway_now, list_requests, open_read_only
        from mqrouter.edge.system import machine_clocks

        with open_read_only(self.folder / "data" / "mqrouter.db") as db:
            now = gateway_now(db, machine_clocks())
            return list_requests(db, states=(), route=None, device=None, limit=1000, now=now).rows


def poll(found: Callable[[], T | None], what: Callable[[], str], timeout_s: float = WAIT_S) -> T:
    """Returns the first result that is not None. For what gives no event: another process's file or status."""
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while True:
        result = found()
        if result is not None:
            return result
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what()}")
        pause.wait(0.02)


def run_cli(
    *arguments: str, timeout_s: float = WAIT_S, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MQROUTER, *arguments], capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **(env or {})}
    )


def _send_at_once(_client: Any, _data: Any, opened: Any) -> None:
    """Without TCP's waiting for more: a test would measure that."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _overridden(section: str, text: str) -> str:
    """The lines of a TOML table, those of `text` in place of any of the same key."""
    keys = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
    kept = [line for line in section.splitlines() if line.partition("=")[0].strip() not in keys]
    return "\n".join([*kept, text.strip("\n")])


def _event(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    value: dict[str, Any] = json.loads(line)
    return value


@dataclass
class Site:
    """One broker, one tier and one daemon, as most tests need them."""

    broker: Mosquitto
    tier: StubTier
    gateway: Gateway

    def requester(self, version: int = 5) -> Requester:
        return Requester(self.broker.port, version=version)


@contextmanager
def running_site(folder: Path, *, text: str = "", routes: str = ROUTES, is_started: bool = True) -> Iterator[Site]:
    broker = Mosquitto(folder / "broker").start()
    tier = StubTier().start()
    gateway = Gateway(folder / "gateway", broker.port, tier.url, text=text, routes=routes)
    try:
        if is_started:
            gateway.start()
        yield Site(broker, tier, gateway)
        tier.release()
        gateway.close()
    finally:
        if gateway.process is not None and gateway.process.is_running:
            gateway.process.end(signal.SIGKILL)
        tier.close()
        broker.kill()
