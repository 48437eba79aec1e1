from __future__ import annotations

from pathlib import Path

import pytest
from model_fixtures import write_gguf

from mqrouter.errors import ModelFileError
from mqrouter.models import manifest, store
from mqrouter.models.catalogue import MINILM, Purpose
from mqrouter.models.files import sha256_of
from mqrouter.models.manifest import ManifestEntry
from mqrouter.models.store import MissingModelError, State


def add(models_dir: Path, name: str = "farm", *, recorded: bool = True, source: str = "https://example.org/m") -> Path:
    path = write_gguf(models_dir / f"{name}.gguf")
    if recorded:
        entry = ManifestEntry(name, path.name, path.stat().st_size, sha256_of(path), source, 0.0)
        manifest.record(models_dir, entry)
    return path


def test_missing_model_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "default_models_dir", lambda: tmp_path)
    with pytest.raises(MissingModelError) as error:
        store.resolve(MINILM.name, tmp_path)
    assert str(error.value) == (
        f"model all-minilm-l6-v2 is not in {tmp_path}: run `mqrouter models pull all-minilm-l6-v2`"
    )


def test_command_names_a_folder_that_is_not_the_default(tmp_path: Path) -> None:
    assert store.pull_command("farm", tmp_path) == f"mqrouter models pull farm --from FILE --models-dir {tmp_path}"


def test_uncatalogued_file_is_found_by_stem_and_by_name(tmp_path: Path) -> None:
    path = add(tmp_path, recorded=False)
    for name in ("farm", "farm.gguf"):
        model = store.resolve(name, tmp_path)
        assert (model.name, model.path, model.entry, model.purpose) == ("farm", path, None, Purpose.EMBED)


def test_catalogued_file_is_found_by_its_stem_too(tmp_path: Path) -> None:
    write_gguf(tmp_path / MINILM.file)
    assert store.resolve("all-minilm-l6-v2.Q8_0", tmp_path).entry is MINILM


@pytest.mark.parametrize("name", ["../farm", "/etc/passwd", ".farm"])
def test_path_is_no_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a model name"):
        store.resolve(name, tmp_path)


def test_quick_check_passes_a_whole_file(tmp_path: Path) -> None:
    store.quick_check(add(tmp_path))


def test_quick_check_sees_another_size(tmp_path: Path) -> None:
    path = add(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"bytes, and had .* --from https://example.org/m"):
        store.quick_check(path)


def test_quick_check_sees_another_format(tmp_path: Path) -> None:
    path = add(tmp_path, MINILM.name, recorded=False)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelFileError, match="begins with b'vers'"):
        store.quick_check(path)


def test_flipped_bit_is_found_by_verify_alone(tmp_path: Path) -> None:
    path = add(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = store.resolve("farm", tmp_path)
    assert store.quick_state(model) is State.PRESENT
    with pytest.raises(ModelFileError, match=r"has sha256 .* was expected: run `mqrouter models pull farm"):
        store.verify(model)


def test_unrecorded_file_is_said_to_be_so(tmp_path: Path) -> None:
    add(tmp_path, recorded=False)
    assert store.verify(store.resolve("farm", tmp_path)) is State.UNRECORDED


def test_torn_manifest_makes_files_unrecorded(tmp_path: Path) -> None:
    add(tmp_path)
    (tmp_path / manifest.FILE).write_text('{"models": {"farm": {"file"', encoding="utf-8")
    assert store.verify(store.resolve("farm", tmp_path)) is State.UNRECORDED


def test_removed_model_leaves_nothing(tmp_path: Path) -> None:
    path = add(tmp_path)
    (tmp_path / "farm.gguf.part").write_bytes(b"half")
    store.remove(store.resolve("farm", tmp_path))
    assert not path.exists()
    assert not (tmp_path / "farm.gguf.part").exists()
    assert manifest.read(tmp_path) == {}


def test_catalogue_comes_before_other_files(tmp_path: Path) -> None:
    for name in ("zebra", "ant", MINILM.file.removesuffix(".gguf"), "_odd"):
        write_gguf(tmp_path / f"{name}.gguf")
    assert [model.name for model in store.everything(tmp_path)] == [MINILM.name, "ant", "zebra"]


def test_missing_folder_has_no_models(tmp_path: Path) -> None:
    assert store.everything(tmp_path / "nowhere") == []
