"""The command behind tools/soak."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from soaking.soak import run

EPILOG = """example:
  tools/soak --minutes 30 --seed 7

Exit code 0: every promise was kept; 1: one was not, and the last line says how to see it again."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/soak",
        description="Asks the daemon questions while everything around it fails, then judges: nothing lost, nothing"
        " mixed up, nothing unexplained.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=2.0, metavar="N", help="how long things go wrong (2)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what goes wrong, and in which order (1)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mqrouter-soak-"))
    report = run(folder, options.minutes, options.seed, _say)
    _say("")
    sys.stdout.write((report.as_json() if options.json else report.as_text()) + "\n")
    if report.is_ok:
        shutil.rmtree(folder)
        return 0
    sys.stderr.write(f"its files are kept: {folder}\n")
    return 1


def _say(text: str) -> None:
    """One line that changes, on a terminal only."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        end = "" if text else "\r"
        sys.stderr.write(f"\r\033[K{text[:width]}{end}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
