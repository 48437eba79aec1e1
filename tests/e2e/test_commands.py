"""The commands against a real daemon: what they print, what they return, and that looking never changes anything."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import click
import pytest
from click.testing import CliRunner, Result
from harness import MQROUTER, Behaviour, Gateway, Process, Site, free_port, poll, run_cli, running_site

from mqrouter.cli.main import cli

pytest_plugins = ["site_fixtures"]

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"
CONFIG = "[mqtt]\nconnect_timeout_s = 2.0\n"


# --- ask ---------------------------------------------------------------------------------------------


@pytest.mark.real_model
def test_ask_prints_the_answer_and_notes_where_it_came_from(site: Site) -> None:
    result = site.gateway.cli("ask", "will there be frost tonight?")

    assert (result.returncode, result.stdout) == (0, "echo: will there be frost tonight?\n")
    assert result.stderr.startswith("[frost > hub, stub-model, ")


@pytest.mark.real_model
def test_ask_as_json_is_the_whole_answer(site: Site) -> None:
    result = site.gateway.cli("ask", "--json", "--route", "urgent", "--priority", "9", "stop?")

    answer = json.loads(result.stdout)
    assert (result.returncode, answer["status"], answer["route"], answer["answer"]) == (
        0,
        "ok",
        "urgent",
        "echo: stop?",
    )


@pytest.mark.real_model
@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_ask_fails_where_the_answer_is_an_error(site: Site, option: tuple[str, ...]) -> None:
    result = site.gateway.cli("ask", "--private", "frost?", *option)

    assert result.returncode == 1
    if option:
        assert json.loads(result.stdout)["error"]["code"] == "private_unanswerable"
    else:
        why = "none of its route's tiers is trusted; it is private: its sender says so"
        assert result.stderr == f"mqrouter: private_unanswerable: {why}\n"
        assert result.stdout == ""


@pytest.mark.real_model
def test_ask_gives_up_in_time_and_says_where_to_look(site: Site) -> None:
    site.tier.hold()

    result = site.gateway.cli("ask", "--timeout", "0.5", "frost, one day?")

    assert (result.returncode, result.stdout) == (75, "")
    name = result.stderr.split("`")[1].removeprefix("mqrouter ")
    site.gateway.wait_for_request(device="cli", state="expired")
    shown = site.gateway.cli(*name.split())
    assert shown.returncode == 0
    assert "ended with expired: no answer within the time to live" in shown.stdout


@pytest.mark.real_model
def test_ask_says_that_the_gateway_is_offline_and_waits_for_it(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        site.gateway.stop()
        asking = Process([MQROUTER, "ask", "will there be frost tonight?", "-c", str(site.gateway.config)])
        asking.wait_for_line(lambda line: "the gateway is offline: the question waits at the broker" in line)
        site.gateway.start()

        assert asking.wait() == 0, asking.text
        assert [line.partition(",")[0] for line in asking.lines[1:]] == [
            "mqrouter: the gateway is online",
            "[frost > hub",
        ]


def test_ask_says_that_no_gateway_ever_announced_itself(tmp_path: Path) -> None:
    with running_site(tmp_path, is_started=False) as site:
        result = site.gateway.cli("ask", "--timeout", "4", "frost?")

    assert (result.returncode, result.stderr.splitlines()[0]) == (
        75,
        "mqrouter: no gateway was ever online as mqrouter/farm at this broker; it may keep the question for none:"
        " is mqtt.prefix right, and the daemon running? (waiting for up to 4 s)",
    )


@pytest.mark.real_model
def test_ask_takes_hard_text_as_it_is(site: Site) -> None:
    for text in ('frost "tonight"?', "frost\nin two lines?", "gel cette nuit, été compris ? ❄", "--frost?"):
        result = site.gateway.cli("ask", "--json", "--", text)

        assert json.loads(result.stdout)["answer"] == f"echo: {text}", result.stderr


@pytest.mark.parametrize("device", ["", "a/b", "a+", "#"])
def test_ask_refuses_a_device_that_is_no_level(tmp_path: Path, device: str) -> None:
    result = run_cli("ask", "--device", device, "frost?")

    assert (result.returncode, "one topic level" in result.stderr) == (2, True)


@pytest.fixture
def idle(tmp_path: Path) -> Gateway:
    """A configuration whose daemon, broker and tier are down."""
    return Gateway(tmp_path / "gateway", free_port(), f"http://127.0.0.1:{free_port()}/v1")


def test_ask_without_a_broker_says_so(idle: Gateway) -> None:
    result = idle.cli("ask", "frost?")

    assert (result.returncode, result.stdout) == (69, "")
    assert "mqrouter: no broker at 127.0.0.1:" in result.stderr and "refused" in result.stderr


def test_ask_at_something_that_is_no_broker_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        idle = Gateway(tmp_path / "gateway", silent.getsockname()[1], "http://127.0.0.1:1/v1", text=CONFIG)

        result = idle.cli("ask", "frost?")

    assert (result.returncode, "it did not answer" in result.stderr) == (69, True)


def test_ask_without_the_password_names_the_key(tmp_path: Path) -> None:
    text = '[mqtt]\nusername = "u"\npassword = { env = "NO_SUCH_VARIABLE" }\n'
    idle = Gateway(tmp_path / "gateway", free_port(), "http://127.0.0.1:1/v1", text=text)

    result = idle.cli("ask", "frost?")

    assert result.returncode == 78
    assert result.stderr.endswith("mqtt.password: the environment variable NO_SUCH_VARIABLE is not set\n")


# --- status ------------------------------------------------------------------------------------------


@pytest.mark.real_model
def test_status_shows_broker_tiers_and_queue(site: Site) -> None:
    text = site.gateway.cli("status")
    as_json = json.loads(site.gateway.cli("status", "--json").stdout)

    assert text.returncode == 0
    assert f"127.0.0.1:{site.broker.port}: connected, MQTT 5" in text.stdout
    assert as_json["running"] and as_json["ready"] and as_json["broker"]["connected"]
    assert as_json["tiers"]["hub"]["breaker"] == "closed"
    assert as_json["requests"].keys() == {"received", "pending", "leased", "dropped"}


@pytest.mark.real_model
def test_status_of_a_running_daemon_is_shown_whatever_is_wrong_on_disk(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        config = site.gateway.config
        config.write_text(config.read_text(encoding="utf-8").replace("[retry]", "[retri]"), encoding="utf-8")

        result = site.gateway.cli("status", "--json")

        assert result.returncode == 0
        assert json.loads(result.stdout)["ready"]
        assert "the configuration on disk is refused: see `mqrouter check`" in result.stderr


@pytest.mark.real_model
def test_queue_is_seen_and_steered_whatever_is_wrong_on_disk(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        config, cli = site.gateway.config, site.gateway.cli
        config.write_text(config.read_text(encoding="utf-8").replace("[retry]", "[retri]"), encoding="utf-8")

        listed, paused, unknown, metrics = (
            cli("queue", "list"),
            cli("queue", "pause", "hub"),
            cli("queue", "pause", "hup"),
            cli("metrics"),
        )

        assert (listed.returncode, paused.returncode, unknown.returncode, metrics.returncode) == (3, 0, 2, 0)
        assert paused.stdout == "paused hub\n" and "there is no such tier" in unknown.stderr
        assert all("the configuration on disk is refused" in one.stderr for one in (listed, paused, unknown, metrics))


@pytest.mark.real_model
def test_stopped_process_is_said_not_to_answer_and_takes_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_site(tmp_path) as site:
        monkeypatch.setattr("mqrouter.cli.daemon.TIMEOUT_S", 0.3)
        monkeypatch.setenv("MQROUTER_CONFIG", str(site.gateway.config))

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(cli, arguments)

        site.gateway.log.send(signal.SIGSTOP)
        try:
            status, as_json, paused = run("status"), run("status", "--json"), run("queue", "pause", "hub")
            listed, explained = run("queue", "list"), run("route", "explain", "will there be frost?")
        finally:
            site.gateway.log.send(signal.SIGCONT)

        assert [found.exit_code for found in (status, as_json, paused, listed, explained)] == [75, 75, 75, 3, 0]
        for said in (status.stdout, paused.stderr, listed.stderr, json.loads(as_json.stdout)["error"]):
            assert "the daemon runs but has not answered for 0.3 s" in said and "not running" not in said, said
        assert "requests: none" in status.stdout
        assert "taken as if every tier were up: the daemon does not answer" in explained.stdout
        assert site.gateway.status()["tiers"]["hub"]["paused_by"] is None


def test_status_of_a_daemon_that_never_ran_says_so(idle: Gateway) -> None:
    text, as_json = idle.cli("status"), idle.cli("status", "--json")

    assert (text.returncode, as_json.returncode) == (69, 69)
    assert "the daemon is not running" in text.stdout
    expected = {"running": False, "requests": {}, "oldest_waiting_s": None, "salvage": None}
    assert json.loads(as_json.stdout) == expected


# --- queue -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose daemon has answered one question, holds another, and is down."""
    with running_site(tmp_path_factory.mktemp("stopped")) as site, site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/done", "frost, done?", reply_to="me/in", correlation=b"d")
        device.answer_on("me/in")
        site.gateway.wait_for_request(device="done", state="delivered")
        site.tier.script = lambda _call: Behaviour(status=503)
        site.tier.stop()
        device.publish(f"{ASK}/held", '{"id": "mine", "question": "frost, held?"}', reply_to="me/in", correlation=b"h")
        site.gateway.wait_for_request(device="held", state="pending")
        site.gateway.stop()
        yield site


@pytest.mark.real_model
def test_queue_list_reads_the_database_of_a_daemon_that_is_down(stopped: Site) -> None:
    cli = stopped.gateway.cli

    waiting = json.loads(cli("queue", "list", "--json").stdout)
    everything = json.loads(cli("queue", "list", "--all", "--json").stdout)

    assert [(row["device"], row["state"], row["client_id"], row["waiting_for"]) for row in waiting] == [
        ("held", "pending", "mine", "hub")
    ]
    assert [row["device"] for row in everything] == ["held", "done"]
    assert cli("queue", "list", "--state", "delivered").returncode == 0
    assert cli("queue", "list", "--device", "nobody").returncode == 3
    assert json.loads(cli("queue", "list", "--device", "nobody", "--json").stdout) == []
    assert cli("queue", "list", "--state", "nonsense").returncode == 2
    assert cli("status").returncode == 69


@pytest.mark.real_model
def test_queue_show_explains_a_request(stopped: Site) -> None:
    cli = stopped.gateway.cli

    shown = cli("queue", "show", "mine", "--text")
    masked = cli("queue", "show", "mine")
    as_json = json.loads(cli("queue", "show", "mine", "--json").stdout)
    done = json.loads(cli("queue", "list", "--state", "delivered", "--json").stdout)[0]
    answered = cli("queue", "show", done["id"], "--text")

    assert shown.returncode == 0
    for part in ("frost, held?", "route:", "tiers:    hub", "near:", "history:", "cannot connect"):
        assert part in shown.stdout
    assert "held?" not in masked.stdout and "--text shows them" in masked.stdout
    assert (as_json["decision"]["route"], as_json["payload"], as_json["correlation"]) == ("frost", None, b"h".hex())
    assert [entry["event"] for entry in as_json["history"]][:3] == ["received", "pending", "leased"]
    assert "echo: frost, done?" in answered.stdout
    assert cli("queue", "show", "nobody").returncode == 3


@pytest.mark.real_model
def test_queue_cancel_needs_the_daemon(stopped: Site) -> None:
    assert stopped.gateway.cli("queue", "cancel", "mine").returncode == 69


@pytest.mark.real_model
def test_queue_search_and_filters_read_the_database_of_a_daemon_that_is_down(stopped: Site) -> None:
    def found(*options: str) -> list[str]:
        return [row["device"] for row in json.loads(stopped.gateway.cli("queue", *options, "--json").stdout)]

    assert found("search", "FROST, ") == ["held", "done"]
    assert found("search", "held?", "--state", "pending") == ["held"]
    assert found("list", "--all", "--sort", "oldest") == ["done", "held"]
    assert found("list", "--error", "cannot CONNECT") == ["held"]
    assert found("list", "--tier", "hub", "--newer-than", "1d", "--priority", "0") == ["held"]
    assert found("list", "--older-than", "1d") == []
    first = stopped.gateway.cli("queue", "list", "--all", "-n", "1")
    assert "what was known last" in first.stderr
    after = first.stderr.splitlines()[-1].removeprefix("there may be more: ").split()
    assert found("list", "--all", *after) == ["done"]


@pytest.mark.real_model
def test_queue_export_and_stats_read_the_database_of_a_daemon_that_is_down(stopped: Site, tmp_path: Path) -> None:
    cli = stopped.gateway.cli
    exported = cli("queue", "export", "--all")
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert (exported.returncode, exported.stderr) == (0, "2 requests\n")
    assert [(line["device"], line["state"]) for line in lines] == [("done", "delivered"), ("held", "pending")]
    assert (lines[0]["payload"], lines[0]["answer"]) == ("frost, done?", "echo: frost, done?")
    assert cli("queue", "export").returncode == 2
    assert cli("queue", "export", "--device", "nobody").returncode == 3
    file = tmp_path / "x.jsonl"
    file.write_text(exported.stdout, encoding="utf-8")
    assert cli("queue", "import", str(file), "--dry-run").stdout == "2 requests would be asked again\n"
    assert cli("queue", "import", str(file), "--yes").returncode == 69
    file.write_text("{}\n", encoding="utf-8")
    assert (cli("queue", "import", str(file), "--yes").returncode) == 1
    stats = json.loads(cli("queue", "stats", "--json").stdout)
    assert stats["requests"] == {"delivered": 1, "pending": 1}
    assert stats["oldest_waiting_s"] > 0
    assert "frost" in cli("queue", "stats").stdout


@pytest.mark.real_model
def test_queue_import_asks_again_and_the_device_is_answered(site: Site, tmp_path: Path) -> None:
    with site.requester() as device:
        device.subscribe("me/in")
        line = {"topic": f"{ASK}/again", "payload": "frost, again?", "reply_topic": "me/in", "correlation": b"z".hex()}
        file = tmp_path / "x.jsonl"
        file.write_text(json.dumps(line) + "\n", encoding="utf-8")

        result = site.gateway.cli("queue", "import", str(file), "--yes")

        assert (result.returncode, result.stdout) == (0, "1 new\n"), result
        assert device.answer_to(b"z").text == "echo: frost, again?"
        again = site.gateway.cli("queue", "import", str(file), "--yes")
        assert (again.returncode, again.stdout) == (1, "1 absorbed\n"), again
        assert "1 of 1 not asked again: their id or correlation is still known" in again.stderr
        assert again.stderr.endswith("mqrouter: nothing was asked again\n")
        other = {**line, "correlation": b"y".hex()}
        file.write_text("".join(json.dumps(entry) + "\n" for entry in (line, other)), encoding="utf-8")
        both = site.gateway.cli("queue", "import", str(file), "--yes")
        assert (both.returncode, both.stdout) == (0, "1 absorbed, 1 new\n"), both
        assert both.stderr.startswith("1 of 2 not asked again: ")
        assert site.tier.asked("frost, again?") == site.tier.wait_for_calls("frost, again?", 2)


@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_queue_import_of_an_empty_file_says_so_and_asks_nobody(idle: Gateway, tmp_path: Path, option: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("\n", encoding="utf-8")

    result = idle.cli("queue", "import", str(file), option)

    assert (result.returncode, result.stdout, result.stderr) == (3, "", f"mqrouter: there is nothing in {file}\n")


@pytest.mark.real_model
def test_queue_orders_say_what_they_mean(stopped: Site) -> None:
    cli = stopped.gateway.cli
    assert cli("queue", "cancel").returncode == 2
    assert cli("queue", "cancel", "mine", "--all").returncode == 2
    assert cli("queue", "retry", "--state", "nonsense").returncode == 2
    assert cli("queue", "priority", "mine", "--to", "10").returncode == 2
    down = cli("queue", "retry", "--route", "frost", "--yes")
    assert (down.returncode, "the daemon is not running" in down.stderr) == (69, True)


@pytest.mark.real_model
def test_queue_orders_for_several_ask_first_and_say_what_became_of_them(site: Site) -> None:
    cli = site.gateway.cli
    assert cli("queue", "pause", "hub").returncode == 0
    try:
        with site.requester() as device:
            device.subscribe("me/in")
            for name in ("one", "two"):
                device.publish(f"{ASK}/bulk", f"frost, {name}?", reply_to="me/in", correlation=name.encode())
            poll(lambda: len(waiting(site)) == 2 or None, lambda: str(waiting(site)))

            unsure = cli("queue", "priority", "--device", "bulk", "--to", "7")
            assert (unsure.returncode, "priority 2 requests?" in unsure.stdout) == (1, True), unsure
            assert "--yes" in unsure.stderr
            dry = cli("queue", "priority", "--device", "bulk", "--to", "7", "--dry-run")
            assert (dry.returncode, dry.stdout) == (0, "2 would be given that priority\n")
            assert {row["priority"] for row in waiting(site)} == {0}
            sure = cli("queue", "priority", "--device", "bulk", "--to", "7", "--yes")
            assert (sure.returncode, sure.stdout) == (0, "2 are given that priority\n")
            assert {row["priority"] for row in waiting(site)} == {7}
            moved = cli("queue", "move", "--device", "bulk", "--to", "moon", "--yes")
            assert (moved.returncode, "no such tier" in moved.stderr) == (2, True)
            assert cli("queue", "ttl", "--device", "bulk", "--to", "2h", "--yes").returncode == 0
            assert all(7000 < row["expires_in_s"] <= 7200 for row in waiting(site))
            for option in ((), ("--yes",)):
                nobody = cli("queue", "retry", "--device", "nobody", *option)
                assert (nobody.returncode, nobody.stdout, nobody.stderr) == (3, "", "no such request\n")
            ended = cli("queue", "cancel", "--device", "bulk", "--yes", "--message", "too late", "--json")
            assert [row["found"] for row in json.loads(ended.stdout)] == ["pending", "pending"]
            assert device.answer_to(b"one").error_code == device.answer_to(b"two").error_code == "cancelled"
        done = [(row["action"], row["target"]) for row in json.loads(cli("queue", "actions", "--json").stdout)]
        assert ("priority 7", "2 requests: states=pending,received device=bulk") in done
    finally:
        assert cli("queue", "resume", "hub").returncode == 0


def waiting(site: Site) -> list[dict[str, Any]]:
    rows = site.gateway.requests()
    return [row for row in rows if row["device"] == "bulk" and row["state"] == "pending"]


@pytest.mark.real_model
def test_http_is_served_where_it_is_switched_on(tmp_path: Path) -> None:
    text = "[http]\nenabled = true\nport = 0\n"
    with running_site(tmp_path, text=text) as site:
        port = site.gateway.wait_for_event("http.listening")["port"]
        assert f"  page      http://127.0.0.1:{port}\n" in site.gateway.cli("status").stdout
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as response:
            assert json.load(response) == {"ready": True, "reasons": []}
        with urlopen(f"http://127.0.0.1:{port}/v1/requests", timeout=60) as response:
            assert json.load(response) == {"requests": [], "next": None}
        site.broker.kill()
        site.gateway.wait_for_event("mqtt.connection_lost")
        with pytest.raises(HTTPError) as refused:
            urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60)
        assert json.load(refused.value)["reasons"] == ["not connected to the broker"]


@pytest.mark.real_model
def test_status_says_that_http_is_not_listening_where_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_site(tmp_path, text=f"[http]\nenabled = true\nport = {port}\n") as site:
            found = json.loads(site.gateway.cli("status", "--json").stdout)["http"]
            assert (found["enabled"], found["url"], f"127.0.0.1:{port}: " in found["error"]) == (True, None, True), (
                found
            )
            assert f"  PAGE      HTTP is not listening: 127.0.0.1:{port}: " in site.gateway.cli("status").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('host = "0.0.0.0"', "anybody could look at the queue"),
        ('operator_token = { env = "NO_SUCH_VARIABLE" }', "NO_SUCH_VARIABLE is not set"),
        ('operator_token = { env = "SHORT" }', "at least 16 characters"),
    ],
)
def test_daemon_does_not_start_open_to_everybody(tmp_path: Path, text: str, words: str) -> None:
    gateway = Gateway(
        tmp_path / "gateway", free_port(), "http://127.0.0.1:1/v1", text=f"[http]\nenabled = true\nport = 0\n{text}\n"
    )
    result = run_cli("run", "-c", str(gateway.config), env={"SHORT": "0123"})
    assert (result.returncode, words in result.stderr) == (78, True), result


@pytest.mark.real_model
def test_queue_cancel_takes_every_name_that_show_takes(site: Site) -> None:
    site.tier.hold()
    with site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/own", '{"id": "my own", "question": "frost, mine?"}', reply_to="me/in", correlation=b"o")
        site.gateway.wait_for_request(device="own", state="leased")

        result = site.gateway.cli("queue", "cancel", "my own")

        assert result.returncode == 0, result.stderr
        assert result.stdout.endswith("is cancelled (it was leased)\n")
        assert device.answer_to(b"o").error_code == "cancelled"


@pytest.mark.real_model
def test_queue_cancel_does_not_guess_between_devices(site: Site) -> None:
    site.tier.hold()
    with site.requester() as device:
        for name in ("left", "right"):
            device.publish(f"{ASK}/{name}/1", f"frost, {name}?")
            site.gateway.wait_for_request(device=name, state="leased")

        result = site.gateway.cli("queue", "cancel", "1")

        assert result.returncode == 2
        assert "2 waiting requests have the id 1" in result.stderr
        assert "device left" in result.stderr


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["nobody", "a/b", "../x", "ü ?#", "%2e"])
def test_queue_cancel_of_nothing_says_so(site: Site, name: str) -> None:
    result = site.gateway.cli("queue", "cancel", name)

    assert (result.returncode, result.stderr.startswith("mqrouter: no request ")) == (3, True), result.stderr


def test_queue_without_a_database_says_how_to_get_one(idle: Gateway) -> None:
    result = idle.cli("queue", "list")

    assert result.returncode == 69
    assert "start the daemon with `mqrouter run`" in result.stderr


# --- route -------------------------------------------------------------------------------------------


@pytest.mark.real_model
def test_route_explain_uses_no_network_and_stores_nothing(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", 1883, "http://tier.invalid/v1", text='[mqtt]\nhost = "broker.invalid"\n')
    command = ["strace", "-f", "-e", "trace=%network", "-o", str(tmp_path / "trace"), MQROUTER]
    before = sorted(gateway.folder.rglob("*"))

    result = subprocess.run(
        [*command, "route", "explain", "will there be frost?", "--json", "-c", str(gateway.config)],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["route"], found["tiers"], found["refusal"]) == ("frost", ["hub"], None)
    assert "AF_INET" not in (tmp_path / "trace").read_text(encoding="utf-8")
    assert sorted(gateway.folder.rglob("*")) == before


@pytest.mark.real_model
def test_route_explain_agrees_with_the_daemon(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("me/in")
        for number, text in enumerate(("will it freeze?", "zxcvb", "stop the pump now", "what is a cow?")):
            device.publish(f"{ASK}/same", text, reply_to="me/in", correlation=bytes([number]))
            answered = device.answer_to(bytes([number]))

            explained = json.loads(site.gateway.cli("route", "explain", text, "--json").stdout)

            assert explained["route"] == answered.properties.get("mq-route")


@pytest.mark.real_model
def test_route_explain_for_people(site: Site) -> None:
    result = site.gateway.cli("route", "explain", "--private", "will there be frost?")

    assert result.returncode == 0
    for part in ("route:    frost", "struck:   hub: private", "error private_unanswerable", "took:"):
        assert part in result.stdout
    assert site.gateway.cli("route", "explain", "  ").returncode == 2


# --- all of them -------------------------------------------------------------------------------------


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command, groups of others too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        yield (*path, name)


@pytest.mark.parametrize("command", list(_commands(cli)), ids=" ".join)
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    result = run_cli(*command, "--help")

    assert result.returncode == 0, result.stderr
    assert re.search(rf"Examples?:\n    mqrouter {' '.join(command)}", result.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_gives_a_script(shell: str) -> None:
    result = run_cli(env={"_MQROUTER_COMPLETE": f"{shell}_source"})

    assert result.returncode == 0
    assert "_MQROUTER_COMPLETE" in result.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'aiohttp', 'llama_cpp', 'numpy', 'paho', 'pydantic', 'textual', 'opentelemetry'}"
    tell = f"import atexit, sys; atexit.register(lambda: print({heavy} & sys.modules.keys()))"
    code = f"{tell}; from mqrouter.cli.main import main; main(['--help'])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.splitlines()[-1] == "set()", done


@pytest.mark.parametrize(
    "arguments", [("check",), ("run",), ("ask", "x"), ("status",), ("queue", "list"), ("route", "explain", "x")]
)
def test_broken_configuration_is_said_by_every_command(idle: Gateway, arguments: tuple[str, ...]) -> None:
    idle.config.write_text(idle.config.read_text(encoding="utf-8").replace("[retry]", "[retri]"), encoding="utf-8")

    result = idle.cli(*arguments)

    assert result.returncode == 78
    assert "mqrouter.toml:" in result.stderr and "retri" in result.stderr and "retry" in result.stderr
    assert result.stdout == ""


def test_missing_configuration_is_said(tmp_path: Path) -> None:
    result = run_cli("status", "-c", str(tmp_path / "nowhere.toml"))

    assert result.returncode == 78
    assert "nowhere.toml" in result.stderr
