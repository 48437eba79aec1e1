"""The same question as others would write it: changes that should not change a route, each drawn by seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

Change = Callable[[str, np.random.Generator], str]

_OPENINGS = ("Hello, could you please tell me: ", "Good morning! I would like to know, ", "Please help me. ")
_CLOSINGS = (" Thank you very much!", " Thanks in advance.", "")
_REWORDINGS = (
    ("what is", "can you say what"),
    ("how do i", "what is the way to"),
    ("how can i", "is there a way to"),
    ("should i", "is it advisable to"),
    ("why", "for what reason"),
    ("how much", "what amount of"),
    ("how often", "at which intervals"),
    ("turn on", "switch on"),
    ("turn off", "switch off"),
    ("need", "require"),
    ("my ", "our "),
)
LETTERS_PER_TYPO = 25
_NUMBER = re.compile(r"\d+")
_VERB = re.compile(r"\b(is|are|do|does|did|should|can|could|will|would|has|have|may|must)\b", re.IGNORECASE)


def typos(text: str, rng: np.random.Generator) -> str:
    """Returns the text with letters swapped, dropped or doubled: one, and one more for every 25 letters."""
    letters = list(text)
    for _ in range(1 + len(letters) // LETTERS_PER_TYPO):
        places = [i for i in range(len(letters) - 1) if letters[i].isalpha() and letters[i + 1].isalpha()]
        if not places:
            break
        place = int(rng.choice(places))
        kind = int(rng.integers(3))
        if kind == 0:
            letters[place : place + 2] = letters[place + 1], letters[place]
        elif kind == 1:
            del letters[place]
        else:
            letters.insert(place, letters[place])
    return "".join(letters)


def case(text: str, rng: np.random.Generator) -> str:
    return text.upper() if rng.random() < 0.5 else text.lower()


def punctuation(text: str, rng: np.random.Generator) -> str:
    """Returns the text without its sentence marks, or with too many."""
    bare = text.translate(str.maketrans("", "", "?!,.;'")) if rng.random() < 0.5 else f"{text.rstrip('?.!')}???"
    return bare if bare.strip() else text


def politeness(text: str, rng: np.random.Generator) -> str:
    return f"{rng.choice(_OPENINGS)}{text}{rng.choice(_CLOSINGS)}"


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """Returns the text with its usual phrases in other words; with a frame around it where it has none."""
    changed = text.lower()
    for phrase, other in _REWORDINGS:
        changed = changed.replace(phrase, other)
    return changed if changed != text.lower() else f"my question is this: {text}"


def digits(text: str, rng: np.random.Generator) -> str:
    """Returns the text with other numbers in it; with one at its end where it has none."""
    changed = _NUMBER.sub(lambda found: str(int(rng.integers(1, 10 ** min(6, len(found.group()))))), text)
    return changed if changed != text else f"{text} ({rng.integers(2, 99)})"


def negation(text: str, rng: np.random.Generator) -> str:
    """Returns the text turned into its opposite: of another sense, and of the same route."""
    changed = _VERB.sub(lambda found: f"{found.group()} not", text, count=1)
    return changed if changed != text else f"not this: {text}"


def code(text: str, rng: np.random.Generator) -> str:
    """Returns the text with the tail that a device puts to it."""
    return f"{text} id={rng.integers(1, 99)} ts={rng.integers(10**9, 2 * 10**9)}"


CHANGES: Mapping[str, Change] = {
    "typos": typos,
    "case": case,
    "punctuation": punctuation,
    "politeness": politeness,
    "paraphrase": paraphrase,
    "digits": digits,
    "negation": negation,
    "code": code,
}
