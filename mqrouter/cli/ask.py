"""mqrouter ask: a question through the broker, as any device would ask it."""

from __future__ import annotations

import json
import queue
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import Exit, FiniteRange, config_option, echo_json, fail, load_or_exit
from mqrouter.cli.presence import Presence
from mqrouter.errors import ConfigError, ErrorCode

if TYPE_CHECKING:
    import paho.mqtt.client as paho

    from mqrouter.settings import Settings


LAST_WORD_S = 5.0


@click.command("ask")
@config_option
@click.argument("question")
@click.option("--device", default="cli", show_default=True, help="Device name to ask as.")
@click.option("--route", help="Ask for this route instead of letting the router decide.")
@click.option("--private", "is_private", is_flag=True, help="Must not leave the gateway.")
@click.option("--session", help="Goes on with the earlier questions of this device under the same name.")
@click.option("--max-bytes", type=click.IntRange(min=150), metavar="N", help="Longest answer: its payload, as JSON.")
@click.option("--progress", "is_progress", is_flag=True, help="Show the answer on stderr while it is being written.")
@click.option("--provisional", "is_provisional", is_flag=True, help="Show a provisional answer first, if there is one.")
@click.option("--priority", type=click.IntRange(0, 9), default=0, show_default=True)
@click.option("--ttl", "ttl_s", type=FiniteRange(min=1), metavar="S", help="Seconds until it expires; else --timeout.")
@click.option("--timeout", "timeout_s", type=FiniteRange(min=0.1), default=60.0, show_default=True, metavar="S")
@click.option("--json", "is_json", is_flag=True, help="The whole answer as JSON on standard output.")
def command(
    config: Path | None,
    question: str,
    device: str,
    route: str | None,
    is_private: bool,
    session: str | None,
    max_bytes: int | None,
    is_progress: bool,
    is_provisional: bool,
    priority: int,
    ttl_s: float | None,
    timeout_s: float,
    is_json: bool,
) -> None:
    """Ask a question through the broker and wait for its answer.

    A provisional answer, and one that is being written, go to standard error, and so does that the gateway is offline;
    the last answer goes to standard output.

    \b
    Exit: 0 answered, 1 answered with an error, 69 no broker, 75 no answer in time (without --ttl the
    question has expired with it).

    \b
    Example:
      mqrouter ask "is frost likely tonight?" --timeout 20
    """
    if not device or set(device) & set("/+#\0"):
        raise click.BadParameter("one topic level: no / + #", param_hint="--device")
    settings = load_or_exit(config).settings
    request_id = uuid.uuid4().hex[:12]
    body: dict[str, Any] = {"id": request_id, "question": question, "priority": priority, "private": is_private}
    more: dict[str, Any] = {"route": route, "session": session, "max_bytes": max_bytes, "progress": is_progress}
    more |= {"accept_provisional": is_provisional, "ttl_s": timeout_s if ttl_s is None else ttl_s}
    body |= {name: value for name, value in more.items() if value}
    try:
        answer = _ask(settings, device, request_id, json.dumps(body, ensure_ascii=False), timeout_s)
    except ConfigError as error:  # a password that is not where the configuration says
        fail(error.problems)
    if is_json:
        echo_json(answer)
    elif answer["status"] == "ok":
        click.echo(answer["answer"])
        click.echo(_source(answer), err=True)
    else:
        click.echo(f"mqrouter: {answer['error']['code']}: {answer['error']['message']}", err=True)
    sys.exit(Exit.OK if answer["status"] == "ok" else Exit.FAILED)


def _source(answer: dict[str, Any]) -> str:
    """Returns where an answer comes from, and what it lacks."""
    told: list[str] = []
    if "tier" in answer:  # a short one leaves that out
        told += [f"{answer['route'] or 'no route'} > {answer['tier']}", answer["model"], f"{answer['latency_ms']} ms"]
    if answer.get("provisional"):
        told.append("provisional: a better answer may follow")
    if answer.get("refined") is False:
        told.append("no better answer came")
    if answer["truncated"]:
        told.append("cut")
    return f"[{', '.join(told)}]"


class _Progress:
    """Shows an answer that is being written; another attempt begins on a line of its own."""

    def __init__(self) -> None:
        self._attempt = 0

    def show(self, chunk: dict[str, Any]) -> None:
        if chunk["attempt"] < self._attempt:
            return
        if chunk["attempt"] > self._attempt > 0:
            click.echo("\n[begins anew]", err=True)
        self._attempt = chunk["attempt"]
        click.echo(chunk["text"], err=True, nl=False)

    def end(self) -> None:
        if self._attempt:
            click.echo(err=True)


def _last_answer(answers: queue.Queue[bytes], timeout_s: float) -> dict[str, Any]:
    """Returns the terminal answer, and shows what comes before it. Raises queue.Empty."""
    progress = _Progress()
    deadline_s = time.monotonic() + timeout_s
    while True:
        message: dict[str, Any] = json.loads(answers.get(timeout=max(0.0, deadline_s - time.monotonic())))
        if "seq" in message:
            progress.show(message)
            continue
        progress.end()
        if not message.get("provisional"):
            return message
        click.echo(f"{message['answer']}\n{_source(message)}", err=True)
        progress = _Progress()
        deadline_s = max(deadline_s, time.monotonic()) + LAST_WORD_S  # where no better one comes it says so by then


def _ask(settings: Settings, device: str, request_id: str, payload: str, timeout_s: float) -> dict[str, Any]:
    answers: queue.Queue[bytes] = queue.Queue()
    greetings: queue.Queue[str | None] = queue.Queue()
    presence = Presence(settings.prefix, timeout_s)
    topics = [f"{settings.prefix}/{kind}/{device}/{request_id}" for kind in ("answer", "progress")]
    client = _client(settings, topics, answers, greetings, presence)
    try:
        client.connect(settings.mqtt.host, settings.mqtt.port, settings.mqtt.keepalive_s)
        client.loop_start()
        refusal = greetings.get(timeout=settings.mqtt.connect_timeout_s)
    except queue.Empty:
        refusal = "it did not answer"
    except OSError as error:
        refusal = str(error) or type(error).__name__
    if refusal is not None:
        click.echo(f"mqrouter: no broker at {settings.mqtt.host}:{settings.mqtt.port}: {refusal}", err=True)
        sys.exit(Exit.UNAVAILABLE)
    client.publish(f"{settings.prefix}/ask/{device}/{request_id}", payload, qos=1)
    answer: dict[str, Any] | None = None
    try:
        with presence:
            answer = _last_answer(answers, timeout_s)
    except queue.Empty:
        pass  # said below, with what to do
    finally:
        client.disconnect()
        client.loop_stop()
    if answer is None or answer.get("error", {}).get("code") == ErrorCode.EXPIRED:  # they race
        hint = f"see `mqrouter queue show {request_id}`" if presence.is_online else "is the daemon running?"
        click.echo(f"mqrouter: no answer within {timeout_s:g} s: {hint}", err=True)
        sys.exit(Exit.TEMPFAIL)
    return answer


def _client(
    settings: Settings,
    topics: list[str],
    answers: queue.Queue[bytes],
    greetings: queue.Queue[str | None],
    presence: Presence,
) -> paho.Client:
    """Returns a client that subscribes whenever it connects; `greetings` gets None then, or why the broker refused."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    from mqrouter.wiring import link_options

    options = link_options(settings)
    # 3.1.1 is enough for one question, and every broker speaks it.
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.connect_timeout = options.connect_timeout_s
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    if options.tls is not None:
        from mqrouter.edge.mqtt.options import tls_context

        client.tls_set_context(tls_context(options.tls))

    status_topic = f"{settings.prefix}/status"

    def received(_client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic == status_topic:
            presence.heard(bytes(message.payload).decode(errors="replace"))
        else:
            answers.put(bytes(message.payload))

    def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            greetings.put(f"it refused: {reason}")
        else:
            client.subscribe([(topic, 1) for topic in (*topics, status_topic)])

    client.on_connect = connected
    client.on_subscribe = lambda *_: greetings.put(None)
    client.on_message = received
    return client
