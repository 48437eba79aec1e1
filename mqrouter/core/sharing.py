"""Which waiting requests are one question asked several times: one answer will do for all of them."""

from __future__ import annotations

import hashlib
import json

from mqrouter.core.decode import BOM
from mqrouter.core.records import StoredRequest
from mqrouter.core.request import Form

OWN_KEYS = ("id", "ttl_s", "priority", "traceparent")
"""What may differ: it says who asks, and how urgently, and nothing of what the answer must be."""


def share_key(request: StoredRequest, route: str | None, *, is_private: bool) -> bytes | None:
    """Returns what is equal for requests that may have the same answer; None where this one stands for itself.

    Equal are the route, and with it the prompt, and every key of the request but OWN_KEYS; of a private request the
    device too. A request of a session depends on what was said before.
    """
    if request.session is not None:
        return None
    text = request.payload.removeprefix(BOM).decode("utf-8")
    if request.reply.form is Form.JSON:
        body = {name: value for name, value in json.loads(text).items() if name not in OWN_KEYS}
        text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    scope = request.device if is_private else None
    parts = json.dumps([request.reply.form, route, scope, text], ensure_ascii=True)
    return hashlib.sha256(parts.encode()).digest()
