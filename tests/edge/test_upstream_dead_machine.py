"""A machine that lost its power is told from one that loads its model: long before the limit to the first token."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("dead_machine.py")
ROOT = Path(__file__).parents[2]


def has_networks() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_networks(), reason="needs a network of its own: unshare -rn, and ip of iproute2")
def test_hub_without_power_is_unreachable_long_before_its_cold_load_would_be_over() -> None:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = ["unshare", "-rn", sys.executable, str(SCRIPT)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["error"] == "UnreachableError"
    assert found["elapsed_s"] < 30.0
