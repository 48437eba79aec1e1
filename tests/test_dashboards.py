"""The dashboard, the alerts and the page on metrics name what exists: metrics, labels and their values."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeClock, FlakyDatabase, refused, request
from metric_stage import MetricStage
from metric_text import Samples, samples_of

from mqrouter.core.breaker import BreakerState
from mqrouter.core.disk_space import DiskLevel
from mqrouter.core.states import State
from mqrouter.edge.store.store import Store
from mqrouter.errors import ErrorCode

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "mqrouter.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "mqrouter.json"
PAGE = DEPLOY / "prometheus" / "README.md"
NAME = re.compile(r"\b((?:mqrouter|process)_[a-z0-9_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
OF_PROMETHEUS = {"instance", "job", "le"}
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
VALUES: dict[str, set[str]] = {
    "state": {*State, *BreakerState, "loading", "ready", "busy", "unloaded"},
    "level": set(DiskLevel),
    "outcome": {"answered", "failed", "unreachable", *ErrorCode},
    "limit": {"requests_per_minute", "tokens_per_minute", "budget_per_day", "budget_per_month"},
    "route": {"_none"},
    "reason": {"evicted", "qos0_overflow", "retained", "undelivered"},
}


@pytest.fixture
async def exposed(store: Store, database: FlakyDatabase, clock: FakeClock, tmp_path: Path) -> Samples:
    """Every metric, with every label it can have."""
    sensors = {
        "powercap/intel-rapl:0": {"name": "package-0", "energy_uj": 5, "max_energy_range_uj": 99},
        "hwmon/hwmon0": {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": 5, "curr1_input": 5},
        "thermal/thermal_zone0": {"type": "cpu", "temp": 5},
        "power_supply/BAT0": {"type": "Battery", "capacity": 5},
        "power_supply/AC": {"type": "Mains", "online": 1},
    }
    for folder, files in sensors.items():
        (tmp_path / "class" / folder).mkdir(parents=True)
        for name, value in files.items():
            (tmp_path / "class" / folder / name).write_text(f"{value}\n")
    stage = MetricStage(store, database, clock, tmp_path)
    await store.accept([refused(), request()], clock.now_ms())
    stage.tell_everything()
    return samples_of(await stage.text())


def labels_by_name(exposed: Samples) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels, _ in exposed.rows:
        found[name] |= labels.keys()
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yields where each stands, and the PromQL."""
    for alert in alerts():
        yield alert["alert"], alert["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def wrong_in(expression: str, known: dict[str, set[str]]) -> list[str]:
    found = []
    for name, matchers in NAME.findall(expression):
        if name not in known:
            found.append(f"there is no {name}")
            continue
        for label, how, value in MATCHER.findall(matchers):
            if label not in known[name] | OF_PROMETHEUS:
                found.append(f"{name} has no label {label}")
            elif how in ("=", "!=") and label in VALUES and value not in VALUES[label]:
                found.append(f"{label} is never {value}")
            elif how == "=~" and label in VALUES and "." not in value and "(" not in value:
                found += [f"{label} is never {part}" for part in value.split("|") if part not in VALUES[label]]
    named = {name for name, _ in NAME.findall(expression)} & known.keys()
    grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
    allowed = OF_PROMETHEUS.union(*(known[name] for name in named))
    return found + [f"nothing here has a label {label}" for label in grouped - allowed]


async def test_every_expression_names_what_exists(exposed: Samples) -> None:
    known = labels_by_name(exposed)
    checked = list(expressions())

    assert len(checked) > 70
    assert {where: wrong for where, text in checked if (wrong := wrong_in(text, known))} == {}


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("mqrouter_tier_upp == 0", ["there is no mqrouter_tier_upp"]),
        ('mqrouter_tier_up{tear="hub"}', ["mqrouter_tier_up has no label tear"]),
        ('mqrouter_queue_requests{state=~"pending|pendent"}', ["state is never pendent"]),
        ('mqrouter_disk_level{level="brimful"} == 1', ["level is never brimful"]),
        ("sum by (root) (mqrouter_decisions_total)", ["nothing here has a label root"]),
    ],
)
async def test_mistake_in_an_expression_is_seen(exposed: Samples, expression: str, wrong: list[str]) -> None:
    assert wrong_in(expression, labels_by_name(exposed)) == wrong


async def test_page_has_every_metric_and_no_other(exposed: Samples) -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    written = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    known = labels_by_name(exposed)
    there: dict[str, set[str]] = {}
    for family, kind in exposed.kinds.items():
        if family.startswith("mqrouter_"):
            name = {"counter": f"{family}_total", "histogram": f"{family}_bucket"}.get(kind, family)
            there[(f"{family}_total" if kind == "counter" else family).removeprefix("mqrouter_")] = known[name] - {"le"}

    assert written == there | {"build_info": {"version"}}


def test_alerts_say_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), alert
        assert {"summary", "description"} <= alert["annotations"].keys(), alert
        assert re.fullmatch(r"\d+[smhd]", alert.get("for", "0s")), alert
    assert len({alert["alert"] for alert in alerts()}) == len(alerts())


def test_panels_do_not_overlap_and_take_the_chosen_source() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_reads_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
