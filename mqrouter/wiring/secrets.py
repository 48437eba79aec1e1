"""Secrets by their references."""

from __future__ import annotations

from pydantic import SecretStr

from mqrouter.errors import ConfigError, Problem
from mqrouter.settings import Secret


def secret(reference: Secret | None, key: str) -> SecretStr | None:
    if reference is None:
        return None
    try:
        return reference.resolve()
    except LookupError as error:
        raise ConfigError([Problem(key, str(error))]) from error
