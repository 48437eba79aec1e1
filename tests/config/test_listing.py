"""What is shown of the settings in force."""

from __future__ import annotations

import pytest

from mqrouter.config.listing import without_credentials


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://me:secret@hub:8080/v1", "http://…@hub:8080/v1"),
        ("http://me:se@cret@hub/v1", "http://…@hub/v1"),
        ("http://me@hub", "http://…@hub"),
        ("http://hub/v1?mail=a@b", "http://hub/v1?mail=a@b"),
        ('["http://a:b@c", "me@d"]', '["http://…@c", "me@d"]'),
    ],
)
def test_addresses_are_shown_without_credentials(value: str, shown: str) -> None:
    assert without_credentials(value) == shown
