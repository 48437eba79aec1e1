"""The daemon as a service: what it tells systemd, and what a reload changes."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROUTES, Gateway, Requester, Signal, Site, running_site

pytestmark = pytest.mark.real_model

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"


# --- reload ------------------------------------------------------------------------------------------


def _reload(gateway: Gateway) -> str:
    """Sends SIGHUP; returns the line of the log that tells how it ended."""
    before = len(gateway.log.lines)
    gateway.log.send(signal.SIGHUP)
    return gateway.log.wait_for_line(
        lambda text: '"daemon.reloaded"' in text or '"daemon.reload_refused"' in text, after=before
    )


def _route_of(site: Site, device: Requester, question: str) -> str | None:
    number = str(len(device.messages)).encode()
    device.publish(f"{ASK}/probe", question, reply_to="me/in", correlation=number)
    return device.answer_to(number).properties.get("mq-route")


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as site:
        yield site


def test_new_routes_take_effect_and_a_bad_file_changes_nothing(own_site: Site) -> None:
    gateway = own_site.gateway
    with own_site.requester() as device:
        device.subscribe("me/in")
        assert _route_of(own_site, device, "my cow limps and has a fever") is None

        cows = '\n[routes.cows]\nexamples = ["the cow is lame", "my cow has a fever"]\nto = ["hub"]\n'
        gateway.routes.write_text(ROUTES + cows, encoding="utf-8")
        assert "daemon.reloaded" in _reload(gateway)
        assert _route_of(own_site, device, "a cow that limps and has a fever") == "cows"

        for bad, wanted in (("examples = []", "routes.bad.examples"), ('examples = ["moo"]', "nowhere")):
            gateway.routes.write_text(f'{ROUTES}{cows}[routes.bad]\n{bad}\nto = ["nowhere"]\n', encoding="utf-8")
            refused = _reload(gateway)
            assert "daemon.reload_refused" in refused and "farm.toml:" in refused and wanted in refused
        assert _route_of(own_site, device, "a cow that limps and has a fever, still") == "cows"

        gateway.routes.write_text("this is not TOML", encoding="utf-8")
        assert "daemon.reload_refused" in _reload(gateway)

        gateway.routes.write_text(ROUTES, encoding="utf-8")
        assert "daemon.reloaded" in _reload(gateway)
        assert _route_of(own_site, device, "a cow that limps and has a fever, no more") is None
    assert gateway.status()["ready"]


def test_reload_says_what_needs_a_restart(own_site: Site) -> None:
    text = own_site.gateway.config.read_text(encoding="utf-8")
    own_site.gateway.config.write_text(text.replace("[mqtt]", "[mqtt]\nkeepalive_s = 31"), encoding="utf-8")

    assert "daemon.reloaded" in _reload(own_site.gateway)

    assert own_site.gateway.wait_for_event("daemon.restart_needed")["sections"] == ["mqtt"]


def test_reload_that_adds_a_tier_is_refused(own_site: Site) -> None:
    text = own_site.gateway.config.read_text(encoding="utf-8")
    tier = '[tiers.new]\nkind = "openai"\nurl = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    own_site.gateway.config.write_text(text + tier, encoding="utf-8")

    assert "new added: restart the daemon" in _reload(own_site.gateway)


def test_questions_of_a_route_that_a_reload_takes_away_are_answered(own_site: Site) -> None:
    own_site.tier.stop()
    with own_site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "will there be frost?", reply_to="me/in", correlation=b"w")
        own_site.gateway.wait_for_request(state="pending", route="frost")
        own_site.gateway.routes.write_text(ROUTES.replace("routes.frost", "routes.cold"), encoding="utf-8")
        assert "daemon.reloaded" in _reload(own_site.gateway)

        own_site.tier.start()

        assert device.answer_to(b"w").error_code is None


# --- sd_notify ---------------------------------------------------------------------------------------


class ServiceManagerSocket:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._heard = Signal()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as goodbye:
            goodbye.sendto(b"END=1", str(self.path))
        self._thread.join(10)
        self._socket.close()

    def wait_for(self, name: str, part: str = "", *, after: int = 0) -> dict[str, str]:
        def found() -> dict[str, str] | None:
            return next((message for message in self.messages[after:] if part in message.get(name, "\0")), None)

        return self._heard.wait(found, lambda: f"{name} in {self.messages}")

    def has_heard(self, name: str) -> bool:
        return any(name in message for message in self.messages)

    def _listen(self) -> None:
        while True:
            lines = self._socket.recv(4096).decode().split("\n")
            message = {name: value for name, _, value in (line.partition("=") for line in lines)}
            if "END" in message:
                return
            self._heard.give(lambda message=message: self.messages.append(message))  # type: ignore[misc]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManagerSocket]:
    heard = ServiceManagerSocket(tmp_path / "notify")
    yield heard
    heard.close()


def test_service_manager_hears_of_readiness_watchdog_and_stop(tmp_path: Path, manager: ServiceManagerSocket) -> None:
    with running_site(tmp_path, is_started=False) as site:
        site.broker.stop()
        site.gateway.launch({"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"})
        manager.wait_for("STATUS", "waiting for the broker")
        manager.wait_for("WATCHDOG", "1")  # a missing broker is no reason to be killed
        manager.wait_for("EXTEND_TIMEOUT_USEC")
        assert not manager.has_heard("READY")

        site.broker.start()
        ready = manager.wait_for("READY", "1")
        assert ready["STATUS"] == "connected; 0 pending; all tiers usable"

        heard = len(manager.messages)
        started_s = time.monotonic()
        manager.wait_for("WATCHDOG", "1", after=heard)
        manager.wait_for("WATCHDOG", "1", after=len(manager.messages))
        assert time.monotonic() - started_s < 10

        assert site.gateway.stop() == 0
        assert manager.wait_for("STOPPING", "1")["STATUS"] == "draining"
        assert [m.get("READY") for m in manager.messages].count("1") == 1


def test_service_manager_reads_what_is_wrong(tmp_path: Path, manager: ServiceManagerSocket) -> None:
    with running_site(tmp_path, is_started=False) as site:
        site.gateway.start({"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"})
        site.tier.stop()
        with site.requester() as device:
            device.publish(f"{ASK}/probe", "frost?")

            manager.wait_for("STATUS", "connected; 1 pending; not usable: hub")

        site.broker.stop()
        manager.wait_for("STATUS", "no broker; 1 pending; not usable: hub")


def test_reload_is_told_to_the_service_manager(tmp_path: Path, manager: ServiceManagerSocket) -> None:
    with running_site(tmp_path, is_started=False) as site:
        site.gateway.start({"NOTIFY_SOCKET": str(manager.path)})
        heard = len(manager.messages)

        _reload(site.gateway)

        manager.wait_for("STATUS", "connected", after=heard)


# --- start and stop ----------------------------------------------------------------------------------


def test_missing_model_is_said_with_its_remedy(tmp_path: Path) -> None:
    with running_site(tmp_path, text=f'[gateway]\nmodels_dir = "{tmp_path}"\n', is_started=False) as site:
        site.gateway.launch()

        assert site.gateway.log.wait() == 78
        assert "mqrouter models pull" in site.gateway.log.text


def test_data_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site:
        (site.gateway.folder / "data").write_text("a file", encoding="utf-8")
        site.gateway.launch()

        assert site.gateway.log.wait() == 1
        assert site.gateway.log.lines[-1].startswith("mqrouter: ")
        assert str(site.gateway.folder / "data") in site.gateway.log.lines[-1]


def test_data_folder_with_too_long_a_name_is_said(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    with running_site(tmp_path, text=f'[gateway]\ndata_dir = "{folder}"\n', is_started=False) as site:
        site.gateway.launch()

        assert site.gateway.log.wait() == 78
        assert "gateway.data_dir: " in site.gateway.log.lines[-1]


def test_stop_does_not_wait_for_examples_to_be_embedded(tmp_path: Path) -> None:
    examples = ", ".join(f'"question number {number} of very many that all differ"' for number in range(2000))
    routes = f'[routes.large]\nexamples = [{examples}]\nto = ["hub"]\n'
    with running_site(tmp_path, routes=routes, is_started=False) as site:
        site.gateway.launch()
        site.gateway.wait_for_event("mqtt.connected")
        started_s = time.monotonic()

        assert site.gateway.stop() == 0

        assert time.monotonic() - started_s < 10
        assert not site.gateway.events("embedder.examples_embedded")


def test_questions_are_not_for_everybody_to_read(own_site: Site) -> None:
    files = list((own_site.gateway.folder / "data").iterdir())

    assert len(files) >= 4
    assert [path.name for path in files if path.stat().st_mode & 0o007] == []
