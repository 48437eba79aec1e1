"""The command behind tools/soak."""

from __future__ import annotations

import sys

from long_run import parser, run_and_report

from soaking.soak import run

DESCRIPTION = """Asks the daemon questions while everything around it fails, then judges: nothing lost, nothing
mixed up, nothing unexplained."""
EPILOG = """example:
  tools/soak --minutes 30 --seed 7

Exit code 0: every promise was kept; 1: one was not, and the last line says how to see it again."""


def main() -> int:
    command = parser("soak", DESCRIPTION, EPILOG, "what goes wrong, and in which order")
    command.add_argument("--minutes", type=float, default=2.0, metavar="N", help="how long things go wrong (2)")
    options = command.parse_args()
    return run_and_report(options, lambda folder, say: run(folder, options.minutes, options.seed, say))


if __name__ == "__main__":
    sys.exit(main())
