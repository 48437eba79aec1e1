"""What opens a door or proves who one is: keys, passwords, accounts, identity numbers. Bounded as in `contact_data`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mqrouter.core.checksums import iban_length, is_card, is_codice_fiscale, is_cpf, is_dni, is_iban
from mqrouter.core.spans import Span, bounded, spans

# --- keys and passwords -----------------------------------------------------------------------------

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{30,255}|glpat-[\w-]{18,80}"
    r"|xox[abeoprs]-[\w-]{10,250}"  # Slack
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,500}"  # Google
    r"|hf_[A-Za-z0-9]{30,60}|npm_[A-Za-z0-9]{36}|dop_v1_[0-9a-f]{64}|pypi-[\w-]{50,300}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,250}"  # Stripe
    r"|NNSXS\.[A-Z0-9]{20,80}\.[A-Z0-9]{20,80}"  # The Things Stack
    r")"
)
_TOKENS = re.compile(
    r"(?<![\w.-])(?:sk-[\w-]{20,250}|eyJ[\w-]{8,8192}\.eyJ[\w-]{8,8192}\.[\w-]{8,8192})"  # OpenAI's form; JWT
)
_USER_INFO = re.compile(r"(?<=://)[^\s/@:]{1,128}:[^\s/@]{1,256}(?=@)")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----")
_ASSIGNED = re.compile(
    r"(?:password|passwort|passwd|passphrase|pwd|api[ _-]?key|app[ _-]?key|nwk[ _-]?key|secret(?:[ _-]?key)?"
    r"|(?:access|auth|bearer)[ _-]?token|token|contrase\u00f1a|mot de passe|\bpsk)\b"
    r"[\"']?[ \t]{0,4}(?:(?P<sign>:=|=>|=|:)|(?P<verb>is|ist|est|es|lautet)(?=[ \t\"']))[ \t]{0,4}"
    r"(?:\"(?P<double>[^\"\n]{4,256})\"|'(?P<single>[^'\n]{4,256})'|(?P<bare>[^\s\"',;]{4,256}))",
    re.IGNORECASE,
)
_PIN = re.compile(
    r"\b(?:pin(?: ?code)?|puk)\b[ ]?(?:is|ist|:|=)[ ]{0,2}(?P<digits>\d{4,8})(?![\w.,]\d|\w)", re.IGNORECASE
)
_REFERENCE = re.compile(r"[\w.]{0,80}[(\[{$]|[$<{%]")
"""What stands in code where a value would: a call, an index, a variable, a placeholder."""


def secrets(text: str, _region: str | None) -> Iterator[Span]:
    yield from spans(_KEYS, text)
    yield from spans(_TOKENS, text)
    yield from spans(_USER_INFO, text)
    yield from spans(_PIN, text, "digits")
    yield from _private_keys(text)
    for match in _ASSIGNED.finditer(text):
        group = match.lastgroup or ""
        if group != "bare":
            yield match.span(group)
        elif _is_password(match["bare"]):
            start, end = match.span("bare")
            yield start, start + len(text[start:end].rstrip(".!?)"))


def _is_password(word: str) -> bool:
    """Anybody's word may follow "the password is"; one with a digit or sign in it is the password itself."""
    core = word.rstrip(".!?)")
    is_mixed = (
        any(char.isdigit() for char in core) or not core.replace("_", "").replace("-", "").replace(".", "").isalpha()
    )
    return len(core) >= 4 and is_mixed and _REFERENCE.match(core) is None


def _private_keys(text: str) -> Iterator[Span]:
    position = 0
    while (begin := _PRIVATE_KEY.search(text, position)) is not None:
        end = text.find("-----END", begin.end())
        line_end = text.find("\n", end) if end >= 0 else -1
        position = len(text) if line_end < 0 else line_end
        yield begin.start(), position


# --- accounts and identities ------------------------------------------------------------------------

_IBAN = re.compile(r"(?<![^\W_])(?=(?P<number>[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}))", re.IGNORECASE)
_CARD = re.compile(
    r"(?<![\w.,-])(?:\d{15,16}|\d{19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{5})"
    r"(?![\w-]|[.,]\d)"
)
_CODICE_FISCALE = re.compile(r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)")
_CPF = re.compile(r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)")
_DNI = re.compile(r"(?<![\w-])(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z](?![\w-])")
_UNPROVEN = re.compile(
    r"(?<![\w-])(?:(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}"  # United States: social security
    r"|[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])(?![\w-])"  # United Kingdom: national insurance
)
_NAMED_ID = re.compile(
    r"\b(?:passport|social[ -]security|national[ -]insurance|national[ -]id|identity[ -]card|tax[ -]id"
    r"|driv(?:er'?s|ing)[ -]licen[cs]e|personalausweis|reisepass|steuer-?id|aadhaar|ssn|curp)\b"
    r"[ ]?(?:number|no\.?|nr\.?|nummer|#)?[ ]?(?:is|ist|:|=)?[ ]?"
    r"(?P<id>(?=[A-Z]{0,4}[ -]?\d)[A-Z0-9](?:[ -]?[A-Z0-9]){5,19})(?!\w)",
    re.IGNORECASE,
)


def ibans(text: str, _region: str | None) -> Iterator[Span]:
    yield from bounded(spans(_IBAN, text, "number"), text, lambda span: _iban(text, span))


def _iban(text: str, span: Span) -> Span | None:
    """Returns the span cut to the length of its country: a word may follow."""
    start, end = span
    length = iban_length(text[start : start + 2].upper())
    places = [place for place in range(start, end) if text[place] not in " -"]
    if length is None or len(places) < length:
        return None
    last = places[length - 1] + 1
    is_whole = last == len(text) or not text[last].isalnum()
    return (start, last) if is_whole and is_iban(_bare(text[start:last])) else None


def cards(text: str, _region: str | None) -> Iterator[Span]:
    return (span for span in spans(_CARD, text) if is_card(_bare(text[slice(*span)])))


def ids(text: str, _region: str | None) -> Iterator[Span]:
    yield from spans(_UNPROVEN, text)
    yield from spans(_NAMED_ID, text, "id")
    for pattern, is_id in ((_CODICE_FISCALE, is_codice_fiscale), (_CPF, is_cpf), (_DNI, is_dni)):
        yield from (span for span in spans(pattern, text) if is_id(_bare(text[slice(*span)])))


def _bare(written: str) -> str:
    return "".join(char for char in written if char not in " -.").upper()
