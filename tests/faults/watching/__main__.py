"""The command behind tools/privacy_watch."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from watching.watch import run

EPILOG = """example:
  tools/privacy_watch --requests 10000 --seed 7

Exit code 0: no private byte was seen where none may be; 1: one was, or a question was lost."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/privacy_watch",
        description="Asks private questions and others while tiers, daemon and configuration fail at random, and"
        " searches everything that leaves the daemon, and its logs and listings, for what is private.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=500, metavar="N", help="questions to ask (500)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which questions, and what goes wrong (1)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mqrouter-watch-"))
    report = run(folder, options.requests, options.seed, _say)
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
