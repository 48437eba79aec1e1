"""The command behind tools/privacy_watch."""

from __future__ import annotations

import sys

from long_run import parser, run_and_report

from watching.watch import run

DESCRIPTION = """Asks private questions and others while tiers, daemon and configuration fail at random, and
searches everything that leaves the daemon, and its logs and listings, for what is private."""
EPILOG = """example:
  tools/privacy_watch --requests 10000 --seed 7

Exit code 0: no private byte was seen where none may be; 1: one was, or a question was lost."""


def main() -> int:
    command = parser("privacy_watch", DESCRIPTION, EPILOG, "which questions, and what goes wrong")
    command.add_argument("--requests", type=int, default=500, metavar="N", help="questions to ask (500)")
    options = command.parse_args()
    return run_and_report(options, lambda folder, say: run(folder, options.requests, options.seed, say))


if __name__ == "__main__":
    sys.exit(main())
