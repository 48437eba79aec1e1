"""Plays the demo: run by `tools/demo`, which makes the environment first."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def leave(number: int, _frame: FrameType | None) -> None:
    """Nothing is started yet, so there is nothing to stop."""
    os._exit(128 + number)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    from demo_parts.main import main as play  # takes a while

    return play()


if __name__ == "__main__":
    sys.exit(main())
