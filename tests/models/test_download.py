from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_fixtures import Site, served

from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.models.download import Part, download

BODY = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def site() -> Iterator[Site]:
    with served(BODY) as site:
        yield site


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path / "model.gguf.part")


def fetch(site: Site, part: Part) -> list[tuple[int, int | None]]:
    told: list[tuple[int, int | None]] = []
    download(site.url, part, lambda done, total: told.append((done, total)), pause=lambda _: None)
    return told


def test_whole_body_arrives_and_progress_is_told(site: Site, part: Part) -> None:
    told = fetch(site, part)
    assert part.path.read_bytes() == BODY
    assert told[0] == (0, len(BODY))
    assert told[-1] == (len(BODY), len(BODY))


def test_broken_connection_is_taken_up_where_it_stopped(site: Site, part: Part) -> None:
    site.cuts = [300_000, 200_000]
    fetch(site, part)
    assert part.path.read_bytes() == BODY
    assert site.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_later_pull_goes_on_with_the_part(site: Site, part: Part) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(UnreachableError, match=r"0\.3 MB are kept"):
        fetch(site, part)
    told = fetch(site, part)
    assert told[0] == (300_000, len(BODY))
    assert part.path.read_bytes() == BODY


def test_server_that_ignores_range_sends_it_all_again(site: Site, part: Part) -> None:
    site.honours_range = False
    site.cuts = [300_000]
    fetch(site, part)
    assert part.path.read_bytes() == BODY


def test_changed_etag_starts_anew(site: Site, part: Part) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(UnreachableError):
        fetch(site, part)
    site.body, site.etag = BODY[::-1], '"v2"'
    fetch(site, part)
    assert site.ranges[-1] == "bytes=300000-"
    assert part.path.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_part_without_strong_validator_is_never_continued(site: Site, part: Part, etag: str | None) -> None:
    site.etag = etag
    site.cuts = [300_000]
    fetch(site, part)
    assert site.ranges == [None, None]
    assert part.path.read_bytes() == BODY


def test_part_of_another_address_is_never_continued(site: Site, part: Part) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(UnreachableError):
        fetch(site, part)
    site.url += "?other"
    fetch(site, part)
    assert site.ranges[-1] is None
    assert part.path.read_bytes() == BODY


def test_truncated_body_is_never_taken_for_whole(site: Site, part: Part) -> None:
    site.etag = None
    site.cuts = [300_000] * 4
    with pytest.raises(UnreachableError, match="ended after 300000 of 1048576 bytes"):
        fetch(site, part)


def test_complete_part_needs_no_byte_more(site: Site, part: Part) -> None:
    fetch(site, part)
    assert fetch(site, part) == []
    assert part.path.read_bytes() == BODY


def test_part_longer_than_the_file_is_dropped(site: Site, part: Part) -> None:
    fetch(site, part)
    site.body = BODY[:500_000]
    fetch(site, part)
    assert part.path.read_bytes() == BODY[:500_000]


def test_wrong_range_is_not_joined(site: Site, part: Part) -> None:
    site.cuts = [300_000]
    site.shifts_range = True
    fetch(site, part)
    assert part.path.read_bytes() == BODY


def test_server_error_is_tried_again(site: Site, part: Part) -> None:
    site.failures = [503, 429]
    fetch(site, part)
    assert part.path.read_bytes() == BODY


def test_refusal_is_final(site: Site, part: Part) -> None:
    site.failures = [404]
    with pytest.raises(ModelFileError, match="answered 404"):
        fetch(site, part)
    assert len(site.ranges) == 1


def test_nobody_listening_is_unreachable(part: Part) -> None:
    with pytest.raises(UnreachableError, match="refused"):
        download("http://127.0.0.1:1/m.gguf", part, lambda *_: None, pause=lambda _: None)


def test_body_that_does_not_fit_is_not_begun(site: Site, part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ModelFileError, match="1 MB are needed and 0 MB are free"):
        fetch(site, part)


def test_disk_that_fills_up_ends_the_download(site: Site, part: Part) -> None:
    def full(_done: int, _total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelFileError, match="No space left"):
        download(site.url, part, full, pause=lambda _: None)
    assert len(site.ranges) == 1
