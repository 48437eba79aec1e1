"""What the link is told: where the broker is, and who to be there."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from mqrouter.core.backoff import Backoff


@dataclass(frozen=True, slots=True)
class TlsFiles:
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None


@dataclass(frozen=True, slots=True)
class LinkOptions:
    host: str
    port: int
    versions: tuple[int, ...]
    """paho protocol numbers to try, in order: (5, 4) is `auto`."""
    client_id: str
    username: str | None
    password: str | None
    tls: TlsFiles | None
    keepalive_s: int
    connect_timeout_s: float
    session_expiry_s: int
    receive_maximum: int
    reconnect: Backoff
    filters: tuple[str, ...]
    optional_filters: tuple[str, ...]
    """Those the broker may refuse: an access list written for questions alone must not keep them out."""
    status_topic: str
    live_filters: tuple[str, ...] = ()
    """Likewise, and at QoS 0: what comes in while we are away is not wanted later."""
    unwanted_filters: tuple[str, ...] = ()
    """A session that the broker kept may still have these."""

    def __repr__(self) -> str:  # the password must not reach a log or a traceback
        return f"LinkOptions({self.host}:{self.port}, client_id={self.client_id!r})"


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file)
    if files.cert_file is not None:
        context.load_cert_chain(files.cert_file, files.key_file)
    return context
