"""The faults' own part of pytest: where the harness lies, and the summary at the end."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "e2e"), str(Path(__file__).parent)]

from summary import *  # noqa: E402, F403
