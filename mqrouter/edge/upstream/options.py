"""What a client of a model server is told: plain values, the secret among them masked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """`idle_timeout_s` limits the time between two tokens, `ca_file` replaces the system's authorities."""

    name: str
    url: str
    model: str
    api_key: SecretStr | None
    max_tokens: int
    temperature: float
    concurrency: int
    connect_timeout_s: float
    first_token_timeout_s: float
    idle_timeout_s: float
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class OllamaOptions:
    """What only Ollama knows; None leaves the choice to the server."""

    keep_alive_s: float | None = None
    """Negative: for ever. 0: not at all."""
    context_tokens: int | None = None
    thinks: bool | None = None
