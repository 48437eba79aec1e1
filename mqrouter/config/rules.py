"""What must hold between keys, beyond the type and range of each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mqrouter.config.keys import Finding, did_you_mean, listed
from mqrouter.config.toml_positions import KeyPath
from mqrouter.config.words import strictly
from mqrouter.core.contact_data import is_region
from mqrouter.core.topics import why_not_a_filter
from mqrouter.settings import (
    Abstain,
    Gateway,
    Listener,
    Mqtt,
    OllamaTier,
    OpenAiTier,
    Privacy,
    Route,
    Routing,
    Settings,
    UpstreamTier,
    WhenOffline,
)

SectionT = TypeVar("SectionT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Understood:
    """What is valid of each section; None, or left out, where nothing is: names are not looked up there.

    `dropped` are the keys that had to be left out: what is found there is about a default nobody meant.
    Names and kinds are those written down, so that a broken tier is not also an unknown one.
    """

    gateway: Gateway | None
    mqtt: Mqtt | None
    listeners: dict[int, Listener]
    strategy: str | None
    abstain: Abstain | None
    privacy: Privacy | None
    routes: dict[str, Route]
    has_routes: bool
    tier_kinds: dict[str, object] | None
    upstream_tiers: dict[str, UpstreamTier]
    prompt_names: frozenset[str] | None
    dropped: frozenset[KeyPath]

    def has_dropped(self, path: KeyPath) -> bool:
        return any(path[: len(key)] == key for key in self.dropped)


def understood(data: dict[str, Any]) -> Understood:
    """Returns what is valid of the merged configuration, whatever else is broken."""
    dropped: set[KeyPath] = set()
    listeners, routing = data.get("listeners"), _table(data, "routing")
    plain_routing = _part(Routing, {key: routing[key] for key in routing if key != "abstain"}, ("routing",), dropped)
    return Understood(
        gateway=_part(Gateway, data.get("gateway", {}), ("gateway",), dropped),
        mqtt=_part(Mqtt, data.get("mqtt", {}), ("mqtt",), dropped),
        listeners=_parts(Listener, enumerate(listeners if isinstance(listeners, list) else []), "listeners", dropped),
        strategy=None if plain_routing is None else plain_routing.strategy,
        abstain=_part(Abstain, routing.get("abstain", {}), ("routing", "abstain"), dropped),
        privacy=_part(Privacy, data.get("privacy", {}), ("privacy",), dropped),
        routes=_parts(Route, _table(data, "routes").items(), "routes", dropped),
        has_routes=bool(data.get("routes")),
        tier_kinds=_tier_kinds(data),
        upstream_tiers=_upstream_tiers(data, dropped),
        prompt_names=frozenset(_table(data, "prompts")) if isinstance(data.get("prompts", {}), dict) else None,
        dropped=frozenset(dropped),
    )


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _parts(
    section: type[SectionT], items: Iterable[tuple[Any, object]], name: str, dropped: set[KeyPath]
) -> dict[Any, SectionT]:
    parts = ((key, _part(section, value, (name, key), dropped)) for key, value in items)
    return {key: part for key, part in parts if part is not None}


def _part(section: type[SectionT], data: object, path: KeyPath, dropped: set[KeyPath]) -> SectionT | None:
    """Returns the section, without its broken keys if need be, which are added to `dropped`."""
    try:
        return strictly(section, data)
    except ValidationError as error:
        broken = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
    if not isinstance(data, dict) or not broken:
        return None
    dropped |= {(*path, key) for key in broken}
    try:
        return strictly(section, {key: value for key, value in data.items() if key not in broken})
    except ValidationError:
        return None


def _tier_kinds(data: dict[str, Any]) -> dict[str, object] | None:
    if "tiers" not in data:
        return {name: tier.kind for name, tier in Settings().tiers.items()}
    if not isinstance(data["tiers"], dict):
        return None
    return {name: tier.get("kind") if isinstance(tier, dict) else None for name, tier in data["tiers"].items()}


def _upstream_tiers(data: dict[str, Any], dropped: set[KeyPath]) -> dict[str, UpstreamTier]:
    tiers = [(name, tier) for name, tier in _table(data, "tiers").items() if isinstance(tier, dict)]
    found: dict[str, UpstreamTier] = {}
    found |= _parts(OpenAiTier, [pair for pair in tiers if pair[1].get("kind") == "openai"], "tiers", dropped)
    found |= _parts(OllamaTier, [pair for pair in tiers if pair[1].get("kind") == "ollama"], "tiers", dropped)
    return found


def reference_findings(parts: Understood, strategies: Collection[str]) -> Iterator[Finding]:
    """Yields each name that leads nowhere. Needs every file: the name may stand in the one that is broken."""
    if not parts.has_routes:
        yield Finding(("routes",), "there are none; add a [routes.NAME] table with examples, or include a file")
    if parts.strategy is not None:
        yield from _missing(("routing", "strategy"), "strategy", parts.strategy, strategies)
    for index, listener in parts.listeners.items():
        if listener.strategy is not None:
            yield from _missing(("listeners", index, "strategy"), "strategy", listener.strategy, strategies)
    if parts.abstain is not None:
        yield from _target_findings(("routing", "abstain"), parts.abstain, parts)
    for name, route in parts.routes.items():
        yield from _target_findings(("routes", name), route, parts)


NEED_A_LOCAL_TIER = (WhenOffline.ANSWER_LOCALLY, WhenOffline.ANSWER_THEN_REFINE)


def _target_findings(path: KeyPath, target: Route | Abstain, parts: Understood) -> Iterator[Finding]:
    for index, tier in enumerate(target.to):
        yield from _missing((*path, "to", index), "tier", tier, parts.tier_kinds)
    if target.prompt is not None:
        yield from _missing((*path, "prompt"), "prompt", target.prompt, parts.prompt_names)
    if target.when_offline in NEED_A_LOCAL_TIER and not _can_answer_locally(parts):
        message = f'"{target.when_offline}" needs a tier of kind "local", and there is none'
        yield Finding((*path, "when_offline"), message)


def _can_answer_locally(parts: Understood) -> bool:
    """A tier whose kind cannot be told gets the benefit of the doubt."""
    return parts.tier_kinds is None or any(kind not in ("openai", "ollama") for kind in parts.tier_kinds.values())


def _missing(path: KeyPath, noun: str, name: str, known: Collection[str] | None) -> Iterator[Finding]:
    """Yields a finding where the name is not known; without known names there is nothing to compare with."""
    if known is None or name in known:
        return
    remedy = did_you_mean(name, known) or (f"; known: {listed(sorted(known))}" if known else "; none is defined")
    yield Finding(path, f'there is no {noun} "{name}"{remedy}')


def local_findings(parts: Understood) -> Iterator[Finding]:
    """Yields what is wrong within one section, and examples that two routes claim."""
    if parts.mqtt is not None:
        yield from _mqtt_findings(parts.mqtt)
    if parts.privacy is not None:
        yield from _privacy_findings(parts.privacy)
    yield from _example_findings(parts.routes)
    for index, listener in parts.listeners.items():
        yield from _listener_findings(("listeners", index), listener, _request_filters(parts), _prefix(parts))


def _mqtt_findings(mqtt: Mqtt) -> Iterator[Finding]:
    yield from _found(("mqtt", "prefix"), _why_not_a_prefix(mqtt.prefix))
    yield from _found(("mqtt", "prefix"), _stray_placeholder(mqtt.prefix, ("gateway",)))
    yield from _found(("mqtt", "client_id"), _stray_placeholder(mqtt.client_id, ("gateway",)))
    yield from _found(("mqtt", "home_assistant", "prefix"), _why_not_a_topic(mqtt.home_assistant.prefix))
    for index, topic_filter in enumerate(mqtt.response_topics):
        yield from _found(("mqtt", "response_topics", index), why_not_a_filter(topic_filter))


def _privacy_findings(privacy: Privacy) -> Iterator[Finding]:
    for index, topic_filter in enumerate(privacy.topics):
        yield from _found(("privacy", "topics", index), why_not_a_filter(topic_filter))
    if privacy.region is not None and not is_region(privacy.region):
        message = f"there is no country {privacy.region}: give the two letters of ISO 3166, as DE or US"
        yield Finding(("privacy", "region"), message)


def _found(path: KeyPath, message: str | None) -> Iterator[Finding]:
    if message is not None:
        yield Finding(path, message)


def _why_not_a_prefix(prefix: str) -> str | None:
    if prefix.startswith("/") or prefix.endswith("/"):
        return "must not begin or end with /: the topics below it would have an empty level"
    if "//" in prefix:
        return "must not have // in it: the level between would be empty"
    return _why_not_a_topic(prefix)


def _why_not_a_topic(topic: str) -> str | None:
    if topic.startswith("$"):
        return "must not begin with $: such topics belong to the broker"
    if any(char in topic for char in "+#\0"):
        return "must be a plain topic: no +, no #, no NUL"
    return None


def _stray_placeholder(template: str, known: tuple[str, ...]) -> str | None:
    names = [piece.partition("}")[0] for piece in template.split("{")[1:]]
    stray = next((name for name in names if name not in known), None)
    if stray is None:
        return None
    return f"{{{stray}}} is not replaced by anything; known: " + ", ".join(f"{{{name}}}" for name in known)


def _listener_findings(
    path: KeyPath, listener: Listener, requests: dict[str, KeyPath], prefix: str
) -> Iterator[Finding]:
    wrong = _why_not_a_listener_filter(listener.filter)
    yield from _found((*path, "filter"), wrong)
    levels = listener.filter.count("/") + 1
    if wrong is None and listener.device_level >= levels:
        message = f"the filter has {levels} levels, counted from 0: must be at most {levels - 1}"
        yield Finding((*path, "device_level"), message)
    yield from _answer_findings((*path, "answer"), listener.answer, requests, prefix)


def _why_not_a_listener_filter(topic_filter: str) -> str | None:
    if topic_filter.startswith("$share/"):
        return "shared subscriptions are not supported: the levels of the topic would be counted wrongly"
    return why_not_a_filter(topic_filter)


def _answer_findings(path: KeyPath, answer: str, requests: dict[str, KeyPath], prefix: str) -> Iterator[Finding]:
    wrong = _why_not_a_topic(answer) or _stray_placeholder(answer, ("device", "prefix"))
    yield from _found(path, wrong)
    if wrong is not None:
        return
    for topic_filter, where in requests.items():
        if _can_meet(topic_filter, answer.replace("{prefix}", prefix)):
            message = f'an answer sent here would come back as a request: it matches the filter "{topic_filter}"'
            yield Finding(path, message, see=where)


def _prefix(parts: Understood) -> str:
    template = (parts.mqtt or Mqtt()).prefix
    return template.replace("{gateway}", (parts.gateway or Gateway()).name)


def _request_filters(parts: Understood) -> dict[str, KeyPath]:
    """Returns every filter this gateway subscribes to for requests, and the key that sets it."""
    own: dict[str, KeyPath] = {f"{_prefix(parts)}/ask/#": ("mqtt", "prefix")}
    return own | {listener.filter: ("listeners", index, "filter") for index, listener in parts.listeners.items()}


def _can_meet(topic_filter: str, answer: str) -> bool:
    """True where some device's answer, with or without a request id appended, is in the filter."""
    return any(_overlaps(topic_filter.split("/"), f"{answer}{tail}".split("/")) for tail in ("", "/+"))


def _overlaps(filter_levels: list[str], answer_levels: list[str]) -> bool:
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(answer_levels) or not _level_meets(level, answer_levels[index]):
            return False
    return len(filter_levels) == len(answer_levels)


def _level_meets(level: str, answer_level: str) -> bool:
    if "+" in (level, answer_level):
        return True
    before, device, after = answer_level.partition("{device}")
    if not device:
        return level == answer_level
    return len(level) > len(before + after) and level.startswith(before) and level.endswith(after)


def _example_findings(routes: dict[str, Route]) -> Iterator[Finding]:
    """An example of two routes teaches neither."""
    first: dict[str, KeyPath] = {}
    for name, route in routes.items():
        for index, example in enumerate(route.examples):
            path = ("routes", name, "examples", index)
            other = first.setdefault(" ".join(example.casefold().split()), path)
            if other[1] != name:
                yield Finding(path, f'is an example of the route "{other[1]}" too; keep it in one', see=other)
