"""The demo as a program: its options, its exit codes."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

from demo_parts.processes import Children, DemoError, InterruptedDemoError
from demo_parts.report import Report
from demo_parts.scenario import ON_DEVICE, Scenario

FOREVER_S = float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    report = Report(is_json=options.json)
    try:
        with tempfile.TemporaryDirectory(prefix="mqrouter-demo-") as folder, Children(Path(folder)) as children:
            play(Path(folder), children, report, is_kept=options.keep)
    except DemoError as error:
        report.failed(str(error), error.log)
        return 1
    except InterruptedDemoError as error:
        print(f"interrupted ({error}): everything is stopped", file=sys.stderr)
        return error.exit_code
    return 0


def play(folder: Path, children: Children, report: Report, *, is_kept: bool) -> None:
    started_s = time.monotonic()
    report.introduction()
    scenario = Scenario(folder, children, report)
    outcomes = scenario.play()
    report.summary(outcomes)
    report.note(f"{time.monotonic() - started_s:.1f} s in all")
    if is_kept:
        keep(folder, children, report, scenario)


def keep(folder: Path, children: Children, report: Report, scenario: Scenario) -> None:
    """Returns after Ctrl-C. Raises DemoError where a service ends meanwhile."""
    gateway, prefix = scenario.gateway, scenario.gateway.settings.prefix
    report.part("Everything keeps running until Ctrl-C. Try, in another terminal:")
    report.commands(
        [
            f"mosquitto_rr -V mqttv311 -h 127.0.0.1 -p {scenario.broker_port} -q 1 -W 30"
            f" -t {prefix}/ask/me -e {prefix}/answer/me -m {shlex.quote(ON_DEVICE)}",
            gateway.line("queue", "list", "--all"),
            gateway.line("status"),
        ]
    )
    report.part(f"Configuration, logs and database are in {folder}, and go with the demo.")
    report.doing = "keeping it running"
    try:
        children.wait_until(lambda: None, "Ctrl-C", FOREVER_S)
    except InterruptedDemoError:
        return
