"""The starter configuration that `mqrouter init` copies."""

from __future__ import annotations

from pathlib import Path


def starter_dir() -> Path:
    """Returns its folder: packed into an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    packed = package / "_config"
    return packed if packed.is_dir() else package.parent / "config"
