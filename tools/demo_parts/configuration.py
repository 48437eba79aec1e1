"""The demo's gateway: a folder with a real configuration, its routes taken from config/routes."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

from mqrouter.models.catalogue import SMOLLM2
from mqrouter.starter import starter_dir

GATEWAY = "demo"
TIERS = ("edge", "hub")
ROUTES = ("small_talk", "device_control", "crop_disease", "work_planning")

MAIN = """\
# Written by tools/demo. Every key is explained in config/mqrouter.toml.

[gateway]
name = "{gateway}"

[mqtt]
port = {broker_port}
# The demo's broker knows MQTT 3.1.1 only: the daemon tries 5 first, and falls back.
protocol = "auto"

[tiers.edge]
kind = "local"
model = "{model}"
max_tokens = 128
temperature = 0.0
start = "at_start"

[tiers.hub]
kind = "openai"
url = "http://127.0.0.1:{hub_port}/v1"
model = "{model}"
max_tokens = 128
temperature = 0.0

# Nobody wants to watch the pauses of a real outage.
[retry]
backoff_min_s = 0.2
backoff_max_s = 1.0
probe_min_s = 0.5
probe_max_s = 1.0
"""


def write_configuration(folder: Path, *, broker_port: int, hub_port: int) -> Path:
    """Returns the main file of a whole configuration in `folder`."""
    starter = starter_dir()
    (folder / "routes").mkdir()
    for name in ROUTES:
        text = (starter / "routes" / f"{name}.toml").read_text(encoding="utf-8")
        (folder / "routes" / f"{name}.toml").write_text(_route(name, tomllib.loads(text)), encoding="utf-8")
    shutil.copyfile(starter / "prompts.toml", folder / "prompts.toml")
    main = folder / "mqrouter.toml"
    text = MAIN.format(gateway=GATEWAY, broker_port=broker_port, hub_port=hub_port, model=SMOLLM2.name)
    main.write_text(text, encoding="utf-8")
    return main


def _route(name: str, file: dict[str, Any]) -> str:
    """Returns the route as TOML, without the tiers that only a larger site has."""
    route = file["routes"][name]
    route["to"] = [tier for tier in route["to"] if tier in TIERS]
    # JSON's texts and lists of texts are TOML's as well.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in route.items()]
    return "\n".join([f"[routes.{name}]", *lines, ""])
