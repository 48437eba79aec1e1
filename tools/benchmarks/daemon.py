"""The daemon as it is. Run: daemon.py CONFIG."""

from __future__ import annotations

import sys

from mqrouter.cli.main import main

sys.argv[1:] = ["run", "-c", sys.argv[1]]
main()
