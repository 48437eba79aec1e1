"""The pages of a real daemon: everything in them comes from its running parts."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from harness import WAIT_S, Site, poll, running_site

pytestmark = pytest.mark.real_model

TOKEN = "operator-token-0123456789"
PAGES = ("/", "/queue?state=any", "/decisions", "/explain", "/tiers", "/config", "/actions")


def port_of(site: Site) -> int:
    return int(site.gateway.wait_for_event("http.listening")["port"])


class Browser:
    """Without scripts; keeps cookies and follows redirects."""

    def __init__(self, port: int) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        wanted = urllib.request.Request(self._url + path, headers={"Accept": "text/html"})
        with self._opener.open(wanted, timeout=WAIT_S) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> str:
        wanted = urllib.request.Request(
            self._url + path, urllib.parse.urlencode(fields).encode(), {"Accept": "text/html", "Origin": self._url}
        )
        with self._opener.open(wanted, timeout=WAIT_S) as answer:
            return str(answer.read().decode())


def token_of(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found is not None, page
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "operator.token").write_text(TOKEN, encoding="utf-8")
    text = f'[http]\nenabled = true\nport = 0\noperator_token = {{ file = "{folder}/operator.token" }}\n'
    with running_site(folder, text=text) as site:
        yield site


@pytest.fixture
def browser(site: Site) -> Browser:
    browser = Browser(port_of(site))
    browser.post("/login", csrf=token_of(browser.get("/login")), token=TOKEN)
    return browser


def test_every_page_of_a_daemon_at_work(site: Site, browser: Browser) -> None:
    assert site.gateway.cli("ask", "--device", "barn", "will frost reach the barn by dawn?").returncode == 0

    def answered() -> dict[str, str] | None:
        found = {path: browser.get(path) for path in PAGES}
        return found if "delivered" in found["/queue?state=any"] else None

    found = poll(answered, lambda: "the answer is delivered")
    assert "127.0.0.1:" in found["/"] and "connected" in found["/"]
    assert "frost" in found["/decisions"] and "above threshold" in found["/decisions"]
    assert "all-minilm-l6-v2" in found["/tiers"]
    assert "http.operator_token" in found["/config"] and "mqrouter.toml:" in found["/config"]
    assert TOKEN not in "".join(found.values())
    assert "by dawn" not in "".join(found.values())


def test_question_is_explained_and_not_stored(site: Site, browser: Browser) -> None:
    before = json.loads(site.gateway.cli("queue", "stats", "--json").stdout or "{}")
    token = token_of(browser.get("/explain"))
    page = browser.post("/explain", csrf=token, question="will it freeze in the orchard?", device="", strategy="")
    assert 'id="found"' in page and "frost" in page and "Nearest examples" in page
    assert "private" not in browser.post("/explain", csrf=token, question="will it freeze?").partition('id="found"')[2]
    page = browser.post("/explain", csrf=token, question="will it freeze?", private="1")
    assert "private_unanswerable" in page
    assert json.loads(site.gateway.cli("queue", "stats", "--json").stdout or "{}") == before


def test_open_stream_does_not_delay_the_stop(tmp_path: Path) -> None:
    with running_site(tmp_path, text="[http]\nenabled = true\nport = 0\n") as site:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(site), timeout=WAIT_S)
        connection.request("GET", "/events")
        stream = connection.getresponse()
        assert stream.readline().startswith(b"retry")
        assert stream.readline() == b"\n" and stream.readline().startswith(b"data: ")
        assert site.gateway.stop() == 0
        stream.read()  # it ends
        connection.close()
