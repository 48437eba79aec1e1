"""An order is understood or refused; no other topic is taken for one."""

import pytest
from fakes import PREFIX, incoming

from mqrouter.core.commands import MAX_BYTES, Action, CommandTopics, Target, action_of, id_of, read_payload
from mqrouter.core.topics import build_topic_map, matches
from mqrouter.errors import RequestError

TOPICS = CommandTopics(PREFIX)


@pytest.mark.parametrize(
    ("payload", "action", "order_id"),
    [
        ("pause", Action.PAUSE, None),
        (" RESUME\n", Action.RESUME, None),
        ("\ufeffpause", Action.PAUSE, None),
        ('{"action": "pause", "id": 7}', Action.PAUSE, "7"),
        ('{"action": "resume", "id": "a", "more": 1}', Action.RESUME, "a"),
    ],
)
def test_order_is_understood(payload: str, action: Action, order_id: str | None) -> None:
    value = read_payload(incoming(payload))
    assert (action_of(value), id_of(value)) == (action, order_id)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"stop", b"{", b"[]", b"{}", b'{"action": 1}', b'{"action":"Pause"}', b"x" * (MAX_BYTES + 1)],
)
def test_what_is_no_order_is_refused(payload: bytes) -> None:
    with pytest.raises(RequestError):
        action_of(read_payload(incoming(payload)))


@pytest.mark.parametrize(("rest", "tier"), [("all", None), ("tier/hub", "hub")])
def test_topic_names_the_tier_that_is_meant(rest: str, tier: str | None) -> None:
    topic = f"{PREFIX}/cmd/{rest}"
    assert TOPICS.has(topic)
    assert TOPICS.target(topic) == Target(tier=tier)
    assert TOPICS.of(tier) == topic
    assert any(matches(name, topic) for name in TOPICS.filters)


def test_topic_names_the_route_that_is_meant() -> None:
    topic = f"{PREFIX}/cmd/route/frost"
    assert TOPICS.target(topic) == Target(route="frost")
    assert any(matches(name, topic) for name in TOPICS.filters)


@pytest.mark.parametrize(
    "rest", ["", "route", "route/", "route/a/b", "result", "tier", "tier/", "tier/a/b", "All", "all/x"]
)
def test_other_topics_take_no_orders(rest: str) -> None:
    with pytest.raises(RequestError):
        TOPICS.target(f"{PREFIX}/cmd/{rest}")


@pytest.mark.parametrize("topic", [None, f"{PREFIX}/ask/cmd", f"{PREFIX}/cmds", f"{PREFIX}/cmds/all", "cmd/all"])
def test_topics_apart_from_orders_are_left_alone(topic: str | None) -> None:
    assert not TOPICS.has(topic)


@pytest.mark.parametrize("topic", [f"{PREFIX}/cmd", f"{PREFIX}/cmd/", f"{PREFIX}/cmd/foo", f"{PREFIX}/cmd/tier/a/b"])
def test_mistaken_topic_is_heard_and_told_which_there_are(topic: str) -> None:
    assert TOPICS.has(topic) and any(matches(name, topic) for name in TOPICS.filters)
    with pytest.raises(RequestError, match="cmd/all, cmd/tier/NAME or cmd/route/NAME"):
        TOPICS.target(topic)


@pytest.mark.parametrize("rest", ["all", "tier/hub", "result"])
def test_no_response_topic_is_one_for_orders(rest: str) -> None:
    assert build_topic_map(PREFIX, (), ("#",)).why_not_answerable(f"{PREFIX}/cmd/{rest}", "d1") is not None


def test_no_response_topic_is_a_reserved_one() -> None:
    free, reserved = (build_topic_map(PREFIX, (), ("#",), reserved=names) for names in ((), ("homeassistant/#",)))
    assert free.why_not_answerable("homeassistant/switch/x/set", "d1") is None
    assert reserved.why_not_answerable("homeassistant/switch/x/set", "d1") is not None
