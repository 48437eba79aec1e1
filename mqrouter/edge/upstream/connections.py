"""Connections to one server: how they are opened, and what it means when that fails."""

from __future__ import annotations

import os
import socket
import ssl
from functools import partial

import aiohttp

from mqrouter.edge.upstream.names import Resolver
from mqrouter.edge.upstream.options import UpstreamOptions
from mqrouter.errors import TransientError, UnreachableError

PINGS = 3


class DroppedError(TransientError):
    """Try once more at once: the connection went away before the server had said anything."""


def open_session(options: UpstreamOptions) -> aiohttp.ClientSession:
    """Raises OSError where `ca_file` cannot be read, or holds no certificate."""
    headers = {"User-Agent": "mqrouter"}
    if options.api_key is not None:
        headers["Authorization"] = f"Bearer {options.api_key.get_secret_value()}"
    trust = True if options.ca_file is None else ssl.create_default_context(cafile=options.ca_file)
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(
            limit=options.concurrency + 2,  # besides the questions one probe, and one call that keeps the model warm
            resolver=Resolver(),
            ssl=trust,
            socket_factory=partial(_watched_socket, gone_after_s=options.connect_timeout_s),
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=options.connect_timeout_s),
    )


def _watched_socket(address: aiohttp.AddrInfoType, *, gone_after_s: float) -> socket.socket:
    """A machine that lost its power says no goodbye: TCP itself asks for it, so that this is told from a cold load."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pause_s = max(1, round(gone_after_s / PINGS))
    limits = {"TCP_KEEPIDLE": pause_s, "TCP_KEEPINTVL": pause_s, "TCP_KEEPCNT": PINGS}
    for name, value in (limits | {"TCP_USER_TIMEOUT": round(2000 * gone_after_s)}).items():
        if hasattr(socket, name):  # not everywhere
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened


def translated(error: Exception, options: UpstreamOptions) -> TransientError:
    """Returns our error for one of asking: of the look-up, the connection, its encryption or the first line."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UnreachableError(f"no connection within {options.connect_timeout_s:g} s")
        case TimeoutError():
            return TransientError(f"no answer within {options.first_token_timeout_s:g} s")
        case aiohttp.ClientConnectorError():
            return UnreachableError(_why_not_connected(error))
        case aiohttp.ClientConnectionError():  # there was a connection, and it ended or was reset
            return DroppedError("the server closed the connection without an answer")
    return TransientError(f"{type(error).__name__}: {error}")


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    place = f"{error.host}:{error.port}"
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(cause, "verify_message", "") or str(cause)
        return f"the certificate of {place} is not accepted: {reason}; ca_file names the authority of your own servers"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"no TLS with {place}: {getattr(cause, 'reason', None) or cause}; is it a server of https?"
    if cause.errno is not None and cause.errno > 0:  # asyncio's text says the address again; look-ups have others
        return f"cannot connect to {place}: {os.strerror(cause.errno)}"
    return f"cannot connect to {place}: {cause.strerror or cause}"
