"""The labelled set is an honest test: nothing of it is in the configuration, and every label means something."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "tests/data" / name).read_text(encoding="utf-8").splitlines()]


ROWS = _rows("farm_questions.jsonl")
HELD_OUT = _rows("farm_questions_held_out.jsonl")
TABLES = [tomllib.loads(file.read_text(encoding="utf-8"))["routes"] for file in (ROOT / "config/routes").glob("*.toml")]
OUT_OF_SCOPE: list[str] = tomllib.loads((ROOT / "config/out_of_scope.toml").read_text(encoding="utf-8"))["routing"][
    "abstain"
]["examples"]
ROUTES: dict[str, dict[str, Any]] = {name: route for table in TABLES for name, route in table.items()}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def test_no_question_is_an_example() -> None:
    examples = {_plain(example) for route in ROUTES.values() for example in route["examples"]}
    examples |= set(map(_plain, OUT_OF_SCOPE))
    assert not examples & {_plain(row["question"]) for row in ROWS + HELD_OUT}


def test_no_question_stands_twice() -> None:
    counts = Counter(_plain(row["question"]) for row in ROWS + HELD_OUT)
    assert not [text for text, count in counts.items() if count > 1]


def test_labels_are_configured_routes() -> None:
    labels = {label for row in ROWS + HELD_OUT for label in [row["route"], *row.get("also", [])] if label is not None}
    assert labels == set(ROUTES)


def test_every_kind_and_route_is_well_represented() -> None:
    kinds = Counter(row["kind"] for row in ROWS)
    assert sum(row["route"] is not None for row in ROWS) >= 300
    assert (
        min(kinds[kind] for kind in ("typo", "negation", "units", "short", "long", "ambiguous", "out_of_scope")) >= 20
    )
    assert min(Counter(row["route"] for row in ROWS if row["route"]).values()) >= 30


def test_starter_routes_use_all_four_tiers_first() -> None:
    assert {route["to"][0] for route in ROUTES.values()} == {"edge", "hub", "regional", "datacenter"}
    assert min(len(route["examples"]) for route in ROUTES.values()) >= 12
