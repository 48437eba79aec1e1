"""A question over a real broker gets its answer, whatever the client speaks."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Behaviour, Site

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

CONFIG = """
[[listeners]]
filter = "zigbee/+/question"
device_level = 1
answer = "zigbee/{device}/answer"

[[listeners]]
filter = "tele/+/QUESTION/#"
device_level = 1
answer = "{prefix}/tasmota/{device}"
"""
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"


def client_program(
    name: str, site: Site, *arguments: str, payload: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [name, "-h", "127.0.0.1", "-p", str(site.broker.port), *arguments],
        input=payload,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "correlation", [b"17", b"\x00\xff\x80\n\x00", bytes(range(256)) * 8], ids=["text", "binary", "2 kB"]
)
def test_correlation_comes_back_byte_for_byte(site: Site, correlation: bytes) -> None:
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", "will there be frost?", reply_to="me/in", correlation=correlation)

        answer = device.answer_on("me/in")
        assert answer.correlation == correlation
        assert answer.text == "echo: will there be frost?"
        assert answer.content_type == "text/plain"
        assert not answer.is_retained


def test_user_properties_tell_how_it_was_answered(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", "will there be frost tonight?", reply_to="me/in", correlation=b"p")

        found = device.answer_on("me/in").properties
        assert found.keys() == {"mq-id", "mq-status", "mq-route", "mq-tier", "mq-model", "mq-latency-ms"}
        assert (found["mq-status"], found["mq-route"], found["mq-tier"]) == ("ok", "frost", "hub")
        assert found["mq-model"] == "stub-model"
        assert 0 <= int(found["mq-latency-ms"]) < 10_000


def test_json_question_gets_json_answer(site: Site) -> None:
    question = {"id": "q-1", "question": "will there be frost tonight?", "priority": 3, "ttl_s": 30}
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", json.dumps(question), reply_to="me/in", correlation=b"j")

        answer = device.answer_on("me/in")
        body = answer.json
        assert answer.content_type == "application/json"
        assert body.pop("confidence") > 0.45
        assert body.pop("latency_ms") < 10_000
        assert body == {
            "id": "q-1",
            "status": "ok",
            "answer": "echo: will there be frost tonight?",
            "cached": False,
            "provisional": False,
            "truncated": False,
            "route": "frost",
            "tier": "hub",
            "model": "stub-model",
            "usage": {"prompt_tokens": 7, "completion_tokens": 6},
        }


def test_remaining_expiry_is_passed_on(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", "frost tonight?", reply_to="me/in", correlation=b"e", expiry_s=60)

        left_s = device.answer_on("me/in").expiry_s
        assert left_s is not None and 50 <= left_s <= 60


def test_answer_without_expiry_has_none(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", "frost tonight?", reply_to="me/in", correlation=b"n")

        assert device.answer_on("me/in").expiry_s is None


@pytest.mark.parametrize("version", [5, 4], ids=["5", "3.1.1"])
@pytest.mark.parametrize("end", ["old{version}", "old{version}/77"], ids=["device", "device and id"])
def test_default_answer_topic_mirrors_the_question(site: Site, version: int, end: str) -> None:
    end = end.format(version=version)
    with site.requester(version) as device:
        device.subscribe(f"{ANSWER}/{end}")

        device.publish(f"{ASK}/{end}", f"frost tonight for {end}?")

        assert device.answer_on(f"{ANSWER}/{end}").text == f"echo: frost tonight for {end}?"


def test_json_id_comes_back_without_mqtt_5(site: Site) -> None:
    with site.requester(4) as device:
        device.subscribe(f"{ANSWER}/old2")

        device.publish(f"{ASK}/old2", '{"id": 41, "question": "frost tonight?"}')
        device.publish(f"{ASK}/old2", '{"id": "forty-two", "question": "frost tonight?"}')

        assert {message.json["id"] for message in device.wait_for_number(2)} == {"41", "forty-two"}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_question_of_any_qos_is_answered(site: Site, qos: int) -> None:
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", f"frost at QoS {qos}?", reply_to="me/in", correlation=bytes([qos]), qos=qos)

        assert device.answer_on("me/in").qos == 1


@pytest.mark.parametrize(
    ("topic", "answer_topic"),
    [
        ("zigbee/barn3/question", "zigbee/barn3/answer"),
        ("tele/plug1/QUESTION", "mqrouter/farm/tasmota/plug1"),
        ("tele/plug1/QUESTION/9", "mqrouter/farm/tasmota/plug1"),
    ],
)
def test_listener_maps_existing_topics(site: Site, topic: str, answer_topic: str) -> None:
    with site.requester(4) as device:
        device.subscribe("zigbee/+/answer", "mqrouter/farm/tasmota/#")

        device.publish(topic, f"frost at {topic}?")

        assert device.answer_on(answer_topic).text == f"echo: frost at {topic}?"


@pytest.mark.parametrize("version", ["5", "311"])
def test_mosquitto_rr_gets_its_answer(site: Site, version: str) -> None:
    reply = f"{ANSWER}/rr{version}"
    result = client_program(
        "mosquitto_rr", site, "-V", version, "-t", f"{ASK}/rr{version}", "-e", reply, "-m", "frost for rr?", "-W", "15"
    )

    assert (result.stdout, result.returncode) == ("echo: frost for rr?\n", 0), result.stderr


def test_mosquitto_rr_gets_its_error(site: Site) -> None:
    arguments = (
        "-V",
        "5",
        "-t",
        f"{ASK}/rr",
        "-e",
        "rr/in",
        "-D",
        "publish",
        "correlation-data",
        "x",
        "-m",
        "",
        "-W",
        "15",
    )
    result = client_program("mosquitto_rr", site, *arguments)

    assert result.stdout.startswith("error bad_request: "), result.stderr


@pytest.mark.parametrize("version", ["5", "311"])
def test_mosquitto_pub_and_sub_work(site: Site, version: str) -> None:
    topic = f"{ANSWER}/pub{version}"
    with ThreadPoolExecutor(1) as pool:
        listening = len(site.broker.log.lines)
        subscriber = pool.submit(
            client_program, "mosquitto_sub", site, "-V", version, "-t", topic, "-C", "1", "-W", "15"
        )
        site.broker.log.wait_for_line(lambda line: f"{topic} (QoS 0)" in line, after=listening)

        published = client_program(
            "mosquitto_pub", site, "-V", version, "-t", f"{ASK}/pub{version}", "-m", "frost by pub?"
        )

        assert published.returncode == 0, published.stderr
        assert subscriber.result().stdout == "echo: frost by pub?\n"


def test_same_question_twice_is_asked_upstream_once(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/probe", "frost, and again frost?", reply_to="me/in", correlation=b"twice")
        answer = device.answer_to(b"twice")
        site.gateway.wait_for_event("request.finished", request_id=answer.properties["mq-id"])

        device.publish(f"{ASK}/probe", "frost, and again frost?", reply_to="me/in", correlation=b"twice")

        first, second = device.wait_for_number(2)
        assert first.payload == second.payload
        assert first.properties["mq-id"] == second.properties["mq-id"]
        assert len(site.tier.asked("frost, and again frost?")) == 1


def test_same_question_asked_while_it_is_answered_gets_one_answer(site: Site) -> None:
    site.tier.hold()
    with site.requester() as device:
        device.subscribe("me/in")
        for _ in range(3):
            device.publish(f"{ASK}/probe", "frost thrice?", reply_to="me/in", correlation=b"thrice")
        site.tier.wait_for_calls("frost thrice?")
        site.tier.release()
        device.answer_on("me/in")

        device.publish(f"{ASK}/probe", "last", reply_to="me/in", correlation=b"last")

        device.wait_for(lambda message: message.correlation == b"last")
        assert [message.correlation for message in device.messages] == [b"thrice", b"last"]
        assert len(site.tier.asked("frost thrice?")) == 1


def test_same_text_without_a_name_is_another_question(site: Site) -> None:
    with site.requester(4) as device:
        device.subscribe(f"{ANSWER}/nameless")

        for _ in range(3):
            device.publish(f"{ASK}/nameless", "frost without a name?")

        assert len(device.wait_for_number(3)) == 3
        assert len(site.tier.asked("frost without a name?")) == 3


def test_equal_correlations_of_two_devices_are_kept_apart(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("a/in", "b/in")

        device.publish(f"{ASK}/a", "frost at a?", reply_to="a/in", correlation=b"1")
        device.publish(f"{ASK}/b", "frost at b?", reply_to="b/in", correlation=b"1")

        assert device.answer_on("a/in").text == "echo: frost at a?"
        assert device.answer_on("b/in").text == "echo: frost at b?"


def test_retained_question_of_earlier_is_ignored(site: Site) -> None:
    topic = f"{ASK}/kept"
    with site.requester() as device:
        device.subscribe(f"{ANSWER}/#")
        device.publish(topic, "frost, retained?", is_retained=True)
        device.answer_on(f"{ANSWER}/kept")  # live it is a question like any other

        site.gateway.stop()
        site.gateway.start()
        device.publish(f"{ASK}/after", "frost after?")

        device.answer_on(f"{ANSWER}/after")
        assert len(site.tier.asked("frost, retained?")) == 1
        device.publish(topic, "", is_retained=True)


def test_broken_characters_of_a_tier_do_not_break_the_daemon(site: Site) -> None:
    halves = b"".join(
        b'data: {"model": "m\\ud800", "choices": [{"delta": {"content": "%s"}}]}\n\n' % half
        for half in (b"snow \\ud83c", b"\\udf28 and half \\ud83c")
    )
    site.tier.script = lambda _call: Behaviour(text=".", raw_chunks=[halves], model="m\ud800")
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", '{"question": "frost in halves?"}', reply_to="me/in", correlation=b"h")

        assert (
            device.answer_on("me/in").json["answer"] == "snow \N{CLOUD WITH SNOW} and half \N{REPLACEMENT CHARACTER}."
        )


def test_many_devices_get_their_own_answers(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("crowd/#")
        for number in range(100):
            name = str(number).encode()
            device.publish(f"{ASK}/d{number % 7}", f"frost {number}?", reply_to=f"crowd/{number}", correlation=name)

        answers = device.wait_for_number(100)

        assert {(m.topic, m.text, m.correlation) for m in answers} == {
            (f"crowd/{number}", f"echo: frost {number}?", str(number).encode()) for number in range(100)
        }


def test_requester_that_was_absent_gets_its_answer(site: Site) -> None:
    with site.requester() as sender:
        sender.publish(f"{ASK}/probe", "frost while I was out?", reply_to="late/in", correlation=b"late")
    site.gateway.wait_for_event("deliver.not_taken", why="no_subscriber")

    with site.requester() as receiver:
        receiver.subscribe("late/in")

        assert receiver.answer_on("late/in").correlation == b"late"


def test_burst_keeps_within_the_window_of_the_broker(site: Site) -> None:
    with site.requester() as device:
        device.subscribe("burst/in")
        for number in range(60):
            device.publish(f"{ASK}/burst", f"frost burst {number}?", reply_to="burst/in", correlation=bytes([number]))

        assert {m.correlation for m in device.wait_for_number(60)} == {bytes([number]) for number in range(60)}
    assert not site.gateway.events("mqtt.connection_lost")


def test_message_that_paho_would_refuse_stops_nobody(site: Site) -> None:
    """U+FEFF is allowed in an MQTT string; raising on it would raise again at every redelivery, for ever."""
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/odd", "any frost?", reply_to="me/in", correlation=b"1", content_type="text/plain;\ufeff")
        device.publish(f"{ASK}/probe", "any rain?", reply_to="me/in", correlation=b"2")

        assert device.answer_to(b"1").text == "echo: any frost?"
        assert device.answer_to(b"2").text == "echo: any rain?"


def test_odd_model_name_of_a_tier_blocks_no_answer(site: Site) -> None:
    """mosquitto closes the connection over a control character in a user property."""
    site.tier.script = lambda _call: Behaviour(model="qwen\n2.5\ufffe")
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/probe", "any hail?", reply_to="me/in", correlation=b"odd")

        assert device.answer_to(b"odd").properties["mq-model"] == "qwen2.5"


def test_python_example_of_the_readme_asks_and_prints_nothing_but_the_answer(site: Site) -> None:
    (example,) = re.findall(r"```python\n(import time.*?)```", README, re.DOTALL)
    assert "1883" in example
    code = example.replace("1883", str(site.broker.port))
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("echo: is pH 7.9 normal for the trough?\n", "")


def test_question_outlives_the_command_that_asked_it(site: Site) -> None:
    site.tier.hold()
    asked = site.gateway.cli("ask", "--ttl", "900", "--timeout", "0.5", "will there be frost at noon?")
    assert asked.returncode == 75, asked
    row = site.gateway.wait_for_request(device="cli", state="leased")
    assert 800 < row["expires_in_s"] <= 900
    site.tier.release()
    site.gateway.wait_for_request(id=row["id"], tier="hub")
