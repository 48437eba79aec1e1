"""Reaching a broker: protocol versions, passwords, TLS, and what operators read when it does not work."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from harness import Gateway, Mosquitto, Requester, StubTier, poll

pytestmark = pytest.mark.real_model

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"


@pytest.fixture(scope="module")
def tier() -> Iterator[StubTier]:
    tier = StubTier().start()
    yield tier
    tier.close()


@contextmanager
def gateway_at(folder: Path, port: int, tier: StubTier, text: str = "") -> Iterator[Gateway]:
    gateway = Gateway(folder / "gateway", port, tier.url, text=text)
    try:
        yield gateway
        gateway.close()
    finally:
        if gateway.process is not None and gateway.process.is_running:
            gateway.kill()


@contextmanager
def broker_at(folder: Path, *, listener: Sequence[str], extra: Sequence[str] = ()) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder / "broker", listener=listener, extra=extra).start()
    try:
        yield broker
    finally:
        broker.kill()


def broker_error(gateway: Gateway) -> str:
    """What `mqrouter status` says is wrong with the broker."""

    def found() -> str | None:
        result = gateway.cli("status")
        if result.returncode != 0 or "NOT connected: " not in result.stdout:
            return None
        line = next(line for line in result.stdout.splitlines() if line.startswith("  broker"))
        return line.partition("NOT connected: ")[2]

    return poll(found, lambda: gateway.log.text)


# --- protocol ----------------------------------------------------------------------------------------

CONNACK = {
    "0x01, as 3.1.1 brokers refuse": b"\x20\x02\x00\x01",
    "0x84, as MQTT 5 brokers refuse": b"\x20\x03\x00\x84\x00",
    "closes without a word": b"",
}


class PickyBroker:
    """Takes MQTT 3.1.1 only: refuses a version 5 CONNECT with these bytes; else says yes to everything."""

    def __init__(self, refusal: bytes) -> None:
        self.versions: list[int] = []
        self._refusal = refusal
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client:
            version = client.recv(4096)[8]
            self.versions.append(version)
            if version == 5:
                client.sendall(self._refusal)
                return
            client.sendall(b"\x20\x02\x00\x00")
            while packet := client.recv(4096):
                if packet[0] >> 4 == 8:
                    client.sendall(bytes([0x90, 3, packet[2], packet[3], 1]))
                elif packet[0] >> 4 == 12:
                    client.sendall(b"\xd0\x00")


@pytest.mark.parametrize("refusal", CONNACK.values(), ids=CONNACK.keys())
def test_auto_falls_back_to_3_1_1(tmp_path: Path, tier: StubTier, refusal: bytes) -> None:
    broker = PickyBroker(refusal)
    with gateway_at(tmp_path, broker.port, tier) as gateway:
        gateway.start()

        assert gateway.status()["broker"]["protocol"] == "3.1.1"
        assert broker.versions == ([5, 4] if refusal else [5, 4, 5, 4])  # silence is looked into, a refusal is not
    broker.close()


def test_protocol_5_alone_does_not_fall_back(tmp_path: Path, tier: StubTier) -> None:
    broker = PickyBroker(CONNACK["0x01, as 3.1.1 brokers refuse"])
    with gateway_at(tmp_path, broker.port, tier, '[mqtt]\nprotocol = "5"\n') as gateway:
        gateway.launch()

        assert broker_error(gateway) == "the broker refused: Unsupported protocol version"
        assert 4 not in broker.versions
    broker.close()


def test_daemon_falls_back_for_amqtt(tmp_path: Path, tier: StubTier) -> None:
    with amqtt_broker() as port, gateway_at(tmp_path, port, tier) as gateway:
        gateway.start()

        assert gateway.status()["broker"]["protocol"] == "3.1.1"
        with Requester(port, version=4) as device:
            device.subscribe(f"{ANSWER}/probe")
            device.publish(f"{ASK}/probe", "frost over amqtt?")
            assert device.answer_on(f"{ANSWER}/probe").text == "echo: frost over amqtt?"


@contextmanager
def amqtt_broker() -> Iterator[int]:
    from amqtt.broker import Broker

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def start() -> Broker:
        broker = Broker(config)
        await broker.start()
        return broker

    broker = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


# --- passwords ---------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that wants user `gate` with password `s3cret`."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "gate", "s3cret"], check=True, timeout=60)
    listener = ["allow_anonymous false", f"password_file {passwords}"]
    with broker_at(tmp_path, listener=listener) as broker:
        yield broker


def test_right_password_connects(tmp_path: Path, tier: StubTier, guarded: Mosquitto) -> None:
    (tmp_path / "secret").write_text("s3cret\n", encoding="utf-8")
    text = f'[mqtt]\nusername = "gate"\npassword = {{ file = "{tmp_path}/secret" }}\n'
    with gateway_at(tmp_path, guarded.port, tier, text) as gateway:
        gateway.start()

        assert gateway.status()["broker"]["connected"]
        assert "s3cret" not in gateway.log.text


def test_wrong_password_is_said_and_tried_again(tmp_path: Path, tier: StubTier, guarded: Mosquitto) -> None:
    text = '[mqtt]\nusername = "gate"\npassword = { env = "GATE_PASSWORD" }\n'
    with gateway_at(tmp_path, guarded.port, tier, text) as gateway:
        gateway.launch({"GATE_PASSWORD": "wr0ng"})
        gateway.wait_for_event("daemon.started")
        gateway.config.write_text(gateway.config.read_text().replace("password =", "#"), encoding="utf-8")

        assert broker_error(gateway) == "the broker refused: Not authorized"
        assert len([gateway.wait_for_event("mqtt.connect_failed", after=len(gateway.log.lines)) for _ in range(2)]) == 2
        assert "wr0ng" not in gateway.log.text


def test_missing_password_is_a_configuration_error(tmp_path: Path, tier: StubTier) -> None:
    text = '[mqtt]\nusername = "gate"\npassword = { env = "NO_SUCH_VARIABLE" }\n'
    with gateway_at(tmp_path, 1, tier, text) as gateway:
        gateway.launch()

        assert gateway.log.wait() == 78
        assert "mqtt.password: the environment variable NO_SUCH_VARIABLE is not set" in gateway.log.text


# --- TLS ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    ca: Path
    other_ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("gateway@farm.example")
    found = Certificates(*(folder / f"{name}.pem" for name in ("ca", "other", "server", "server.key", "client", "key")))
    authority.cert_pem.write_to_path(found.ca)
    other.cert_pem.write_to_path(found.other_ca)
    for issued, cert, key in (
        (server, found.server_cert, found.server_key),
        (client, found.client_cert, found.client_key),
    ):
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
    return found


@contextmanager
def tls_site(
    folder: Path, tier: StubTier, files: Certificates, text: str, *, wants_client: bool = False
) -> Iterator[Gateway]:
    """A broker that speaks TLS only, and a gateway, not started, with these keys in `[mqtt.tls]`."""
    listener = [f"cafile {files.ca}", f"certfile {files.server_cert}", f"keyfile {files.server_key}"]
    listener += [f"require_certificate {str(wants_client).lower()}", "allow_anonymous true"]
    keys = f"[mqtt.tls]\nenabled = true\n{text}" if text else ""
    with broker_at(folder, listener=listener) as broker, gateway_at(folder, broker.port, tier, keys) as gateway:
        yield gateway


def test_tls_with_the_brokers_authority_connects(tmp_path: Path, tier: StubTier, certificates: Certificates) -> None:
    with tls_site(tmp_path, tier, certificates, f'ca_file = "{certificates.ca}"\n') as gateway:
        gateway.start()

        result = gateway.cli("ask", "--timeout", "10", "frost over TLS?")
        assert (result.returncode, result.stdout) == (0, "echo: frost over TLS?\n"), result.stderr


def test_client_certificate_opens_the_door(tmp_path: Path, tier: StubTier, certificates: Certificates) -> None:
    text = f'ca_file = "{certificates.ca}"\n'
    text += f'cert_file = "{certificates.client_cert}"\nkey_file = "{certificates.client_key}"\n'
    with tls_site(tmp_path, tier, certificates, text, wants_client=True) as gateway:
        gateway.start()

        assert gateway.status()["broker"]["connected"]


def test_missing_client_certificate_is_said(tmp_path: Path, tier: StubTier, certificates: Certificates) -> None:
    text = f'ca_file = "{certificates.ca}"\n'
    with tls_site(tmp_path, tier, certificates, text, wants_client=True) as gateway:
        gateway.launch()

        assert "certificate required" in broker_error(gateway)


def test_missing_file_of_tls_is_a_configuration_error(
    tmp_path: Path, tier: StubTier, certificates: Certificates
) -> None:
    with tls_site(tmp_path, tier, certificates, 'ca_file = "nowhere.pem"\n') as gateway:
        gateway.launch()

        assert gateway.log.wait() == 78
        assert "mqtt.tls.ca_file: there is no file" in gateway.log.text


@pytest.mark.parametrize(("ca_file", "wanted"), [("other_ca", "certificate verify failed"), ("server_key", "no cert")])
def test_wrong_authority_is_said(
    tmp_path: Path, tier: StubTier, certificates: Certificates, ca_file: str, wanted: str
) -> None:
    path = getattr(certificates, ca_file)
    with tls_site(tmp_path, tier, certificates, f'ca_file = "{path}"\n') as gateway:
        gateway.launch()

        error = broker_error(gateway)
        assert wanted in error.lower()
        assert ca_file == "other_ca" or str(path) in error


def test_plain_gateway_at_a_tls_port_is_said(tmp_path: Path, tier: StubTier, certificates: Certificates) -> None:
    with tls_site(tmp_path, tier, certificates, "") as gateway:
        gateway.launch()

        assert broker_error(gateway).startswith("the connection ended: ")


def test_stop_does_not_wait_for_a_broker_that_hangs(tmp_path: Path, tier: StubTier, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = f'[mqtt]\nconnect_timeout_s = 60\n[mqtt.tls]\nenabled = true\nca_file = "{certificates.ca}"\n'
        with gateway_at(tmp_path, silent.getsockname()[1], tier, text) as gateway:
            gateway.launch()
            silent.settimeout(10)
            silent.accept()
            gateway.wait_for_event("embedder.examples_embedded")

            assert gateway.stop(5) == 0


# --- client id ---------------------------------------------------------------------------------------


def test_taken_client_id_is_said(tmp_path: Path, tier: StubTier) -> None:
    listener = ["allow_anonymous true"]
    with broker_at(tmp_path, listener=listener) as broker, gateway_at(tmp_path, broker.port, tier) as gateway:
        gateway.start()
        with Requester(broker.port, client_id="mqrouter-farm"):  # it takes its id back each time, after a second
            wanted = "another client may be using the id 'mqrouter-farm'"

            gateway.log.wait_for_line(lambda line: "connection_lost" in line and wanted in line)

        gateway.wait_for_event("mqtt.connected", after=len(gateway.log.lines) - 1)
