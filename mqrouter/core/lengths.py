"""How long a text is for a model whose tokenizer is not known here."""

from __future__ import annotations

import math

CHARS_PER_TOKEN = 4.0
BUFFER = 1.3  # no tokenizer here is the tier's own: 30 % of doubt


def estimate_tokens(chars: int) -> int:
    """Returns a careful upper estimate of a text's tokens from its length in characters."""
    return math.ceil(chars / CHARS_PER_TOKEN * BUFFER)


def buffered(chars: int) -> int:
    """Returns the characters of a context window that a text may take up: 30 % more than it has."""
    return math.ceil(chars * BUFFER)
