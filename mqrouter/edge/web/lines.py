"""Requests as lines of JSON, sent as fast as the other side reads."""

from __future__ import annotations

import json
from typing import Any, Protocol

import structlog
from aiohttp import web

from mqrouter.core.records import Seq
from mqrouter.core.steering import Selection
from mqrouter.edge.web.routes import LINES
from mqrouter.errors import StoreError

log = structlog.get_logger("http")

STEP = 50
HEADERS = {"Content-Type": LINES, "Content-Disposition": 'attachment; filename="requests.jsonl"'}


class Shelf(Protocol):
    """Where whole requests are read, some at a time."""

    async def export(
        self, wanted: Selection, *, limit: int, after: Seq | None
    ) -> tuple[list[dict[str, Any]], Seq | None]: ...


async def send_lines(request: web.Request, shelf: Shelf, wanted: Selection) -> web.StreamResponse:
    """Sends all that are wanted, oldest first. Raises StoreError where not even the first can be read.

    Where a later one cannot, the connection ends within the answer: nobody takes a part for the whole.
    """
    rows, after = await shelf.export(wanted, limit=STEP, after=None)
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    try:
        await response.write(_lines(rows))
        while after is not None:
            rows, after = await shelf.export(wanted, limit=STEP, after=after)
            await response.write(_lines(rows))
        await response.write_eof()
    except ConnectionError:
        log.info("http.export_not_taken")
    except StoreError as error:
        log.error("http.store_failed", error=str(error))
        if request.transport is not None:
            request.transport.abort()
    return response


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
