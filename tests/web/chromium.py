"""A real browser: what a user sees, clicks and types.

Every wait is for something seen in the page, with a deadline.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devtools import WAIT_S, Protocol, ProtocolError
from harness import Process, Signal, poll

MAX_TABS = 60
PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or "chromium"
OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--mute-audio",
    "--force-color-profile=srgb",
)
KEYS = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    " ": {"code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "ArrowDown": {"code": "ArrowDown", "windowsVirtualKeyCode": 40},
}
OPERATED = frozenset(
    {"button", "link", "textbox", "combobox", "checkbox", "searchbox", "spinbutton", "radio", "DisclosureTriangle"}
)
FIND = """
    (css, text) => [...document.querySelectorAll(css)].find((found) =>
        !text || (found.innerText || found.value || '').trim() === text || found.getAttribute('aria-label') === text)
"""


class Chromium:
    """One browser with a profile of its own; each tab has its own cookies."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which(PROGRAM), "the pages are tested in a browser: apt-get install chromium"
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = Process([PROGRAM, *OPTIONS, *sandbox, f"--user-data-dir={folder}", "about:blank"])
        line = self._process.wait_for_line(lambda text: text.startswith("DevTools listening on "), WAIT_S)
        self._protocol = Protocol(line.removeprefix("DevTools listening on ").strip())

    def close(self) -> None:
        try:
            self._protocol.call("Browser.close")
            self._protocol.close()
        finally:
            self._process.wait(WAIT_S)

    @contextmanager
    def tab(self, origin: str) -> Iterator[Tab]:
        """A new one, as in a private window."""
        context = self._protocol.call("Target.createBrowserContext")["browserContextId"]
        target = self._protocol.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self._protocol.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            yield Tab(self._protocol, session, origin)
        finally:
            self._protocol.listeners.pop(session, None)
            self._protocol.call("Target.disposeBrowserContext", browserContextId=context)


@dataclass
class Seen:
    """What a tab's browser did and complained about."""

    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    """Bytes of each answer's content as the page got it, without compression, by URL."""
    loads: int = 0

    @property
    def weight(self) -> int:
        """Bytes of all of them together, without the stream that goes on."""
        return sum(size for url, size in self.weights.items() if not url.endswith("/events"))


class Tab:
    def __init__(self, protocol: Protocol, session: str, origin: str) -> None:
        self._protocol = protocol
        self._session = session
        self.origin = origin
        self.seen = Seen()
        self._url_of: dict[str, str] = {}
        self._stand_in_status = 200
        self._happened = Signal()
        protocol.listeners[session] = lambda name, what: self._happened.give(lambda: self._note(name, what))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._protocol.call(method, self._session, **parameters)

    def _note(self, name: str, what: dict[str, Any]) -> None:
        seen = self.seen
        match name:
            case "Page.loadEventFired":
                seen.loads += 1
            case "Network.requestWillBeSent":
                self._url_of[what["requestId"]] = what["request"]["url"]
                seen.urls.append(what["request"]["url"])
            case "Fetch.requestPaused":
                number, status = what["requestId"], self._stand_in_status
                self._protocol.send("Fetch.fulfillRequest", self._session, requestId=number, responseCode=status)
            case "Network.dataReceived":
                url = self._url_of.get(what["requestId"], "")
                seen.weights[url] = seen.weights.get(url, 0) + what["dataLength"]
            case "Runtime.consoleAPICalled" if what["type"] in ("error", "warning", "assert"):
                seen.complaints.append(f"console.{what['type']}: {what['args']}")
            case "Runtime.exceptionThrown":
                seen.complaints.append(f"exception: {what['exceptionDetails']}")
            case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
                seen.complaints.append(f"log: {what['entry']['text']} {what['entry'].get('url', '')}")

    # --- going somewhere ----------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Returns once the page and all it needs are loaded."""
        with self.loading(f"{path} to load"):
            error = self.call("Page.navigate", url=self.origin + path).get("errorText")
        assert not error, f"{path}: {error}"

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """What the block does brings another page, which is loaded at its end."""
        before = self.seen.loads
        yield
        self._happened.wait(lambda: self.seen.loads > before or None, lambda: f"{what}; at {self.url}", WAIT_S)

    @property
    def url(self) -> str:
        return str(self.js("location.href"))

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    # --- looking ------------------------------------------------------------------------------------

    def js(self, expression: str) -> Any:
        """Returns the value of an expression in the page, however its scripts are."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails'].get('exception', {}).get('description')}")
        return found["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = WAIT_S) -> Any:
        """Returns the first true value; the page may be another one in between."""

        def found() -> Any:
            try:
                return self.js(expression) or None
            except ProtocolError:
                return None

        return poll(found, lambda: f"{expression} at {self.url}: {self.text()[:2000]}", timeout_s)

    def wait_for_text(self, css: str, text: str, timeout_s: float = WAIT_S) -> None:
        self.wait_for(f"document.querySelector({json.dumps(css)})?.innerText.includes({json.dumps(text)})", timeout_s)

    def text(self, css: str = "body") -> str:
        return str(self.js(f"document.querySelector({json.dumps(css)})?.innerText ?? ''"))

    def texts(self, css: str) -> list[str]:
        found: list[str] = self.js(
            f"[...document.querySelectorAll({json.dumps(css)})].map((one) => one.innerText.trim())"
        )
        return found

    def has(self, css: str) -> bool:
        return bool(self.js(f"document.querySelector({json.dumps(css)}) !== null"))

    def count(self, css: str) -> int:
        return int(self.js(f"document.querySelectorAll({json.dumps(css)}).length"))

    def screenshot(self, file: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def controls(self) -> list[tuple[str, str]]:
        """Returns role and name of everything a user may operate, as the browser tells it to screen readers."""
        return [(role, name) for role, name in self._accessible() if role in OPERATED]

    def roles(self) -> list[str]:
        """Returns what the parts of the page are to a screen reader."""
        return [role for role, _ in self._accessible()]

    def _accessible(self) -> list[tuple[str, str]]:
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node.get("role", {}).get("value", ""), node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        ]

    # --- doing --------------------------------------------------------------------------------------

    def click(self, css: str, text: str = "") -> None:
        """A click of the mouse in the middle of the first such element, which must be there to be seen and hit."""
        find = f"({FIND})({json.dumps(css)}, {json.dumps(text)})"
        place = self.js(
            f"""(() => {{
                const found = {find};
                if (!found) return null;
                found.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}});
                const box = [...found.getClientRects()].find((one) => one.width && one.height);
                if (!box) return null;
                const x = box.x + box.width / 2, y = box.y + box.height / 2, hit = document.elementFromPoint(x, y);
                return hit && (found.contains(hit) || hit.contains(found)) ? [x, y] : null;
            }})()"""
        )
        assert place is not None, f"nothing to click at: {css} {text!r} at {self.url}: {self.text()[:2000]}"
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", **{**mouse, "type": "mouseMoved", "button": "none"})
        self.call("Input.dispatchMouseEvent", **mouse, type="mousePressed")
        self.call("Input.dispatchMouseEvent", **mouse, type="mouseReleased")

    def follow(self, css: str, text: str = "") -> None:
        """Clicks at what leads to another page, and waits for that."""
        with self.loading(f"a click at {css} {text!r}"):
            self.click(css, text)

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **KEYS[key])
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=KEYS[key]["code"])

    def write(self, text: str) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def fill(self, css: str, text: str) -> None:
        """Replaces what stands in a field, as by typing over it."""
        self.click(css)
        self.js(f"document.querySelector({json.dumps(css)}).select()")
        self.write(text)

    def choose(self, css: str, value: str) -> None:
        """Chooses in a list of options: the list itself is the browser's, outside the page."""
        self.js(
            f"""(() => {{
                const list = document.querySelector({json.dumps(css)});
                list.value = {json.dumps(value)};
                if (list.value !== {json.dumps(value)}) throw new Error('no such option');
                list.dispatchEvent(new Event('change', {{bubbles: true}}));
            }})()"""
        )

    def choose_by_hand(self, css: str, text: str) -> None:
        """The same by the keyboard: the list takes the letters of an option."""
        self.js(f"document.querySelector({json.dumps(css)}).focus()")
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", key=letter, text=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def focused(self) -> str:
        """Returns a few words about what has the focus: element, id or name, text or value."""
        return str(
            self.js(
                "(({tagName, id, name, value, innerText}) =>"
                " [tagName, id || name || '', (innerText || value || '').trim().slice(0, 40)].join(' '))"
                "(document.activeElement)"
            )
        )

    def tab_to(self, wanted: str) -> None:
        """Presses Tab until that has the focus."""
        for _ in range(MAX_TABS):
            self.press("Tab")
            if self.focused().startswith(wanted):
                return
        raise AssertionError(f"{wanted} is not reached by {MAX_TABS} times Tab at {self.url}")

    # --- other circumstances ------------------------------------------------------------------------

    def resize(self, width: int, height: int) -> None:
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )

    def prefer(self, **features: str) -> None:
        """As `color_scheme="dark"`."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)

    def disable_scripts(self) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=True)

    def answer_for_the_server(self, pattern: str, status: int) -> None:
        """Whoever asks for such a URL gets this status, as from a proxy."""
        self._stand_in_status = status
        self.call("Fetch.enable", patterns=[{"urlPattern": pattern}])

    def before_scripts(self, source: str) -> None:
        """Runs in every page before its own scripts do."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=source)
