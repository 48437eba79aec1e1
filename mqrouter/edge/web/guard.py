"""Who is asking, and from where: every request passes here before anything is done for it."""

from __future__ import annotations

import hmac
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from pydantic import SecretStr

from mqrouter.core.rate import DeviceRates
from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role, TcpOptions
from mqrouter.edge.web.sessions import Sessions

SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
FAILED_LOGINS_PER_MINUTE = 10
_CREDENTIALS = struct.Struct("3i")  # ucred in unix(7): process, user, group
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not set them itself: a page says what it loads."""


@dataclass(frozen=True, slots=True)
class Caller:
    role: Role
    actor: str
    """As the record of actions names it."""


class Guard:
    """Knows callers by their user on the unix socket, and by their token over TCP.

    Without tokens whoever reaches the loopback address may look, and nobody there may change anything.
    """

    def __init__(
        self, tcp: TcpOptions | None, monotonic_s: Callable[[], float], sessions: Sessions | None = None
    ) -> None:
        self._tcp = tcp
        self.sessions = Sessions("", monotonic_s) if sessions is None else sessions
        self._monotonic_s = monotonic_s
        self._failures = DeviceRates(FAILED_LOGINS_PER_MINUTE, max_devices=1_000)

    def admit(self, request: web.Request, needed: Role, *, is_page: bool = False) -> Caller:
        """Returns who asks. Raises ApiError where they may not: 401, 403, 421, or 429 after too many wrong tokens.

        At a page for people a session counts as the token that it was opened with.
        """
        peer = _peer_of(request)
        if peer.family == socket.AF_UNIX:
            _check_forwarded(request)
            return Caller(Role.OPERATOR, _user_of(peer))
        assert self._tcp is not None  # nobody else listens
        host = self._check_host(request, self._tcp)
        if not _is_followed_link(request):
            _check_origin(request, host)
        if needed is Role.NOBODY:
            return Caller(self.sessions.role_of(request) if is_page else Role.NOBODY, "nobody")
        return self._check_token(request, self._tcp, needed, is_page=is_page)

    def log_in(self, request: web.Request, token: str) -> Role:
        """Returns the role a token gives. Raises ApiError where it gives none (401), or after too many of those."""
        tcp = self._tcp
        if tcp is None or _peer_of(request).family == socket.AF_UNIX:
            return Role.OPERATOR  # whoever gets there needs no token
        address, now_s = request.remote or "unknown", self._monotonic_s()
        self._check_failures(address, now_s)
        role = _role_of(token, tcp)
        if role is Role.NOBODY:
            self._failures.is_allowed(address, now_s)
            raise ApiError(401, "unauthorized", "this is no token of this gateway")
        return role

    @property
    def has_tokens(self) -> bool:
        return self._tcp is not None and self._tcp.has_tokens

    def why_not_operator(self, role: Role) -> str | None:
        """Returns what to do to change things; None for who may."""
        if role is Role.OPERATOR:
            return None
        has_token = self._tcp is not None and self._tcp.operator_token is not None
        return "log in with the operator's token" if has_token else "set http.operator_token on the gateway"

    def _check_host(self, request: web.Request, tcp: TcpOptions) -> str:
        """A page that had its own name resolved to this address says that name here (DNS rebinding)."""
        host = request.headers.get(hdrs.HOST, "")
        name = _name_of(host)
        local = request.transport.get_extra_info("sockname") if request.transport is not None else None
        own = {local[0]} if isinstance(local, tuple) else set()  # an address cannot be made to point elsewhere
        if name not in LOOPBACK_NAMES | own | {tcp.host.lower(), *(other.lower() for other in tcp.hosts)}:
            raise ApiError(421, "wrong_host", "this gateway is not known by that name: add it to http.hosts")
        return host

    def _check_failures(self, address: str, now_s: float) -> None:
        if self._failures.is_spent(address, now_s):
            raise ApiError(429, "too_many_failures", "too many wrong tokens: wait", headers={"Retry-After": "60"})

    def _check_token(self, request: web.Request, tcp: TcpOptions, needed: Role, *, is_page: bool) -> Caller:
        address = request.remote or "unknown"
        now_s = self._monotonic_s()
        token = _bearer(request)
        role = self.sessions.role_of(request) if is_page and token is None else Role.NOBODY
        if role is Role.NOBODY:  # a session is no guess, and goes on while somebody else's guesses are refused
            self._check_failures(address, now_s)
            role = _role_of(token, tcp)
        if token is not None and role is Role.NOBODY:
            self._failures.is_allowed(address, now_s)
        if token is None and not tcp.has_tokens:
            role = Role.VIEWER
        if role >= needed:
            return Caller(role, f"{role.name.lower()} at {address}")
        if role is Role.VIEWER:
            message = "this needs the operator's token" if tcp.operator_token else "set http.operator_token to do this"
            raise ApiError(403, "forbidden", f"{message}, or use the command on the gateway")
        challenge = {"WWW-Authenticate": 'Bearer realm="mqrouter"'}
        raise ApiError(401, "unauthorized", "send a valid token: Authorization: Bearer TOKEN", headers=challenge)


def _is_followed_link(request: web.Request) -> bool:
    """Other sites may link to a page here; they may not embed it, and not measure how long the gateway thinks."""
    told = request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest")
    return request.method in SAFE_METHODS and told == ("navigate", "document") and hdrs.ORIGIN not in request.headers


def _peer_of(request: web.Request) -> socket.socket:
    peer: socket.socket | None = None if request.transport is None else request.transport.get_extra_info("socket")
    if peer is None:
        raise ApiError(400, "bad_request", "the connection is gone")
    return peer


def _check_forwarded(request: web.Request) -> None:
    """A browser may reach the unix socket through ssh, and then other sites' pages in it must not: those have names
    with dots, and say where they are from when they change something.
    """
    host = request.headers.get(hdrs.HOST, "")
    name = _name_of(host)
    if "." in name and name not in LOOPBACK_NAMES:
        raise ApiError(421, "wrong_host", "forward the socket to an address of your own machine, as localhost")
    if not _is_followed_link(request):
        _check_origin(request, host)


def _name_of(host: str) -> str:
    """Returns the name in a Host header, without its port; empty where it cannot be understood."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _check_origin(request: web.Request, host: str) -> None:
    """What another site's page asks for is refused, whatever it carries."""
    origin, site = request.headers.get(hdrs.ORIGIN), request.headers.get("Sec-Fetch-Site")
    is_own = origin is None or origin in (f"http://{host}", f"https://{host}")
    if not is_own or site not in (None, "same-origin", "none"):
        raise ApiError(403, "cross_site", "another site's page may not do this")


def _bearer(request: web.Request) -> str | None:
    kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _role_of(token: str | None, tcp: TcpOptions) -> Role:
    """Both are always compared, each in constant time."""
    is_operator, is_viewer = _is_same(token, tcp.operator_token), _is_same(token, tcp.viewer_token)
    return Role.OPERATOR if is_operator else Role.VIEWER if is_viewer else Role.NOBODY


def _is_same(token: str | None, secret: SecretStr | None) -> bool:
    if token is None or secret is None:
        return False
    return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), secret.get_secret_value().encode())


def _user_of(peer: socket.socket) -> str:
    """Returns the user at the other end of the unix socket, as the kernel knows them."""
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
