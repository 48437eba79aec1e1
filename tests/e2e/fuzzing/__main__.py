"""The command behind tools/fuzz."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.forged import why_not_refused
from fuzzing.generated import fuzz
from fuzzing.hostile import assault
from fuzzing.site import fuzzed_site

SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/fuzz",
        description="Asks a daemon's HTTP API what nobody should ask: generated from its own description in every role,"
        " byte by byte at the socket, from other sites' pages and under other names.",
        epilog="Exit code 0: nothing was wrong; 1: something was, and the same seed shows it again.",
    )
    parser.add_argument("--examples", type=int, default=300, metavar="N", help="per operation, as operator (300)")
    parser.add_argument("--mutations", type=int, default=50_000, metavar="N", help="requests broken at random (50000)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what is generated (1)")
    parser.add_argument("--only", default="", metavar="PATH", help="operations with this in their path")
    options = parser.parse_args()
    started_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_s:6.0f} s  {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="mqrouter-fuzz-") as folder, fuzzed_site(Path(folder)) as site:
        problems = why_not_refused(site)
        say(f"{len(problems)} problems  forged requests")
        generated = fuzz(site, options.examples, options.seed, say, options.only)
        hostile = assault(site, options.mutations, options.seed, say)
    problems += generated.problems + hostile.problems
    for problem in problems[:SHOWN]:
        print(problem[:1_000])
    print(f"{generated.asked} generated and {hostile.asked} hostile requests, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
