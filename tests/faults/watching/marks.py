"""Questions with marks in them that are found again wherever they turn up, in whatever form."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

OPEN, MARKED, DETECTED = "zqopen", "zqmarked", "zqdetect"
"""Begin the unique word of a question: anybody may see it; only the trusted; only them and, redacted, who redacts."""
DEVICES = tuple(f"dev{number}" for number in range(6))
PRIVATE_DEVICES = ("nurse1", "nurse2")
PRIVATE_TOPIC = "office"
ROUTES = ("frost", "care", "herd", "lone", "climb", "urgent", "quick")
STRATEGIES = ("semantic", "knn", "hybrid", "perf", "token", "heuristic", "cascade")

VALUES: Mapping[str, tuple[str, Callable[[Random], str]]] = {
    "email": ("zqmail", lambda chance: f"zqmail{chance.randrange(1 << 32):08x}@farm.example"),
    "secret": ("zqpass", lambda chance: f"zqpass{chance.randrange(1 << 32):08x}!9"),
    "phone": ("+49 1512 7", lambda chance: f"+49 1512 7{chance.randrange(10**6):06d}"),
    "iban": ("7015000099", lambda chance: _iban(f"7015000099{chance.randrange(10**8):08d}")),
    "card": ("41111199", lambda chance: _card(f"41111199{chance.randrange(10**7):07d}")),
    "location": (
        "48.13779",
        lambda chance: f"48.13779{chance.randrange(10**4):04d}, 11.57{chance.randrange(10**6):06d}",
    ),
}
"""By kind of data: how each of its values begins, or what is always in it, and how one is made."""
SENTENCES = {
    "email": "write to {} about {}",
    "secret": "wifi password: {} for {}",
    "phone": "she has {} for {}",
    "iban": "pay {} for {}",
    "card": "charge {} for {}",
    "location": "the herd is at {} with {}",
}


@dataclass(frozen=True)
class Question:
    """What is published, and what may be seen of it by whom."""

    id: str
    device: str
    payload: str
    word: str
    value: str | None
    """Private data that stands in it."""

    @property
    def topic(self) -> str:
        return f"mqrouter/farm/ask/{self.device}/{self.id}"

    @property
    def is_private(self) -> bool:
        return not self.word.startswith(OPEN)

    @property
    def is_marked(self) -> bool:
        return self.word.startswith(MARKED)


def questions(number: int, seed: int) -> Iterator[Question]:
    """Yields as many, of which nine in ten are private, the same for the same seed."""
    chance = Random(f"questions {seed}")
    for index in range(number):
        yield _question(f"q{index}", chance)


def _question(name: str, chance: Random) -> Question:
    why = chance.choice(("open", "request", "topic", "device", *VALUES))
    unique = f"{chance.randrange(1 << 48):012x}"
    fields: dict[str, Any] = {"route": chance.choice(ROUTES), "ttl_s": 20, "priority": chance.randrange(4)}
    if chance.random() < 0.3:
        fields["strategy"] = chance.choice(STRATEGIES)
    device = {"topic": PRIVATE_TOPIC, "device": chance.choice(PRIVATE_DEVICES)}.get(why, chance.choice(DEVICES))
    if why in VALUES:
        value, word = VALUES[why][1](chance), DETECTED + unique
        fields |= {"private": False} if chance.random() < 0.5 else {}
        return Question(name, device, _payload(SENTENCES[why].format(value, word), fields, chance), word, value)
    word = (OPEN if why == "open" else MARKED) + unique
    fields |= {"private": True} if why == "request" else {}
    return Question(name, device, _payload(f"who owes {word} money", fields, chance), word, None)


def _payload(text: str, fields: dict[str, Any], chance: Random) -> str:
    """Returns the text as a question, as one turn of a chat, or as the context of another question."""
    match chance.randrange(3):
        case 0:
            said: dict[str, Any] = {"question": text}
        case 1:
            said = {"question": "what about this?", "context": text}
        case _:
            turns = [("user", text), ("assistant", "well"), ("user", "and now?")]
            said = {"messages": [{"role": role, "content": content} for role, content in turns]}
    return json.dumps(said | fields)


# --- finding them again -----------------------------------------------------------------------------


def signs(*, is_redacting: bool = False) -> list[str]:
    """Returns what stands in every text that a stranger must not see; `is_redacting`: one who sees placeholders."""
    values = [sign for sign, _ in VALUES.values()]
    return [MARKED, *values] if is_redacting else [MARKED, DETECTED, *values]


def count_bytes(seen: bytes, wanted: Iterable[str]) -> int:
    """Returns the bytes of these signs in what was seen: plain, percent-encoded, in hexadecimal, or in base64."""
    forms = {form for sign in wanted for form in forms_of(sign)}
    pattern = b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return sum(len(match[0]) for match in re.finditer(pattern, seen))


def forms_of(sign: str) -> set[bytes]:
    plain = sign.encode()
    in_hex = plain.hex()
    forms = {plain, quote(sign).encode(), sign.replace(" ", "+").encode(), in_hex.encode(), in_hex.upper().encode()}
    forms |= {sign.encode("utf-16-le"), plain[::-1]}
    for before in range(3):  # wherever it begins within a group of three bytes
        coded = base64.b64encode(b"\0" * before + plain)
        forms.add(coded[(8 * before + 5) // 6 : (8 * (before + len(plain))) // 6])
    return forms


def _iban(account: str) -> str:
    checked = int(account + str(int("D", 36)) + str(int("E", 36)) + "00")
    return f"DE{98 - checked % 97:02d}{account}"


def _card(digits: str) -> str:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-1::-2])
    return f"{digits}{-(sum(doubled) + sum(int(digit) for digit in digits[-2::-2])) % 10}"
