"""Requests that only look as if they came from a page of the gateway itself, or from somebody with a token."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from fuzzing.site import OPERATOR, TIMEOUT_S, VIEWER, FuzzedSite

HOSTS = ["evil.example", "evil.example:8087", "localhost.evil.example", "127.0.0.1.evil.example", "169.254.169.254", ""]
FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]
WRONG_TOKENS = {
    "none": ({}, 401),
    "viewer": ({"Authorization": f"Bearer {VIEWER}"}, 403),
    "wrong": ({"Authorization": f"Bearer {OPERATOR}x"}, 401),
    "empty": ({"Authorization": "Bearer "}, 401),
    "basic": ({"Authorization": f"Basic {OPERATOR}"}, 401),
    "in the query": ({}, 401),
}


def operations(site: FuzzedSite) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields method, path and description of everything that is described, and of the metrics."""
    for template, methods in site.document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), re.sub(r"{\w+}", "hub", template), operation
    yield "GET", "/metrics", {"x-role": "viewer"}


def asked(site: FuzzedSite, number: int, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Returns status and code; each is asked from an address of its own, for wrong tokens are counted by address."""
    source = (f"127.1.{1 + number // 250}.{1 + number % 250}", 0)
    connection = http.client.HTTPConnection(*site.address, timeout=TIMEOUT_S, source_address=source)
    body = b'{"all": true, "tier": "hub", "priority": 1, "ttl_s": 60}' if method == "POST" else None
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body or b"")), **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    try:
        return response.status, json.loads(content).get("error", {}).get("code", "")
    except ValueError:
        return response.status, ""


def why_not_refused(site: FuzzedSite) -> list[str]:
    """Returns what was answered that should not have been, for every operation there is."""
    found: list[str] = []
    numbers = count()

    def expect(method: str, path: str, headers: Mapping[str, str], wanted: tuple[int, str]) -> None:
        answer = asked(site, next(numbers), method, path, headers)
        if answer != wanted:
            found.append(f"{method} {path} {dict(headers)}: {answer}, not {wanted}")

    bearer = {"Authorization": f"Bearer {OPERATOR}"}
    for method, path, operation in operations(site):
        for host in HOSTS:
            expect(method, path, bearer | {"Host": host}, (421, "wrong_host"))
        for headers in FOREIGN:
            expect(method, path, bearer | headers, (403, "cross_site"))
        if operation["x-role"] == "operator":
            for kind, (headers, status) in WRONG_TOKENS.items():
                asks = f"{path}?token={OPERATOR}&access_token={OPERATOR}" if kind == "in the query" else path
                expect(method, asks, headers, (status, "forbidden" if status == 403 else "unauthorized"))
    return found
