"""Verdicts on answers: what a message says, and what verdicts teach."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mqrouter.core.answer_signals import Evidence
from mqrouter.core.decode import BOM, MAX_ID_CHARS
from mqrouter.core.json_fields import identifier, parse_object, string
from mqrouter.core.request import Incoming, RequestId
from mqrouter.core.states import OPEN
from mqrouter.core.topics import TopicMap
from mqrouter.errors import ErrorCode, RequestError

MAX_NOTE_CHARS = 500
MAX_ROUTE_CHARS = 64
MAX_BYTES = 4096
"""Of a message: a verdict is short."""
LEAST_CAP, CAP_SHARE = 3, 0.10


class Verdict(StrEnum):
    GOOD = "good"
    BAD = "bad"
    WRONG_ROUTE = "wrong_route"


class Source(StrEnum):
    """Who judges: the device that asked, or somebody at the gateway."""

    MQTT = "mqtt"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Feedback:
    """A verdict on one request; `request_id` is the gateway's name for it or the requester's own."""

    request_id: str
    verdict: Verdict
    source: Source
    device: str | None
    """Only a request of this device is meant; None for an operator, who may judge all."""
    right_route: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict as it is stored, beside the request it is about."""

    request_id: RequestId
    device: str
    source: Source
    verdict: Verdict
    route: str | None
    """The one decided."""
    is_by_text: bool
    """The route was chosen for what the question says, not because it was asked for or by its session."""
    right_route: str | None
    text: str


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One verdict on an answer of this device's model, beside what the model thought of it."""

    request_id: RequestId
    device: str
    source: Source
    is_good: bool
    model: str
    """Fingerprint of the model's file."""
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled questions that verdicts came to."""

    pairs: tuple[tuple[str, str], ...]
    """(question, route), each question once."""
    labelled: int
    """Those there were before the cap on a device's weight."""


def decode_feedback(incoming: Incoming, topics: TopicMap, routes: Collection[str], max_depth: int) -> Feedback:
    """Returns what a device says about one of its answers. Raises RequestError for what cannot be understood."""
    rule = topics.feedback
    device = rule.device_of(incoming.topic) if incoming.topic is not None else ""
    if incoming.topic is None or not device:
        raise RequestError(ErrorCode.BAD_REQUEST, "the topic names no device")
    if incoming.cut_from_bytes is not None or len(incoming.payload) > MAX_BYTES:
        raise RequestError(ErrorCode.TOO_LARGE, f"a verdict has at most {MAX_BYTES} bytes")
    try:
        text = incoming.payload.removeprefix(BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RequestError(ErrorCode.NOT_UTF8, f"byte {error.start} is not UTF-8") from error
    value = parse_object(text, max_depth) if text.startswith("{") else {"verdict": text.lower()}
    request_id = identifier(value, "id", MAX_ID_CHARS) or rule.id_of(incoming.topic)
    if request_id is None:
        raise RequestError(ErrorCode.BAD_REQUEST, "no request is named, by the topic or by id")
    return checked(
        request_id,
        string(value, "verdict"),
        string(value, "route", MAX_ROUTE_CHARS),
        string(value, "note"),
        routes,
        source=Source.MQTT,
        device=device,
    )


def checked(
    request_id: str,
    verdict: str | None,
    route: str | None,
    note: str | None,
    routes: Collection[str],
    *,
    source: Source,
    device: str | None,
) -> Feedback:
    """Returns the verdict these words give. Raises RequestError, saying which of them is wrong."""
    if verdict not in set(Verdict):
        raise RequestError(ErrorCode.BAD_REQUEST, f"the verdict must be one of {', '.join(Verdict)}")
    if route is not None and verdict != Verdict.WRONG_ROUTE:
        raise RequestError(ErrorCode.BAD_REQUEST, f"a route goes with the verdict {Verdict.WRONG_ROUTE}")
    if route is not None and route not in routes:
        raise RequestError(ErrorCode.NO_ROUTE, f"there is no route {route!r}")
    return Feedback(request_id, Verdict(verdict), source, device, route, note[:MAX_NOTE_CHARS] if note else None)


def why_not_judged(verdict: Verdict, shown: Mapping[str, Any]) -> str | None:
    """Returns why an operator's verdict on a request, as it is shown, says nothing; None where it says something.

    Of one without an answer there is only the route to judge.
    """
    if verdict is Verdict.WRONG_ROUTE:
        return None
    if shown["state"] in OPEN:
        return f"it is {shown['state']}: there is no answer to judge yet"
    if shown["reason"] is not None:
        return f"it ended without an answer, {shown['reason']}: only its route can be judged ({Verdict.WRONG_ROUTE})"
    return None


def examples_of(judged: Sequence[Judged], routes: Collection[str], known: Collection[str] = ()) -> Examples:
    """Returns the examples of verdicts, newest first, without the questions `known` already.

    A good answer confirms a route that was chosen for what the question says; a wrong route that names the right one
    labels it; a bad answer alone says nothing of the route. An operator's verdict holds against every device's, on the
    request and on its question; of two devices' the newer. The devices' own verdicts are capped: none gives more than
    a tenth of all examples kept, or LEAST_CAP, and what the cap cuts off takes no other device's place.
    """
    by_request: dict[RequestId, Judged] = {}
    for entry in judged:
        if entry.source is Source.OPERATOR or entry.request_id not in by_request:
            by_request[entry.request_id] = entry
    operators_first = sorted(by_request.values(), key=lambda entry: entry.source is not Source.OPERATOR)
    seen = {plain(text) for text in known}
    found = [
        (entry, label)
        for entry in operators_first
        if (label := _label(entry, routes)) and plain(entry.text) not in seen
    ]
    kept = _capped(_once_of_each([entry for entry, _ in found]))
    pairs: dict[str, tuple[str, str]] = {}
    for entry, label in found:
        if entry.request_id in kept:
            pairs.setdefault(plain(entry.text), (entry.text, label))
    return Examples(tuple(pairs.values()), len({plain(entry.text) for entry, _ in found}))


def outcomes_of(judged: Sequence[JudgedAnswer]) -> list[JudgedAnswer]:
    """Returns one verdict per answer, newest first: an operator's before the device's, and no device's too many."""
    by_request: dict[RequestId, JudgedAnswer] = {}
    for entry in judged:
        if entry.source is Source.OPERATOR or entry.request_id not in by_request:
            by_request[entry.request_id] = entry
    kept = _capped(list(by_request.values()))
    return [entry for entry in by_request.values() if entry.request_id in kept]


def plain(text: str) -> str:
    """Returns what is the same for two wordings of one question that differ in case, spaces and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _label(entry: Judged, routes: Collection[str]) -> str | None:
    """Returns the route, of those there are, that the verdict says the question belongs to."""
    label = None
    if entry.verdict is Verdict.WRONG_ROUTE:
        label = entry.right_route
    elif entry.verdict is Verdict.GOOD and entry.is_by_text:
        label = entry.route
    return label if label in routes else None


def _once_of_each(entries: Sequence[Judged]) -> list[Judged]:
    """Returns the entries less those on a question that the same device, or an operator, has a say on before."""
    seen: set[tuple[str, str]] = set()
    found: list[Judged] = []
    for entry in entries:
        device = "" if entry.source is Source.OPERATOR else entry.device
        about = plain(entry.text)
        if ("", about) not in seen and (device, about) not in seen:
            seen.add((device, about))
            found.append(entry)
    return found


def _capped(entries: Sequence[Judged | JudgedAnswer]) -> set[RequestId]:
    """Returns the requests whose verdicts count, of the newest first: all of an operator's, some of each device's."""
    of_devices: defaultdict[str, list[RequestId]] = defaultdict(list)
    kept: set[RequestId] = set()
    for entry in entries:
        if entry.source is Source.OPERATOR:
            kept.add(entry.request_id)
        else:
            of_devices[entry.device].append(entry.request_id)
    cap = device_cap(Counter({device: len(found) for device, found in of_devices.items()}), len(kept))
    return kept.union(*(found[:cap] for found in of_devices.values()))


def device_cap(counts: Counter[str], others: int = 0) -> int:
    """Returns the most examples of one device: a tenth of all that are kept under this very cap, at least LEAST_CAP."""
    cap = max([LEAST_CAP, *counts.values()])
    while cap > LEAST_CAP:
        kept = others + sum(min(count, cap) for count in counts.values())
        lower = max(LEAST_CAP, int(CAP_SHARE * kept))
        if lower >= cap:
            break
        cap = lower
    return cap
