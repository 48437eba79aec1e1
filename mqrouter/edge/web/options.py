"""Where the daemon listens, and who may do what there: plain values, the secrets among them masked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pydantic import SecretStr


class Role(IntEnum):
    """Who is asking; each may do what those before it may."""

    NOBODY = 0
    VIEWER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class TcpOptions:
    host: str
    port: int
    viewer_token: SecretStr | None = None
    operator_token: SecretStr | None = None
    hosts: tuple[str, ...] = ()
    """Further names that the gateway is called by."""

    @property
    def has_tokens(self) -> bool:
        return self.viewer_token is not None or self.operator_token is not None


@dataclass(frozen=True, slots=True)
class WebOptions:
    socket: Path
    tcp: TcpOptions | None = None
    max_body_bytes: int = 1 << 20
