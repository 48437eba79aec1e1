"""Personal and secret data: what is found, what is not taken for it, and at what cost."""

from __future__ import annotations

import time
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqrouter.core.checksums import is_card, is_codice_fiscale, is_cpf, is_dni, is_iban
from mqrouter.core.personal_data import FINDERS, NOUNS, Kind, find
from mqrouter.core.spans import MAX_CANDIDATES
from mqrouter.settings import Privacy

ALL = frozenset(Kind)
DEFAULT = frozenset(Privacy().detect)
ROOT = Path(__file__).resolve().parents[2]
LARGEST = 65_536

FOUND = [
    (Kind.EMAIL, "write to {} please", "anna.lopez+farm@dairy-coop.example"),
    (Kind.EMAIL, "(mailto:{}).", "müller@höfe.example"),
    (Kind.PHONE, "the vet has {}, 30 cows wait", "+49 171 1234567"),
    (Kind.PHONE, "dial {}", "0044 20 7946 0958"),
    (Kind.PHONE, "my cell is {} now", "415-555-2671"),
    (Kind.SECRET, "wifi password: {}", "hunter2!x"),
    (Kind.SECRET, 'api_key = "{}"', "no digits here"),
    (Kind.SECRET, "the password is {}.", "Tr0ub4dor"),
    (Kind.SECRET, "PIN: {}", "4711"),
    (Kind.SECRET, "aws says {} expired", "AKIAIOSFODNN7EXAMPLE"),
    (Kind.SECRET, "Bearer {}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"),
    (Kind.SECRET, "mqtt://{}@localhost:1883", "barn:s3same"),
    (Kind.SECRET, "look:\n{}\nis it valid?", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"),
    (Kind.IBAN, "pay to {} by friday", "DE89 3704 0044 0532 0130 00"),
    (Kind.IBAN, "row ab12 {}", "GB29NWBK60161331926819"),
    (Kind.CARD, "charge {} again", "4111 1111 1111 1111"),
    (Kind.ID, "ssn {}", "078-05-1120"),
    (Kind.ID, "my code is {}", "RSSMRA85T10A562S"),
    (Kind.ID, "CPF {}", "529.982.247-25"),
    (Kind.ID, "DNI {}", "12345678Z"),
    (Kind.ID, "passport no. {}", "C01X00T47"),
    (Kind.LOCATION, "the herd is at {} now", "48.1372, 11.5756"),
    (Kind.LOCATION, "near {}", "48°08'14\"N 11°34'31\"E"),
    (Kind.LOCATION, "gps: {}", "48.13, 11.57"),
    (Kind.NAME, "ask {} about it", "Ada Lovelace"),
]


@pytest.mark.parametrize(("kind", "sentence", "value"), FOUND)
def test_data_is_found_where_it_stands(kind: Kind, sentence: str, value: str) -> None:
    sentence = sentence.replace("ask {}", "ask Mrs. {}")
    text = sentence.format(value)
    (found,) = find(text, ALL)
    assert (found.kind, text[found.start : found.end]) == (kind, value)
    assert find(text, ALL - {kind}) == ()


HARMLESS = [
    "Which of the cows 276 000 312345678 and 276 000 312345679 gave less milk on 2024-05-12 at 12:30:15?",
    "moisture 12.345, 13.456 and 14.567 % in fields 12, 13 and 14; pH 7.9; EC 1.25 mS/cm",
    "serial 0012345678901, article 4006381333931, firmware 1.2.3.4, device 192.168.1.20, port 1883",
    "the password is wrong, how do I reset it?",
    'token = os.environ["TOKEN"]; password = config.password; pin = 13; secret: <your secret>',
    "pin: GPIO4 is not valid for ADC2",
    "follow us @farm or write user@localhost",
    "order 1234 5678 9012 3456 is late",
    "SN 123-456-789, part 11-22-3333, batch AB 12 34 56 Z",
    "timestamp 1700000000000 and 1700000000",
    "12.50, 13.75",
    "regex to match a date like 2024-05-01",
]


@pytest.mark.parametrize("text", HARMLESS)
@pytest.mark.parametrize("region", [None, "DE", "US"])
def test_ordinary_numbers_and_words_are_not_taken_for_personal_data(text: str, region: str | None) -> None:
    assert [text[one.start : one.end] for one in find(text, ALL, region)] == []


def harmless_questions() -> list[str]:
    """The starter's own examples: whoever asks like that must not be stopped."""
    files = [*sorted((ROOT / "config/routes").glob("*.toml")), ROOT / "config/out_of_scope.toml"]
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    routes = [route for table in tables for route in table.get("routes", {}).values()]
    routes += [table["routing"]["abstain"] for table in tables if "routing" in table]
    return [text for route in routes for text in route["examples"]]


def test_none_of_the_starters_questions_is_private() -> None:
    questions = harmless_questions()
    assert len(questions) > 1_100
    assert [(text, region) for text in questions for region in (None, "DE", "US") if find(text, DEFAULT, region)] == []


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("ring 12 times, then 0171 1234567 30 min later", "DE", "0171 1234567"),
        ("(415) 555-2671 is mine", "US", "(415) 555-2671"),
        ("415-555-2671 is mine", "US", "415-555-2671"),
    ],
)
def test_region_tells_how_its_own_numbers_are_written(text: str, region: str, number: str) -> None:
    assert [text[one.start : one.end] for one in find(text, {Kind.PHONE}, region)] == [number]
    assert find(text, {Kind.PHONE}, None) == ()


def test_findings_are_in_order_and_never_overlap() -> None:
    text = "call +49 171 1234567 or mail a@b.example, password: a@b.example1, then +49 171 7654321"
    found = find(text, ALL, "DE")
    assert [one.kind for one in found] == [Kind.PHONE, Kind.EMAIL, Kind.SECRET, Kind.PHONE]
    assert all(before.end <= after.start for before, after in pairwise(found))


def test_more_candidates_than_are_looked_at_leave_nothing_behind() -> None:
    text = "+49 171 1234567, " * (MAX_CANDIDATES + 1) + "and a@b"
    assert find(text, {Kind.PHONE})[-1].end == len(text)


def test_every_kind_has_a_finder_and_a_noun() -> None:
    assert FINDERS.keys() == NOUNS.keys() == set(Kind)


def test_check_digits_tell_numbers_from_others_that_look_like_them() -> None:
    assert is_iban("DE89370400440532013000") and not is_iban("DE89370400440532013001")
    assert not is_iban("DE8937040044053201300") and not is_iban("XX89370400440532013000")
    assert is_card("4111111111111111") and not is_card("4111111111111112") and not is_card("1111111111111117")
    assert is_card("378282246310005") and is_card("5555555555554444")
    assert is_codice_fiscale("RSSMRA85T10A562S") and not is_codice_fiscale("RSSMRA85T10A562T")
    assert is_cpf("52998224725") and not is_cpf("52998224726") and not is_cpf("11111111111")
    assert is_dni("12345678Z") and is_dni("X1234567L") and not is_dni("12345678A")


@given(st.text(max_size=300), st.sampled_from([None, "DE", "US"]))
def test_whatever_is_asked_findings_lie_within_it(text: str, region: str | None) -> None:
    end = 0
    for one in find(text, ALL, region):
        assert end <= one.start < one.end <= len(text)
        end = one.end


PIECES = ["a", "@", "a@", "a@a.b.", "1", "1 ", "1(", "1-", "+", "+4", "+49 171 1234567, ", "0015", "(", "AB12 ", "AB12"]
PIECES += ["eyJ", "eyJaaaaaaaa.", "eyJaaaaaaaa ", "sk-", "ghp_a", "password ", "password: ", 'password: "', "://a:"]
PIECES += ["-----BEGIN PRIVATE KEY-----", "-", "1°", "1.", "12.3456 ", "lat 12.34", "Mr. ", "Mr Ab ", "my name is "]
PIECES += ["call a a a a a ", "passport number is ", "123.", " ", "\n", "A ", "_", "pin ", "\u0660", "\ud7ff"]


@pytest.mark.parametrize("piece", PIECES)
def test_largest_question_costs_a_bounded_time_whatever_stands_in_it(piece: str) -> None:
    """Eight times the text takes about eight times as long: where patterns backtrack, 64 times, or for ever."""
    text = (piece * (LARGEST // len(piece) + 1))[:LARGEST]
    find(text[:1000], ALL, "US")  # the metadata of a country is loaded once
    part_s = min(_time_s(text[: LARGEST // 8]) for _ in range(3))
    assert min(_time_s(text) for _ in range(2)) < max(24 * part_s, 1.0)


def _time_s(text: str) -> float:
    started_s = time.thread_time()
    find(text, ALL, "US")
    return time.thread_time() - started_s
