"""The way to the broker fails: it restarts, forgets, is absent, half open, torn, or has no address."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, Mosquitto, Site, StubTier, poll, running_site
from mqtt_packets import Kind
from names import NameServer
from oracle import Oracle, Sent
from proxy import Proxy, Way

pytestmark = pytest.mark.real_model

KEEPALIVE_S = 5  # the least that the configuration allows
MEASURING_S = 0.5  # what a time read from two logs may be off on a busy machine
MAX_LAG_MS = 100


@contextmanager
def proxied_site(folder: Path, text: str = "") -> Iterator[tuple[Site, Proxy]]:
    """A site, its daemon not started, and the proxy that lies between the daemon and the broker."""
    with running_site(folder, is_started=False) as site, Proxy(site.broker.port, is_mqtt=True) as proxy:
        site.gateway.write(proxy.port, site.tier.url, text)
        yield site, proxy


def logged_at_s(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


# --- the broker restarts ------------------------------------------------------------------------------


def test_fault_09_daemon_resumes_by_itself_when_the_broker_restarts_under_load(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Oracle(site.broker, site.gateway) as oracle:
        for _ in range(3):
            before = len(site.gateway.log.lines)
            site.tier.hold()
            oracle.ask(20, wait_for_puback=False)
            oracle.ask(20, version=4, wait_for_puback=False)
            site.tier.wait_for_calls("frost")
            site.broker.stop()
            site.gateway.wait_for_event("mqtt.connection_lost", after=before)
            site.tier.release()  # the answers are ready while nobody takes them

            site.broker.start()

            assert site.gateway.wait_for_event("mqtt.connected", after=before)["session_present"]
            oracle.ask(10, wait_for_puback=False)
        oracle.wait_for_answers()
        oracle.extra["restarts"] = 3
        oracle.judge()


@contextmanager
def held_writes(database: Path) -> Iterator[None]:
    """No transaction of the daemon gets through: another connection holds the database's lock."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def wait_for_packets_to_daemon(broker: Mosquitto, number: int) -> None:
    """The broker, in this life of it, has sent the daemon so many questions."""

    def found() -> int | None:
        sent = count_lines(broker, "Sending PUBLISH to mqrouter-farm ")
        return sent if sent >= number else None

    poll(found, lambda: f"{number} questions sent to the daemon in:\n{broker.log.text}")


def count_lines(broker: Mosquitto, part: str) -> int:
    return sum(part in line for line in list(broker.log.lines))


def lose_sessions(site: Site) -> None:
    """The broker dies, comes back without memory, and has the daemon's subscriptions again."""
    before = len(site.gateway.log.lines)
    site.broker.kill(with_sessions_lost=True)
    site.gateway.wait_for_event("mqtt.connection_lost", after=before)
    site.broker.start()
    assert not site.gateway.wait_for_event("mqtt.connected", after=before)["session_present"]


def test_fault_10_stale_acks_are_dropped_when_the_broker_forgets_its_sessions(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Oracle(site.broker, site.gateway) as oracle:
        site.tier.hold()
        oracle.ask(6)
        site.tier.wait_for_calls("frost")
        lose_sessions(site)  # packet numbers begin at 1 again, now and the next time
        with held_writes(oracle.database):
            unacknowledged = oracle.ask(5, wait_for_puback=False)
            wait_for_packets_to_daemon(site.broker, 5)
            lose_sessions(site)
            fresh = oracle.ask(5, wait_for_puback=False)
            wait_for_packets_to_daemon(site.broker, 5)
        site.tier.release()

        oracle.wait_for_answers()

        later = oracle.ask(5)
        oracle.wait_for_answers(later)
        wanted = len(fresh) + len(later)
        assert count_lines(site.broker, "Sending PUBLISH to mqrouter-farm ") == wanted
        assert count_lines(site.broker, "Received PUBACK from mqrouter-farm ") == wanted
        oracle.extra["held while the sessions were lost"] = len(unacknowledged)
        oracle.judge(broker_lost_sessions=True)


# --- the broker is absent ------------------------------------------------------------------------------


def test_fault_11_daemon_without_a_broker_is_up_says_so_and_tries_again_with_jitter(tmp_path: Path) -> None:
    min_s, max_s = 0.1, 0.4
    with proxied_site(tmp_path, f"[mqtt]\nreconnect_min_s = {min_s}\nreconnect_max_s = {max_s}\n") as (site, proxy):
        proxy.refuse()
        site.gateway.launch()
        failures = wait_for_failures(site.gateway, 14)

        status = site.gateway.cli("status")
        assert (status.returncode, status.stderr) == (0, "")
        assert f"127.0.0.1:{proxy.port}: NOT connected: ConnectionRefusedError" in status.stdout
        assert "farm: starting, up " in status.stdout
        told = site.gateway.status()
        assert (told["ready"], told["broker"]["connected"], told["broker"]["connections"]) == (False, False, 0)

        at_s = [logged_at_s(event) for event in failures]
        pauses_s = [later - earlier for earlier, later in itertools.pairwise(at_s)]
        for number, pause_s in enumerate(pauses_s):
            assert pause_s <= min(max_s, min_s * 2**number) + MEASURING_S, pauses_s
        late_s = pauses_s[2:]
        assert max(late_s) > min(late_s) + 0.1 * max_s, f"no jitter: {pauses_s}"
        assert min(pauses_s) > 0.03, f"a broker that comes up must not be hammered: {pauses_s}"

        proxy.heal()
        site.gateway.wait_for_event("daemon.ready")
        assert "connected, MQTT 5" in site.gateway.cli("status").stdout
        with Oracle(site.broker, site.gateway) as oracle:
            oracle.ask(10)
            oracle.wait_for_answers()
            oracle.extra["failed connects"] = len(failures)
            oracle.judge()

        assert site.gateway.stop() == 0
        assert site.gateway.cli("status").returncode == 69


def wait_for_failures(gateway: Gateway, number: int) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]] | None:
        failures = gateway.events("mqtt.connect_failed")
        return failures if len(failures) >= number else None

    return poll(found, lambda: gateway.log.text, 20)


# --- the connection is half open -----------------------------------------------------------------------


@dataclass
class Half:
    """A daemon whose connection to the broker can be silenced in one direction."""

    gateway: Gateway
    proxy: Proxy
    way: Way
    oracle: Oracle

    def silence(self) -> float:
        """Returns when, seconds since 1970: soon after the connection was made, and so long before the first ping."""
        self.oracle.wait_for_answers(self.oracle.ask())
        self.way.swallow()
        return time.time()


@contextmanager
def half(folder: Path, broker: Mosquitto, tier: StubTier, name: str) -> Iterator[Half]:
    """A gateway of its own, being started; `name` is also that of the direction: up or down."""
    text = f'[gateway]\nname = "{name}"\n[mqtt]\nkeepalive_s = {KEEPALIVE_S}\nconnect_timeout_s = 1.0\n'
    with Proxy(broker.port, is_mqtt=True) as proxy:
        gateway = Gateway(folder / name, proxy.port, tier.url, text=text).launch()
        try:
            with Oracle(broker, gateway) as oracle:
                yield Half(gateway, proxy, getattr(proxy, name), oracle)
            proxy.heal()
            gateway.close()
        finally:
            if gateway.log.is_running:
                gateway.kill()


def test_fault_12_half_open_connection_is_noticed_within_twice_the_keepalive(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = Mosquitto(tmp_path / "broker").start()
        stack.callback(broker.kill)
        tier = StubTier().start()
        stack.callback(tier.close)
        halves = [stack.enter_context(half(tmp_path, broker, tier, name)) for name in ("up", "down")]
        for one in halves:
            one.gateway.wait_for_event("daemon.ready")
        silenced_s = [one.silence() for one in halves]
        for one in halves:
            one.oracle.ask(3)

        lost = [one.gateway.wait_for_event("mqtt.connection_lost", 4 * KEEPALIVE_S) for one in halves]

        noticed_s = [round(logged_at_s(event) - at_s, 2) for event, at_s in zip(lost, silenced_s, strict=True)]
        assert max(noticed_s) <= 2 * KEEPALIVE_S + MEASURING_S, noticed_s
        for one, after_s in zip(halves, noticed_s, strict=True):
            lag_ms = one.gateway.status()["loop_lag_ms"]["p99"]
            assert lag_ms < MAX_LAG_MS
            one.proxy.heal()
            one.oracle.wait_for_answers()
            one.oracle.wait_for_answers(one.oracle.ask(3))
            one.oracle.extra |= {"seconds to notice": after_s, "loop lag p99 ms": lag_ms}
            one.oracle.judge()
            assert one.gateway.status()["broker"]["protocol"] == "5"


# --- the connection is torn ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_sliced", [False, True], ids=["whole", "byte by byte"])
def test_fault_13_connection_reset_inside_a_packet_loses_and_mixes_up_nothing(tmp_path: Path, is_sliced: bool) -> None:
    with proxied_site(tmp_path, "[mqtt]\nreconnect_max_s = 0.05\n") as (site, proxy):
        site.gateway.start()
        if is_sliced:  # it takes its time: a millisecond for each byte
            for way in (proxy.up, proxy.down):
                way.slice(1)
                way.throttle(20_000)
        with Oracle(site.broker, site.gateway) as oracle:
            for way in (proxy.down, proxy.up):
                for kind in (Kind.PUBLISH, Kind.PUBACK):
                    for number in (1, 2) if is_sliced else (1, 4, 7):
                        resets = way.resets
                        way.reset_in_packet(number, kind)
                        oracle.ask(number, wait_for_puback=False)
                        way.wait_for_reset(resets + 1)
            oracle.ask(3, form="json")
            oracle.wait_for_answers()
            oracle.extra["resets"] = proxy.up.resets + proxy.down.resets
            oracle.judge()
        assert not site.gateway.events("mqtt.protocol_error")


@pytest.mark.parametrize("is_first", [True, False], ids=["the first", "a later one"])
@pytest.mark.parametrize("kind", [Kind.CONNACK, Kind.SUBACK], ids=["connack", "suback"])
def test_fault_13_connection_reset_while_it_is_made_is_made_again_the_same(
    tmp_path: Path, kind: Kind, is_first: bool
) -> None:
    """The fall-back to MQTT 3.1.1 is for brokers that know no other: it loses response topics and correlations."""
    with proxied_site(tmp_path) as (site, proxy):
        if is_first:
            proxy.down.reset_in_packet(kind=kind)
            site.gateway.start()
        else:
            site.gateway.start()
            proxy.down.reset_in_packet(kind=kind)
            proxy.reset()
        proxy.down.wait_for_reset()
        with Oracle(site.broker, site.gateway) as oracle:
            poll(lambda: site.gateway.status()["broker"]["connected"] or None, lambda: site.gateway.log.text)
            asked = oracle.ask(10)

            oracle.wait_for_answers(asked, 5)

            oracle.judge()
        assert site.gateway.status()["broker"]["protocol"] == "5"


# --- names have no address -------------------------------------------------------------------------------

BLACK_HOLE = "black-hole.farm.test"
STOP_S = 2.0


def stop_in_time(gateway: Gateway) -> None:
    started_s = time.monotonic()
    assert gateway.stop() == 0
    took_s = time.monotonic() - started_s
    assert took_s < STOP_S, gateway.log.text


def answer_ms(gateway: Gateway) -> float:
    """How long the event loop takes to answer a request for the status, in the second worst of 20 cases."""

    def once() -> float:
        started_s = time.monotonic()
        gateway.status()
        return 1000 * (time.monotonic() - started_s)

    return sorted(once() for _ in range(20))[-2]


def test_fault_14_look_up_of_the_broker_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    with (
        running_site(tmp_path) as site,
        Oracle(site.broker, site.gateway) as oracle,
        NameServer(tmp_path) as names,
    ):
        through = names.through()
        site.tier.stop()
        asked = oracle.ask(4)
        site.gateway.wait_for_event("tier.breaker_changed", new="open")
        site.gateway.stop()
        site.tier.start()
        named = f'[mqtt]\nhost = "{BLACK_HOLE}"\nconnect_timeout_s = 0.5\n'
        site.gateway.write(site.broker.port, site.tier.url, named)
        site.gateway.launch(through=through)
        names.wait_for_look_up(BLACK_HOLE)

        wait_for_failures(site.gateway, 2)
        for sent in asked:
            site.gateway.wait_for_request(client_id=f"q{sent.number}", state="answered")
        told = site.gateway.status()
        assert told["broker"]["error"] == "no answer within 0.5 s"
        assert answer_ms(site.gateway) < MAX_LAG_MS
        stop_in_time(site.gateway)

        site.gateway.launch(through=through)
        failures = len(wait_for_failures(site.gateway, 3))
        names.answer("127.0.0.1")
        site.gateway.wait_for_event("daemon.ready")
        asked += oracle.ask(4)
        oracle.wait_for_answers(asked)
        oracle.extra["failed connects"] = failures
        oracle.judge()
        assert site.gateway.status()["broker"]["connections"] == 1


TWO_TIERS = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?", "frost warning for the orchard"]
to = ["far", "hub"]

[routes.urgent]
examples = ["stop the irrigation pump right now", "emergency: shut the main valve"]
to = ["far"]
"""


def test_fault_14_look_up_of_a_tier_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    with (
        running_site(tmp_path, routes=TWO_TIERS, is_started=False) as site,
        NameServer(tmp_path) as names,
    ):
        far = f"http://{BLACK_HOLE}:{site.tier.port}/v1"
        text = f'[tiers.far]\nkind = "openai"\nurl = "{far}"\nmodel = "far"\nconnect_timeout_s = 0.5\n'
        site.gateway.write(site.broker.port, site.tier.url, text)
        through = names.through()
        site.gateway.start(through=through)
        with Oracle(site.broker, site.gateway) as oracle:
            sent = ask_for_the_pump(oracle)
            names.wait_for_look_up(BLACK_HOLE)
            for _ in range(5):
                asked = oracle.ask(10)
                oracle.wait_for_answers(asked, 2)

            site.gateway.wait_for_request(client_id="pump", state="pending")
            told = site.gateway.status()
            assert (told["tiers"]["far"]["breaker"], told["tiers"]["hub"]["breaker"]) == ("open", "closed")
            assert told["tiers"]["far"]["reason"] == "no connection within 0.5 s"
            assert answer_ms(site.gateway) < MAX_LAG_MS
            stop_in_time(site.gateway)

            site.gateway.start(through=through)
            names.answer("127.0.0.1")
            oracle.wait_for_answers([sent])
            oracle.judge()


def ask_for_the_pump(oracle: Oracle) -> Sent:
    """A question for the tier `far` and no other."""
    text, name = "stop the irrigation pump right now", "pump"
    topic, reply_topic = f"{oracle.prefix}/ask/pump/{name}", f"{oracle.prefix}/answer/pump/{name}"
    sent = Sent(0, topic, text, reply_topic, b"pump", is_valid=True, payload=text.encode())
    oracle.note(sent)
    oracle.asker().publish(topic, text, correlation=sent.correlation)
    return sent
