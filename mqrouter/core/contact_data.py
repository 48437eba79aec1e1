"""Where and how a person is found: e-mail addresses, phone numbers, coordinates, names.

Each pattern reads a character a bounded number of times: a question is 64 KiB of anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from mqrouter.core.spans import Span, bounded, spans

# --- e-mail -----------------------------------------------------------------------------------------

_DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_LOCAL_SIGNS = "._%+-!#$&'*/=?^`{|}~"
_EDGES = ".'`*/=?{|}~!#$%&^"  # allowed before the @, and more often punctuation in front of it


def emails(text: str, _region: str | None) -> Iterator[Span]:
    for match in _DOMAIN.finditer(text):
        at = match.start()
        start = at
        while start > 0 and at - start < 64 and (text[start - 1].isalnum() or text[start - 1] in _LOCAL_SIGNS):
            start -= 1
        start += len(text[start:at]) - len(text[start:at].lstrip(_EDGES))
        if start < at:
            yield start, match.end()


# --- phone ------------------------------------------------------------------------------------------

_SEPARATOR = r"[ \u00a0./()-]{0,3}"
_ABROAD = re.compile(rf"(?<![\w+.,])(?:\+|00(?!1\d{{10}}(?!\d)))(?=[ (]{{0,2}}[1-9])(?:{_SEPARATOR}\d){{7,15}}")
MIN_PHONE_CHARS = 6
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_AT_HOME = re.compile(rf"(?<![\w+.,/-])(?=(?P<number>(?!00)(?:\(\d{{1,5}}\)|\d)(?:{_SEPARATOR}\d){{6,13}}))")
_NAMED = re.compile(
    r"\b(?:phone|mobile|cell|tel(?:ephone|efon)?|handy|fax|whats ?app|call|ring|sms|reach|text)\b\.?"
    r"[ \w]{0,24}?[:=]?[ ]{0,2}"
    rf"(?P<number>\(?\d(?:{_SEPARATOR}\d){{6,13}})(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)


def phones(text: str, region: str | None) -> Iterator[Span]:
    yield from bounded(spans(_ABROAD, text), text, lambda span: _phone(text, span, None))
    yield from spans(_NAMED, text, "number")
    if region is not None:
        yield from bounded(spans(_AT_HOME, text, "number"), text, lambda span: _phone(text, span, region))


def is_region(name: str) -> bool:
    """True for a country (ISO 3166, two letters) whose phone numbers are known."""
    import phonenumbers

    return name in phonenumbers.SUPPORTED_REGIONS


def _phone(text: str, span: Span, region: str | None) -> Span | None:
    """Returns the span where the number is one that its country gives out."""
    import phonenumbers  # 3 MB and 50 ms: only where a text has something like a number

    start, end = span
    while end < len(text) and text[end].isdecimal():  # the last part is only taken whole
        end += 1
    written = text[start:end]
    while len(written) > MIN_PHONE_CHARS:  # a number of something else may follow
        international = f"+{written[2:]}" if written.startswith("00") else written
        with suppress(phonenumbers.NumberParseException):
            is_valid = phonenumbers.is_valid_number(phonenumbers.parse(international, region))
            if is_valid and (region is None or _is_grouped(written, region)):
                return start, start + len(written)
        written = re.sub(r"[^\d]*\d+\Z", "", written)
    return None


def _is_grouped(written: str, region: str) -> bool:
    """True where a number is written as its country does: with the 0 in front, in brackets, or else in groups."""
    import phonenumbers

    if written.startswith(("0", "(")):
        return True
    has_prefix = phonenumbers.ndd_prefix_for_region(region, True) == "0"
    return not has_prefix and len(re.findall(r"\d+", written)) >= 3 and _DATE.fullmatch(written) is None


# --- coordinates ------------------------------------------------------------------------------------

_MINUTES = r"\d{1,2}(?:[.,]\d{1,8})?[ ]?['\u2032\u2019]"
_SECONDS = r"\d{1,2}(?:[.,]\d{1,6})?[ ]?(?:[\"\u2033\u201d]|'')?"
_DEGREES = rf"\d{{1,3}}[ ]?\u00b0[ ]?{_MINUTES}(?:[ ]?{_SECONDS})?"
_SEXAGESIMAL = re.compile(rf"(?<!\d){_DEGREES}[ ]?[NS],?[ ]?{_DEGREES}[ ]?[EWO](?!\w)")
_DECIMAL = re.compile(
    r"(?<![\w.,-])(?P<latitude>[+-]?\d{1,2}\.\d{4,15})\u00b0?[ ]?[NS]?[ ]?[,;/ ][ ]?"
    r"(?P<longitude>[+-]?\d{1,3}\.\d{4,15})\u00b0?(?:[ ]?[EW])?(?![\w.]|,\d)"
)
_NAMED_PLACE = re.compile(
    r"\b(?:lat(?:itude)?|geo|gps|coordinates?|coords|koordinaten|standort|location)\b[\"']?"
    r"[ ]?(?:[:=(@]|is|at)?[ (\[]{0,3}"
    r"(?P<place>[+-]?\d{1,2}\.\d{2,15}\u00b0?[ ]?[NS]?[,; ]{1,3}"
    r"[\"']?(?:(?:and[ ])?(?:lng|lon(?:gitude)?)[\"']?[ ]?[:=]?[ ]?)?"
    r"[+-]?\d{1,3}\.\d{2,15})",
    re.IGNORECASE,
)


def locations(text: str, _region: str | None) -> Iterator[Span]:
    yield from spans(_SEXAGESIMAL, text)
    yield from spans(_NAMED_PLACE, text, "place")
    for match in _DECIMAL.finditer(text):
        if abs(float(match["latitude"])) <= 90 and abs(float(match["longitude"])) <= 180:
            yield match.span()


# --- names ------------------------------------------------------------------------------------------

_NAME = r"(?-i:[A-Z][\w'\u2019-]{1,30})"
_TITLED = re.compile(
    rf"\b(?-i:Mrs?|Ms|Miss|Mx|Herrn?|Frau|Madame|Monsieur|Mme|Se\u00f1ora?|Signora?|Sr|Sra)\b\.?[ ](?:Dr\.?[ ])?"
    rf"(?P<name>{_NAME}(?:[ ]{_NAME}){{0,2}})"
)
_INTRODUCED = re.compile(
    rf"\b(?:my|his|her|their|patient'?s?|customer'?s?|client'?s?)[ ](?:full[ ])?name(?:[ ]is|:|[ ]=)[ ]"
    rf"(?P<name>{_NAME}(?:[ ]{_NAME}){{0,3}})",
    re.IGNORECASE,
)


def names(text: str, _region: str | None) -> Iterator[Span]:
    yield from spans(_TITLED, text, "name")
    yield from spans(_INTRODUCED, text, "name")
