"""The HTTP API of a real daemon under requests nobody should send; tools/fuzz asks for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzzing.forged import operations, why_not_refused
from fuzzing.generated import fuzz
from fuzzing.hostile import assault
from fuzzing.site import FuzzedSite, fuzzed_site

pytestmark = pytest.mark.real_model

SEED = 20261121


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedSite]:
    """Its end fails where the daemon logged a traceback."""
    with fuzzed_site(tmp_path_factory.mktemp("fuzzed")) as site:
        yield site


def test_forged_requests_are_refused_everywhere(site: FuzzedSite) -> None:
    roles = [operation["x-role"] for _, _, operation in operations(site)]
    assert why_not_refused(site) == []
    assert roles.count("operator") > 14
    assert [row["action"] for row in site.ask("GET", "/v1/actions").json()["actions"]] == ["import"]


def test_every_way_of_changing_something_needs_the_operator(site: FuzzedSite) -> None:
    assert {role for method, _, operation in operations(site) if method != "GET" for role in [operation["x-role"]]} == {
        "operator"
    }


def test_generated_requests_get_what_the_description_says_in_every_role(site: FuzzedSite) -> None:
    report = fuzz(site, examples=8, number=SEED)

    assert report.problems == []
    unheard = [label for label, statuses in report.statuses.items() if 200 not in statuses]
    assert not unheard, "nothing of these was ever carried out"


def test_hostile_bytes_are_refused_and_the_daemon_lives_on(site: FuzzedSite) -> None:
    outcome = assault(site, mutations=2_000, seed=SEED)

    assert outcome.problems == []
    assert {"400", "404", "405", "413", "415", "417", "421"} <= outcome.statuses.keys()
    unreadable = site.site.gateway.events("http.request_unreadable")
    assert unreadable and all(event.keys() == {"event", "level", "timestamp", "error"} for event in unreadable)
