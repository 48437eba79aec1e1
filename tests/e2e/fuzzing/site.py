"""A daemon with something to lose: tokens, questions that wait, are leased and answered, private ones among them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from harness import Behaviour, Site, running_site

VIEWER, OPERATOR = "viewer-token-wheelbarrow", "operator-token-pitchfork"
TEXTS = ("okapi-question", "okapi-answer")
"""Words of the texts: for operators who ask for them."""
DEVICE = "okapi-shed"
"""For those who may look."""
TRACES = ("Traceback", 'File "', "site-packages", "aiohttp")
"""What no answer says of what is inside."""
NAMES = {"/v1/tiers/": ["hub"], "/v1/routes/": ["frost"], "/v1/orders/": ["purge", "vacuum", "feedback"]}
"""What there is, by the beginning of the path that names it; else requests."""
TIMEOUT_S = 120
"""Not a measure of the daemon: the machine may be slow."""
ENOUGH = 30


@dataclass
class FuzzedSite:
    """`url` is that of the API over TCP."""

    site: Site
    url: str
    session: requests.Session = field(default_factory=requests.Session)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None and parts.port is not None
        return parts.hostname, parts.port

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody is told, whoever asks."""
        return (VIEWER, OPERATOR, str(self.site.gateway.folder), *TRACES)

    def ask(self, method: str, path: str, *, token: str | None = OPERATOR, **more: Any) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= more.pop("headers", {})
        return self.session.request(method, self.url + path, headers=headers, timeout=TIMEOUT_S, **more)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/v1/openapi.json", token=None).json()
        return found

    def rows(self, query: str = "limit=20") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/v1/requests?{query}").json()["requests"]
        return found

    def refill(self) -> None:
        """Some questions wait, whatever was done to earlier ones."""
        if len(self.rows(f"state=pending&state=leased&limit={ENOUGH}")) < ENOUGH:
            entries = [_entry(next(self._numbers)) for _ in range(10)]
            self.ask("POST", "/v1/import", json={"requests": entries}).raise_for_status()

    def known(self, path: str) -> Sequence[str]:
        """Names that mean something in this path of the description: of requests, tiers, routes or orders."""
        for start, names in NAMES.items():
            if path.startswith(start):
                return names
        return [row["id"] for row in self.rows()]


def _entry(number: int) -> dict[str, str]:
    body = {"id": f"n{number}", "question": f"is the okapi-question {number} frozen?", "private": number % 4 == 0}
    return {"topic": f"mqrouter/farm/ask/{DEVICE}", "payload": json.dumps(body)}


@contextmanager
def fuzzed_site(folder: Path) -> Iterator[FuzzedSite]:
    lines = ["[http]", "enabled = true", "port = 0"]
    for name, token in (("viewer", VIEWER), ("operator", OPERATOR)):
        path = folder / f"{name}.token"
        path.write_text(token, encoding="utf-8")
        lines.append(f'{name}_token = {{ file = "{path}" }}')
    with running_site(folder, text="\n".join([*lines, "[tiers.hub]", "trusted = true"])) as site:
        port = site.gateway.wait_for_event("http.listening")["port"]
        found = FuzzedSite(site, f"http://127.0.0.1:{port}")
        _have_one_answered(site)
        site.tier.hold()  # what comes now waits
        found.refill()
        with found.session:
            yield found


def _have_one_answered(site: Site) -> None:
    site.tier.script = lambda _call: Behaviour(text="the okapi-answer")
    with site.requester() as requester:
        requester.subscribe("my/answers")
        question = "is the okapi-question frozen?"
        requester.publish(f"mqrouter/farm/ask/{DEVICE}", question, reply_to="my/answers", correlation=b"0")
        requester.answer_to(b"0")
