"""What Home Assistant was told outlives the process, and a file that is none harms nobody."""

from pathlib import Path

import pytest

from mqrouter.core.discovery import Announced
from mqrouter.edge.discovery_file import DiscoveryFile

TOLD = Announced("homeassistant/device/x/config", {"queue_depth": "sensor"})


def test_what_was_told_is_known_to_the_next_life_until_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "home_assistant.json"
    assert DiscoveryFile(path).read() is None
    DiscoveryFile(path).write(TOLD)
    assert DiscoveryFile(path).read() == TOLD
    DiscoveryFile(path).forget()
    assert DiscoveryFile(path).read() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"topic": 1, "components": {}}', b'{"topic": "t"}'])
def test_file_that_is_none_is_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "home_assistant.json"
    path.write_bytes(content)
    assert DiscoveryFile(path).read() is None
    DiscoveryFile(path).write(TOLD)
    assert DiscoveryFile(path).read() == TOLD


def test_folder_that_takes_nothing_harms_nobody(tmp_path: Path) -> None:
    file = DiscoveryFile(tmp_path / "none" / "home_assistant.json")
    file.write(TOLD)
    file.forget()
    assert file.read() is None
