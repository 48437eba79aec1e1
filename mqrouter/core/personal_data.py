"""Finds personal and secret data in a text: where it stands and of which kind, at a bounded cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from mqrouter.core.contact_data import emails, locations, names, phones
from mqrouter.core.secret_data import cards, ibans, ids, secrets
from mqrouter.core.spans import Span


class Kind(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    SECRET = "secret"
    IBAN = "iban"
    CARD = "card"
    ID = "id"
    LOCATION = "location"
    NAME = "name"


NOUNS = {
    Kind.EMAIL: "an e-mail address",
    Kind.PHONE: "a phone number",
    Kind.SECRET: "a key or password",
    Kind.IBAN: "a bank account",
    Kind.CARD: "a card number",
    Kind.ID: "an identity number",
    Kind.LOCATION: "coordinates",
    Kind.NAME: "a person's name",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """`text[start:end]` is of this kind."""

    start: int
    end: int
    kind: Kind


Finder = Callable[[str, str | None], Iterator[Span]]

NEEDS_DIGIT = frozenset({Kind.PHONE, Kind.IBAN, Kind.CARD, Kind.ID, Kind.LOCATION})
_DIGIT = re.compile(r"\d")

FINDERS: dict[Kind, Finder] = {
    Kind.EMAIL: emails,
    Kind.PHONE: phones,
    Kind.SECRET: secrets,
    Kind.IBAN: ibans,
    Kind.CARD: cards,
    Kind.ID: ids,
    Kind.LOCATION: locations,
    Kind.NAME: names,
}


def find(text: str, kinds: Collection[Kind], region: str | None = None) -> tuple[Finding, ...]:
    """Returns what was found, in order, none overlapping another.

    `region` (ISO 3166, two letters) tells how phone numbers without a country code are written.
    """
    wanted = set(kinds)
    if _DIGIT.search(text) is None:  # most questions: a fifth of the time
        wanted -= NEEDS_DIGIT
    found = sorted(
        Finding(start, end, kind) for kind in FINDERS if kind in wanted for start, end in FINDERS[kind](text, region)
    )
    merged: list[Finding] = []
    for one in found:
        if merged and one.start < merged[-1].end:
            merged.append(_union(merged.pop(), one))
        else:
            merged.append(one)
    return tuple(merged)


def _union(first: Finding, second: Finding) -> Finding:
    kind = second.kind if first.kind is Kind.PHONE else first.kind  # the least certain of them
    return Finding(first.start, max(first.end, second.end), kind)
