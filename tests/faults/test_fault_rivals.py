"""Others in the daemon's place: a second daemon, and nobody where the answer goes."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Gateway, Mosquitto, Site, running_site
from moved_clock import MovedClock
from oracle import Oracle

pytestmark = pytest.mark.real_model

TEMPFAIL = 75  # sysexits.h
REFUSED_WITHIN_S = 1.0
WATCHED_S = 5.0
MAX_CONNECTIONS = 4  # each once, and once more before it knows


# --- a second daemon -------------------------------------------------------------------------------------


def test_fault_37_second_daemon_on_the_same_database_gives_up_within_a_second(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Oracle(site.broker, site.gateway) as oracle:
        site.tier.hold()
        asked = oracle.ask(20)
        ends = [_end_of_another(site, oracle.database) for _ in range(3)]
        site.tier.release()
        oracle.wait_for_answers(asked)

        worked_s, took_s = (round(min(seconds), 2) for seconds in zip(*ends, strict=True))

        assert worked_s < REFUSED_WITHIN_S, ends  # other programs on this machine do not count
        assert site.gateway.status()["broker"]["connections"] == 1
        oracle.extra["seconds of work until it gave up"] = worked_s
        oracle.extra["seconds"] = took_s
        oracle.judge()


def _end_of_another(site: Site, database: Path) -> tuple[float, float]:
    """Returns the processor time and the time that a second daemon took until it gave up for the right reason."""
    worked_before_s, started_s = _worked_s(), time.monotonic()
    second = site.gateway.launch_another()
    assert second.wait() == TEMPFAIL
    took_s = time.monotonic() - started_s
    assert second.lines == [
        f"mqrouter: {database} is in use by another mqrouter (process {site.gateway.log.pid}):"
        " stop that one, or give this one a data_dir of its own"
    ]
    return _worked_s() - worked_before_s, took_s


def _worked_s() -> float:
    """The processor time of all processes that we have started and seen the end of."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def twin_of(site: Site, folder: Path, text: str) -> Iterator[Gateway]:
    """The same gateway once more, with a database of its own, as after copying a card; not started."""
    twin = Gateway(folder / "twin", site.broker.port, site.tier.url, text=text)
    try:
        yield twin
        twin.close()
    finally:
        if twin.process is not None and twin.log.is_running:
            twin.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_fault_37_second_daemon_with_the_same_client_id_does_not_play_ping_pong(tmp_path: Path, protocol: str) -> None:
    text = f'[mqtt]\nprotocol = "{protocol}"\nreconnect_min_s = 0.5\nreconnect_max_s = 60.0\n'
    with running_site(tmp_path, text=text) as site, twin_of(site, tmp_path, text) as twin:
        twin.start()
        threading.Event().wait(WATCHED_S)  # what is waited for must not happen

        assert connections_of(site.broker, "mqrouter-farm") <= MAX_CONNECTIONS, site.broker.log.text
        loser = next(gateway for gateway in (site.gateway, twin) if not gateway.status()["broker"]["connected"])
        told = "another client may be using the id 'mqrouter-farm'"
        loser.log.wait_for_line(lambda line: "mqtt.connection_lost" in line and told in line)
        shown = loser.cli("status").stdout
        assert "NOT connected" in shown and told in shown
        with site.requester() as device:  # the other one works
            device.subscribe("mqrouter/farm/answer/probe")
            device.publish("mqrouter/farm/ask/probe", "frost?")
            assert device.wait_for_number(1)[0].text == "echo: frost?"


def connections_of(broker: Mosquitto, client_id: str) -> int:
    return sum(f" as {client_id} " in line for line in list(broker.log.lines) if "New client connected" in line)


# --- nobody where the answer goes -------------------------------------------------------------------------

HOUR_S = 3600.0
OFFERED_EVERY_S = 61.0


def test_fault_40_answer_that_nobody_takes_is_kept_until_its_requester_returns_or_it_expires(tmp_path: Path) -> None:
    clock = MovedClock(tmp_path, "time")
    with running_site(tmp_path, is_started=False) as site:
        site.gateway.start(clock.env)
        with Oracle(site.broker, site.gateway) as oracle:
            for name, expiry_s in (("soon", None), ("late", None), ("never", None), ("brief", 60)):
                ask_and_leave(site, name, expiry_s)
            oracle.wait_for_answers(oracle.ask(3))

            assert heard_on_return(site, clock, "soon") == [b"soon", b"new after soon"]
            clock.move(HOUR_S)
            site.gateway.wait_for_request(client_id="brief", state="undelivered")
            clock.move(22 * HOUR_S)
            assert heard_on_return(site, clock, "late") == [b"late", b"new after late"]
            site.gateway.wait_for_request(client_id="never", state="answered")
            clock.move(2 * HOUR_S)
            site.gateway.wait_for_request(client_id="never", state="undelivered")
            assert heard_on_return(site, clock) == [b"new after None"]

            for name in ("soon", "late", "never", "brief"):
                assert len(site.tier.asked(f"frost, {name}?")) == 1
            oracle.extra |= {"asked and left": 4, "heard on return": 2, "undelivered": 2}
            oracle.judge()


def ask_and_leave(site: Site, name: str, expiry_s: int | None) -> None:
    """The broker has told the daemon that nobody is there for the answer."""
    before = len(site.gateway.log.lines)
    with site.requester() as device:
        topic = f"mqrouter/farm/ask/absent/{name}"
        device.publish(
            topic, f"frost, {name}?", reply_to=f"absent/{name}", correlation=name.encode(), expiry_s=expiry_s
        )
    site.gateway.wait_for_event("deliver.not_taken", after=before)
    site.gateway.wait_for_request(client_id=name, state="answered")


def heard_on_return(site: Site, clock: MovedClock, name: str | None = None) -> list[bytes | None]:
    """What reaches a requester who comes back for this answer, or for all, up to the answer to a new question."""
    with site.requester() as device:
        device.subscribe(*(["absent/#"] if name is None else [f"absent/{name}", "absent/new"]))
        clock.move(OFFERED_EVERY_S)
        if name is not None:
            answer = device.answer_to(name.encode())
            assert (answer.topic, answer.text) == (f"absent/{name}", f"echo: frost, {name}?")
            site.gateway.wait_for_request(client_id=name, state="delivered")
        last = f"new after {name}".encode()
        device.publish("mqrouter/farm/ask/absent", "frost, now?", reply_to="absent/new", correlation=last)
        device.answer_to(last)
        return [message.correlation for message in device.messages]
