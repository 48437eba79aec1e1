"""Every key tomllib finds has a place, and it is the place a person would look at."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqrouter.config.toml_positions import KeyPath, Position, positions
from mqrouter.starter import starter_dir

EVERYTHING = """\
# A comment with [brackets], "quotes" and = signs
title = "first" # [not.a.table]
"quoted key" = 1
'literal.key' = 2
"esc\\u0061ped\\"" = 3
physical.colour = "orange"
physical . shape = 'round # not a comment'
3.14 = "a dotted key of digits"
"" = "empty"

multi = \"\"\"
[fake.table]
key = "not a key"
\\\"\"\" still inside \"\"\"
quotes = \"\"\"two quotes at the end\"\"\"\"\"
nothing = \"\"\"\"\"\"
literal = '''
[also.fake] \\'''
literal_quotes = ''''quoted''''
after = true

when = 1979-05-27 07:32:00 # space between date and time
whens = [1979-05-27 07:32:00Z, 07:32:00, 1979-05-27]
number = -1_000.5e+3
special = [inf, -nan, 0xFF,]

nested = [
  [1, 2], # first
  # a comment ] between
  ["a]", 'b,'],
  [{ x = 1, y.z = 2 }, {}],
]
inline = { a = { b = [1, { c = "}" }] }, "d e" = 2 }

  [servers]   # indented
  [servers.alpha]
  ip = "10.0.0.1"
[ servers . "be.ta" ]
ip = "10.0.0.2"

[[products]]
name = "hammer"
[[products]]
[[products]]
name = "nail"
[products.size]
mm = 3
[[products.colours]]
name = "grey"
[[products.colours]]
name = "black"
[products.colours.mix]
red = 1
[deep.er.still]
x = 1
[deep]
y = 2"""


def paths_of(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    for key, child in children:
        yield (*path, key)
        yield from paths_of(child, (*path, key))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_positions_are_exactly_the_paths_tomllib_finds(newline: str) -> None:
    text = EVERYTHING.replace("\n", newline)

    assert set(positions(text)) == set(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize("file", sorted(starter_dir().rglob("*.toml")), ids=lambda file: file.name)
def test_starter_files_have_a_position_for_every_path(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert set(positions(text)) == set(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (("title",), 'title = "first"'),
        (("quoted key",), '"quoted key" = 1'),
        (('escaped"',), '"esc'),
        (("physical",), "physical.colour"),
        (("physical", "colour"), "colour ="),
        (("physical", "shape"), "shape ="),
        (("3", "14"), "14 ="),
        (("after",), "after = true"),
        (("whens", 1), "07:32:00, 1979"),
        (("nested", 1), "[\"a]\", 'b,']"),
        (("nested", 1, 1), "'b,']"),
        (("nested", 2, 0, "y", "z"), "z = 2"),
        (("nested", 2, 1), "{}]"),
        (("inline", "a", "b", 1, "c"), 'c = "}"'),
        (("inline", "d e"), '"d e" = 2'),
        (("servers",), "servers]   # indented"),
        (("servers", "be.ta"), '"be.ta" ]'),
        (("servers", "be.ta", "ip"), 'ip = "10.0.0.2"'),
        (("products", 0, "name"), 'name = "hammer"'),
        (("products", 2, "name"), 'name = "nail"'),
        (("products", 2, "size", "mm"), "mm = 3"),
        (("products", 2, "colours", 1, "name"), 'name = "black"'),
        (("products", 2, "colours", 1, "mix", "red"), "red = 1"),
        (("deep", "y"), "y = 2"),
    ],
)
def test_position_points_at_the_key(path: KeyPath, shown: str) -> None:
    line, column = positions(EVERYTHING)[path]

    assert EVERYTHING.split("\n")[line - 1][column - 1 :].startswith(shown)


def test_each_element_of_an_array_of_tables_has_its_own_line() -> None:
    found = positions("[[a]]\n[[a]]\n\n [[ a ]]\n")

    assert found == {
        ("a",): Position(1, 3),
        ("a", 0): Position(1, 3),
        ("a", 1): Position(2, 3),
        ("a", 2): Position(4, 5),
    }


def test_first_appearance_of_a_table_counts() -> None:
    assert positions("[a.b]\nx = 1\n[a]\ny = 2\n")["a",] == Position(1, 2)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "   "])
def test_text_without_keys_has_no_positions(text: str) -> None:
    assert positions(text) == {}


def test_columns_count_characters_and_not_bytes() -> None:
    assert positions('x = { "größe" = 1, y = 2 }')["x", "y"] == Position(1, 20)


def test_long_multiline_string_is_no_burden() -> None:
    text = 'a = """' + 'line with "quotes"\n' * 50_000 + '"""\nb = 1\n'

    assert positions(text)["b",] == Position(50_002, 1)
