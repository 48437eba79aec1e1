"""While a tier is away questions wait on disk; the next tier, or its return, answers them."""

import json
from collections.abc import Iterator

import pytest
from harness import Behaviour, Site, StubTier, running_site

pytest_plugins = ["site_fixtures"]
pytestmark = pytest.mark.real_model

ASK, ANSWER = "mqrouter/farm/ask", "mqrouter/farm/answer"
HUB_DOWN = "cannot connect"
ROUTES = """
[routes.frost]
examples = ["will there be frost tonight?", "is it going to freeze this night?"]
to = ["hub"]

[routes.spared]
examples = ["which fungus is on my tomato leaves?", "brown spots on the potato plants"]
to = ["hub", "spare"]
"""


@pytest.fixture(scope="module")
def spare() -> Iterator[StubTier]:
    tier = StubTier().start()
    yield tier
    tier.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory, spare: StubTier) -> Iterator[Site]:
    text = f'[tiers.spare]\nkind = "openai"\nurl = "{spare.url}"\nmodel = "spare"\n[tiers.hub]\nconcurrency = 1\n'
    with running_site(tmp_path_factory.mktemp("site"), text=text, routes=ROUTES) as site:
        yield site


@pytest.fixture
def outage(site: Site) -> Iterator[Site]:
    """The hub refuses connections; the test may bring it back."""
    site.tier.stop()
    yield site
    site.tier.stop()
    site.tier.start()
    _wait_until_closed(site)


def _wait_until_closed(site: Site) -> None:
    """The breaker is closed again: a question has gone through."""
    with site.requester() as device:
        device.subscribe("well/in")
        device.publish(f"{ASK}/well", "frost once more?", reply_to="well/in")
        device.answer_on("well/in")


def test_question_waits_where_operators_see_it(outage: Site) -> None:
    with outage.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/w1", "frost while away?", reply_to="me/in", correlation=b"w")
        outage.gateway.wait_for_event("tier.breaker_changed", tier="hub", new="open")
        outage.gateway.wait_for_request(device="w1", state="pending")

        listed = json.loads(outage.gateway.cli("queue", "list", "--json", "--device", "w1").stdout)
        status = json.loads(outage.gateway.cli("status", "--json").stdout)

        assert [(row["state"], row["route"], row["waiting_for"], row["attempts"]) for row in listed] == [
            ("pending", "frost", "hub", 0)
        ]
        assert status["requests"]["pending"] == 1
        assert status["tiers"]["hub"]["breaker"] == "open"
        assert HUB_DOWN in status["tiers"]["hub"]["reason"]
        assert device.messages == []

        outage.tier.start()

        assert device.answer_on("me/in").correlation == b"w"
        assert len(outage.tier.asked("frost while away?")) == 1


def test_backlog_drains_most_urgent_first(outage: Site) -> None:
    with outage.requester() as device:
        device.subscribe("me/in")
        for number, priority in enumerate([0, 9, 5, 0, 9]):
            body = {"question": f"frost in line {number}?", "priority": priority}
            device.publish(f"{ASK}/line{number}", json.dumps(body), reply_to="me/in", correlation=bytes([number]))
            outage.gateway.wait_for_request(device=f"line{number}", state="pending")

        outage.tier.start()

        device.wait_for_number(5)
        asked = [int(call.question[-2]) for call in outage.tier.asked("frost in line")]
        assert asked == [1, 4, 2, 0, 3]


def test_next_tier_answers_before_anybody_waits(outage: Site, spare: StubTier) -> None:
    with outage.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/sick", "a fungus on the tomato leaves?", reply_to="me/in", correlation=b"s")

        assert device.answer_on("me/in").properties["mq-tier"] == "spare"
        assert len(spare.asked("a fungus on the tomato leaves?")) == 1


def test_every_attempt_carries_the_same_key(site: Site) -> None:
    failures = iter([503, 500, 429])
    site.tier.script = lambda _call: Behaviour(status=next(failures, 200))
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/stubborn", "frost at the fourth try?", reply_to="me/in", correlation=b"4")

        answer = device.answer_on("me/in")
        calls = site.tier.asked("frost at the fourth try?")
        assert len(calls) == 4
        assert {call.key for call in calls} == {answer.properties["mq-id"]}


def test_answer_that_broke_off_is_asked_for_again(site: Site) -> None:
    cuts = iter([True])
    site.tier.script = lambda _call: Behaviour(text="one two three", is_cut=next(cuts, False))
    with site.requester() as device:
        device.subscribe("me/in")

        device.publish(f"{ASK}/cut", "frost cut short?", reply_to="me/in", correlation=b"c")

        assert device.answer_on("me/in").text == "one two three"
        assert len(site.tier.asked("frost cut short?")) == 2


def test_tier_that_refuses_the_key_keeps_the_question_waiting(site: Site) -> None:
    site.tier.script = lambda _call: Behaviour(status=401)
    site.tier.models_status = 401
    with site.requester() as device:
        device.subscribe("me/in")
        device.publish(f"{ASK}/key", "frost without a key?", reply_to="me/in", correlation=b"k")
        event = site.gateway.wait_for_event("forward.tier_refused_credentials")
        assert event["error"] == "HTTP 401 Unauthorized"
        site.gateway.wait_for_request(device="key", state="pending", attempts=0)
        assert "HTTP 401 Unauthorized" in site.gateway.cli("status").stdout

        site.tier.reset()

        assert device.answer_on("me/in").error_code is None


def test_question_expires_while_it_waits(outage: Site) -> None:
    with outage.requester() as device:
        device.subscribe("me/in")
        body = {"question": "frost soon?", "ttl_s": 0.5}
        device.publish(f"{ASK}/brief", json.dumps(body), reply_to="me/in", correlation=b"b")
        outage.gateway.wait_for_request(device="brief", state="pending")

        answer = device.answer_on("me/in")

        assert (answer.error_code, answer.json["error"]["retryable"]) == ("expired", True)
        assert outage.gateway.wait_for_request(device="brief")["state"] == "expired"
