"""MQTT topics and filters: matching, checking, and what a listener makes of a topic (MQTT 5, section 4.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MAX_TOPIC_BYTES = 65_535
NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
"""MQTT 5, 1.5.4, lets a receiver close the connection over one; mosquitto does."""
UNPUBLISHABLE = re.compile(f"[+#\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff{NONCHARACTERS}]")
GATEWAYS_OWN = ("status", "info", "stats", "event/#", "cmd/#", "progress/#", "feedback/#")


def matches(topic_filter: str, topic: str) -> bool:
    """True where `topic` is in `topic_filter`; wildcards do not reach into $-topics."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    for position, level in enumerate(filter_levels):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(levels) == len(filter_levels)


def is_publishable(topic: str) -> bool:
    """True for a name one may publish to: not empty, no wildcard, no NUL or control character, not $-reserved."""
    return (
        0 < len(topic.encode("utf-8", "surrogatepass")) <= MAX_TOPIC_BYTES
        and not topic.startswith("$")
        and not UNPUBLISHABLE.search(topic)
    )


def why_not_a_filter(topic_filter: str) -> str | None:
    """Returns what is wrong with a topic filter, or None."""
    levels = topic_filter.split("/")
    if not topic_filter:
        return "a topic filter must not be empty"
    if "\0" in topic_filter:
        return "a topic filter must not contain NUL"
    if any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]:
        return "# must be a level of its own, and the last one"
    if any("+" in level and level != "+" for level in levels):
        return "+ must be a level of its own"
    return None


@dataclass(frozen=True, slots=True)
class TopicRule:
    """How one subscribed filter is read: `device_level` names the device, one further level the id.

    A level that the filter spells out is no id: every topic of `farm/+/question` ends with it.
    """

    filter: str
    device_level: int
    answer: str
    strategy: str | None = None
    """Decides the questions that come in here; None for the gateway's own choice."""

    def device_of(self, topic: str) -> str:
        levels = topic.split("/")
        return levels[self.device_level] if self.device_level < len(levels) else ""

    def id_of(self, topic: str) -> str | None:
        """Returns what follows the device's level, as far as the filter leaves it open: one level, or all after #."""
        levels, position = topic.split("/"), self.device_level + 1
        if not self._is_open(position) or (len(levels) > position + 1 and not self.filter.endswith("#")):
            return None
        return "/".join(levels[position:]) or None

    def answered_device(self, topic: str) -> str | None:
        """Returns the device that has its answers at `topic` by this rule; None where there is none."""
        before, placeholder, after = self.answer.partition("{device}")
        found = re.match(f"{re.escape(before)}([^/]*){re.escape(after)}(/|$)", topic) if placeholder else None
        return found and found[1]

    def _is_open(self, position: int) -> bool:
        """True where the filter has a wildcard for this level."""
        levels = self.filter.split("/")
        return levels[min(position, len(levels) - 1)] in ("+", "#")

    def answer_topic(self, topic: str) -> str:
        base = self.answer.replace("{device}", self.device_of(topic))
        request_id = self.id_of(topic)
        return base if request_id is None else f"{base}/{request_id}"


@dataclass(frozen=True, slots=True)
class TopicMap:
    """Every request topic of this gateway, and the addresses it may answer to."""

    prefix: str
    rules: tuple[TopicRule, ...]
    response_topics: tuple[str, ...]
    reserved: tuple[str, ...] = ()
    """Filters of topics, beyond the gateway's own, that no answer goes to."""

    @property
    def feedback(self) -> TopicRule:
        """How verdicts come in: PREFIX/feedback/DEVICE[/ID]; nothing is answered there."""
        return TopicRule(f"{self.prefix}/feedback/#", len(self.prefix.split("/")) + 1, "")

    def is_feedback(self, topic: str | None) -> bool:
        return topic is not None and topic.startswith(f"{self.prefix}/feedback/")

    def progress_topic(self, topic: str) -> str | None:
        """Returns where the asker of a question at `topic` hears of its progress; None where nobody may publish there.

        It is made of the prefix, the device and the id, whatever response topic was named.
        """
        rule = self.rule_for(topic)
        if rule is None or not rule.device_of(topic):
            return None
        found = TopicRule(rule.filter, rule.device_level, f"{self.prefix}/progress/{{device}}").answer_topic(topic)
        return found if self.why_not_own(found) is None else None

    def rule_for(self, topic: str) -> TopicRule | None:
        return next((rule for rule in self.rules if matches(rule.filter, topic)), None)

    def why_not_answerable(self, topic: str, device: str) -> str | None:
        """Returns why the requester `device` may not have its answer at `topic`, or None."""
        why = self.why_not_own(topic)
        if why is None and any(rule.answered_device(topic) not in (None, device) for rule in self.rules):
            return "a response topic must not be another device's answer topic"
        if why is None and any(matches(f"{self.prefix}/{name}", topic) for name in GATEWAYS_OWN):
            return "a response topic must not be one of the gateway's own topics, such as its status"
        if why is None and any(matches(reserved, topic) for reserved in self.reserved):
            return "a response topic must not be one of Home Assistant's"
        if why is None and not any(matches(allowed, topic) for allowed in self.response_topics):
            return "this gateway does not answer to that response topic (mqtt.response_topics)"
        return why

    def why_not_own(self, topic: str) -> str | None:
        """Returns why `topic`, made by one of the rules, may not receive an answer; their topics need no permission."""
        if not is_publishable(topic):
            return "a response topic must be a plain topic name: no wildcards, no control characters, no leading $"
        if self.rule_for(topic) is not None:
            return "a response topic must not be a request topic"
        return None


def build_topic_map(
    prefix: str,
    listeners: tuple[tuple[str, int, str], ...],
    response_topics: tuple[str, ...],
    strategies: Mapping[str, str | None] = MappingProxyType({}),
    reserved: tuple[str, ...] = (),
) -> TopicMap:
    """Returns the map of the gateway's own ask topics and the configured (filter, device level, answer) listeners.

    `strategies` are the listeners' own, by filter.
    """
    own = TopicRule(f"{prefix}/ask/#", len(prefix.split("/")) + 1, f"{prefix}/answer/{{device}}")
    others = (
        TopicRule(flt, level, answer.replace("{prefix}", prefix), strategies.get(flt))
        for flt, level, answer in listeners
    )
    return TopicMap(prefix, (own, *others), response_topics, reserved)
