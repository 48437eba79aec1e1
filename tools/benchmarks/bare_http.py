"""The reference for `api`: aiohttp alone, with the same bytes for every GET. Run: bare_http.py PORT BYTES."""

from __future__ import annotations

import json
import sys

from aiohttp import web


def main(port: int, size: int) -> None:
    page = {"requests": [{"id": "none"}], "rest": ""}
    body = json.dumps(page | {"rest": "x" * (size - len(json.dumps(page)))}).encode()

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
