"""The command behind tools/failover."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from failover.drive import Outcome, run
from failover.faults import NAMES

SLACK_S = 2.0
HEAD = ("fault", "variant", "wire", "expected", "got", "seconds", "deadline", "calls", "")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/failover",
        description="Drives sixteen ways for a tier to fail through the daemon; a good tier stands behind the bad one.",
        epilog="The deadline is what the configured limits make the question wait for, and 2 s.",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object on standard output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mqrouter-failover-") as folder:
        outcomes = run(Path(folder), slack_s=SLACK_S)
    right = right_faults(outcomes)
    if arguments.json:
        found = {"right": len(right), "faults": len(NAMES), "rows": list(map(_fields, outcomes))}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _print_table([HEAD, *map(_row, outcomes)])
        sys.stdout.write(f"\n{len(right)} of {len(NAMES)} faults with the right outcome within the deadline\n")
    return 0 if len(right) == len(NAMES) else 1


def right_faults(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the faults of which every variant was right."""
    return [name for name in NAMES if all(one.is_right for one in outcomes if one.fault.name == name)]


def _fields(outcome: Outcome) -> dict[str, object]:
    fault = outcome.fault
    return {
        "fault": fault.name,
        "variant": fault.variant,
        "wire": str(fault.kind),
        "expected": list(fault.answered_by),
        "got": list(outcome.answered_by),
        "elapsed_s": round(outcome.elapsed_s, 3),
        "deadline_s": outcome.deadline_s,
        "calls": outcome.calls,
        "calls_expected": fault.calls,
        "is_right": outcome.is_right,
    }


def _row(outcome: Outcome) -> tuple[str, ...]:
    fault = outcome.fault
    calls = str(outcome.calls) if outcome.calls == fault.calls else f"{outcome.calls}, not {fault.calls}"
    return (
        fault.name,
        fault.variant,
        str(fault.kind),
        ", ".join(fault.answered_by),
        ", ".join(outcome.answered_by),
        f"{outcome.elapsed_s:.2f}",
        f"{outcome.deadline_s:.1f}",
        calls,
        "ok" if outcome.is_right else "WRONG",
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
