"""Requests that no client library would send: written to the socket byte by byte, and at random beyond that."""

from __future__ import annotations

import gzip
import random
import select
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from fuzzing.site import DEVICE, OPERATOR, TEXTS, TIMEOUT_S, FuzzedSite

AT_ONCE = 16
SILENCE_S = 0.3
"""After that we say that no more comes. Where a slow machine had still something to say, it is not heard: no harm."""
MAX_HEARD = 200_000
BOMB = gzip.compress(b" " * 50_000_000, 9)
PATHS = [
    "/../../../../etc/passwd",
    "/v1/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/requests/..%2f..%2fcontrol.sock",
    "/v1/requests/%00",
    "/v1/requests/%ff%fe",
    "/v1/requests/%ed%a0%80",
    "/v1/requests/%25%32%66",
    "/v1/requests/" + "a" * 7_000,
    "/v1/requests/" + "%F0%9F%90%AE" * 500,
    "//evil.example/v1/requests",
    "/v1//requests",
    "/v1/requests/",
    "/v1/requests;a=b",
    "/v1/requests?" + "&".join(f"x{number}=1" for number in range(900)),
    "/v1/requests?text=" + "a" * 7_000,
    "/v1/requests?text=%ff",
    "/v1/requests?text=%00",
    "/v1/requests?text=%27%20OR%201%3D1--",
    "/v1/requests?device=%25_%25",
    "/v1/requests?limit=1&limit=2",
    "/v1/requests?limit=1e3",
    "/v1/requests?after=99999999999999999999999",
    "/v1/requests?older_than_s=nan",
    "/v1/requests?older_than_s=1e400",
    "/v1/requests?state=" + "&state=".join(["pending"] * 700),
    "/v1/orders/purge?older_than_s=inf",
    "/v1/orders/feedback?id=%ff&verdict=good",
    "http://evil.example/v1/requests",
    "*",
]
HEADERS = [
    "Host: evil.example\r\nX: y",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: \x0bchunked",
    "Content-Encoding: gzip",
    "Content-Encoding: nonsense",
    "Content-Type: application/json; charset=utf-7",
    "Content-Type: application/json; charset=\xff",
    "Content-Type: ;;;=",
    "Content-Type: multipart/form-data",
    "Authorization: Bearer",
    "Authorization: \xff\xfe",
    "Authorization: Basic b3BlcmF0b3I6",
    "Authorization: Bearer " + "x" * 7_000,
    "Origin: \x01",
    "Sec-Fetch-Site: \xff",
    "Expect: 100-continue",
    "Expect: nonsense",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c",
    "Range: bytes=0-,-1",
    "If-None-Match: *\r\nIf-Modified-Since: nonsense",
    "Cookie: " + "; ".join(f"c{number}=%00" for number in range(200)),
    "Cookie: \xff=\xff; mq=;;;=",
    "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1",
    "X-HTTP-Method-Override: POST",
    "X: " + "y" * 9_000,
    "\r\n".join(f"X{number}: y" for number in range(2_000)),
    "X\x00: y",
    "X: y\n Z: z",
    ": y",
    "no colon",
]
BODIES = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"all": true, "all": false}',
    b'{"ids": ["\\ud800"]}',
    b'{"priority": 1e999}',
    b'{"ttl_s": NaN, "all": true}',
    b'{"requests": [{"topic": "\\u0000", "payload": "x"}]}',
    b'{"requests": [{"topic": "mqrouter/farm/ask/d", "payload": "\\ud800"}]}',
    b'{"requests": [{"topic": "mqrouter/farm/ask/d", "payload": "x", "reply_topic": "#"}]}',
    b'"' + b"x" * 2_000_000 + b'"',
]
WHOLE = [
    b"",
    b"\r\n" * 100,
    b"GET\r\n\r\n",
    b"GET /livez\r\n\r\n",
    b"GET /livez HTTP/9.9\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"G\xffT /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE /v1/requests HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00",
]
CHUNKED = [
    b"zz\r\n\r\n",
    b"-1\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhel",
]


@dataclass
class Outcome:
    asked: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def assault(site: FuzzedSite, mutations: int, seed: int, say: Callable[[str], None] = lambda _line: None) -> Outcome:
    """Sends every hostile request, and then `mutations` of them broken further; the daemon answers on."""
    outcome = Outcome()
    sent = list(_requests(sorted(site.document()["paths"])))
    raws = [*sent, *_mutations(sent, mutations, seed)]
    with ThreadPoolExecutor(AT_ONCE) as senders:
        answers = senders.map(partial(_heard, site.address), range(len(raws)), raws)
        for number, (raw, heard) in enumerate(zip(raws, answers, strict=True), start=1):
            _judge(site, raw, heard, outcome)
            if number % 500 == 0:
                say(f"{number:6} sent, {len(outcome.problems)} problems  bytes at the socket")
    alive = site.ask("GET", "/livez", token=None)
    if alive.json() != {"alive": True}:
        outcome.problems.append(f"it does not live on: {alive.text}")
    return outcome


def _requests(paths: list[str]) -> Iterator[bytes]:
    """Each oddity alone, without a token and with the operator's; and some of them at every path."""
    tokens = ["", f"Authorization: Bearer {OPERATOR}"]
    for token in tokens:
        for path in PATHS:
            for method in ("GET", "POST"):
                yield _request(method, path, token)
        for header in HEADERS:
            yield _request("GET", "/v1/requests", token, header)
            yield _request("POST", "/v1/bulk/retry", token, header, body=b'{"all": true}')
        for path in ("/v1/bulk/cancel", "/v1/import", "/v1/requests/x/priority", "/v1/pause"):
            for body in BODIES:
                yield _request("POST", path, token, "Content-Type: application/json", body=body)
        for packed, name in ((BOMB, "gzip"), (zlib.compress(b" " * 5_000_000), "deflate"), (b"no zip", "gzip")):
            kind = f"Content-Type: application/json\r\nContent-Encoding: {name}"
            yield _request("POST", "/v1/import", token, kind, body=packed)
        for chunks in CHUNKED:
            kind = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
            yield _request("POST", "/v1/import", token, kind) + chunks
        for path in paths:
            for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
                yield _request(method, path.replace("{", "").replace("}", ""), token)
    yield from WHOLE


def _request(method: str, path: str, *headers: str, body: bytes | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body is not None and not any("Content-Length" in header for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    lines += [*(header for header in headers if header), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def _mutations(sent: list[bytes], number: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    short = [raw for raw in sent if 0 < len(raw) < 4_000]
    for _ in range(number):
        raw = bytearray(chance.choice(short))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(raw) + 1)
            match chance.randrange(4):
                case 0:
                    raw[at:at] = bytes(chance.choices(range(256), k=chance.randint(1, 4)))
                case 1:
                    del raw[at : at + chance.randint(1, 8)]
                case 2:
                    raw[at:at] = chance.choice([b"\r\n", b"\n", b"\0", b"%", b" ", b"\xff", b"{", b":", b"/../"])
                case _:
                    other = chance.choice(short)
                    raw[at:] = other[chance.randrange(len(other)) :]
            raw = raw or bytearray(b" ")
        yield bytes(raw)


def _judge(site: FuzzedSite, raw: bytes, heard: bytes, outcome: Outcome) -> None:
    outcome.asked += 1
    status = heard[9:12].decode("latin-1") if heard.startswith(b"HTTP/") else "none" if not heard else "odd"
    outcome.statuses[status] += 1
    hidden = [*site.secrets, *(() if OPERATOR.encode() in raw else (DEVICE, *TEXTS))]
    problems = [f"tells {word!r}" for word in hidden if word.encode() in heard and word.encode() not in raw]
    if status == "odd" or status.startswith("5"):
        problems.append(f"answers {heard[:120]!r}")
    outcome.problems += [f"{raw[:300]!r}: {problem}" for problem in problems]


def _heard(address: tuple[str, int], number: int, raw: bytes) -> bytes:
    """Returns what comes back until the daemon closes, or waits for more than there is.

    Each comes from an address of its own: wrong tokens are counted by address.
    """
    source = f"127.0.{1 + number // 250 % 250}.{1 + number % 250}"
    heard = bytearray()
    has_more = True
    with socket.create_connection(address, TIMEOUT_S, source_address=(source, 0)) as connection:
        try:
            connection.sendall(raw)
            while len(heard) < MAX_HEARD:
                if has_more and not select.select([connection], [], [], SILENCE_S)[0]:
                    connection.shutdown(socket.SHUT_WR)
                    has_more = False
                elif piece := connection.recv(65_536):
                    heard += piece
                else:
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass  # it had heard enough
        except TimeoutError:
            return b"does not let go"
    return bytes(heard)
