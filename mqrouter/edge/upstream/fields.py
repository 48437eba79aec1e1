"""What servers write in JSON, read with care."""

from __future__ import annotations

import json
from typing import Any

from mqrouter.core.answer_check import mended
from mqrouter.core.events import Delta, TierEvent
from mqrouter.errors import TransientError

MAX_NAME_CHARS = 128
MAX_DETAIL_CHARS = 200
MAX_TOKENS = 1 << 31


def as_object(payload: bytes) -> dict[str, Any]:
    """Raises TransientError for what is no JSON object."""
    try:
        value = json.loads(payload.decode("utf-8", "surrogatepass"))  # bytes would be guessed at first, for each token
    except (ValueError, RecursionError) as error:
        raise TransientError("the answer is not valid JSON") from error
    if not isinstance(value, dict):
        raise TransientError("the answer is not a JSON object")
    return value


def text_of(message: object) -> str:
    """Returns the text of a delta or a message; servers leave either out, or null, where there is none."""
    content = message.get("content") if isinstance(message, dict) else message
    if content is None:
        return ""
    if not isinstance(message, dict) or not isinstance(content, str):
        raise TransientError("the answer is not text")
    return content


def count_of(value: object) -> int:
    """Returns a number of tokens, 0 where the server named none that can be one."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else 0


def model_of(value: dict[str, Any], otherwise: str) -> str:
    """Returns the name of the model that answers, bounded and fit to be written."""
    name = value.get("model")
    if name == otherwise:  # as in every token but the first
        return otherwise
    return mended(name)[:MAX_NAME_CHARS] if isinstance(name, str) and name else otherwise


def delta_of(texts: list[str]) -> list[TierEvent]:
    """Returns what came in one piece of the body as one Delta; none where there is no text in it."""
    text = "".join(texts)
    return [Delta(text)] if text else []


def error_of(value: dict[str, Any]) -> str:
    """Returns a server's own wording of its trouble: `{"error": {"message": …}}`, or `{"error": …}`."""
    error = value.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    return "" if text is None else mended(str(text))[:MAX_DETAIL_CHARS]


def raise_if_failed(value: dict[str, Any]) -> None:
    """A server that has begun to answer can only say in the answer itself that it failed."""
    if value.get("error"):
        raise TransientError("the server failed in its answer", detail=error_of(value))
