"""The style sheet, the script and the icon: their names hold what is in them, so that a browser asks for each once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import hdrs, web

from mqrouter.edge.web.errors import ApiError
from mqrouter.edge.web.options import Role
from mqrouter.edge.web.routes import Call, Route, page

FOLDER = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


class Assets:
    """Read once; `urls` are by the file's name."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        self.urls: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix not in TYPES:
                continue
            content = path.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:12]
            name = f"{path.stem}.{tag}{path.suffix}"
            self._files[name] = (content, TYPES[path.suffix], tag)
            self.urls[path.name] = f"/static/{name}"

    def route(self) -> Route:
        return page("GET", "/static/{name}", Role.NOBODY, self._serve, "Files of the pages.")

    async def _serve(self, call: Call) -> web.Response:
        found = self._files.get(call.path["name"])
        if found is None:
            raise ApiError(404, "not_found", "there is no such file: load the page again")
        content, kind, tag = found
        headers = {"Cache-Control": FOR_EVER, "ETag": f'"{tag}"', "Vary": "Accept-Encoding"}
        if f'"{tag}"' in call.request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        response = web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)
        response.enable_compression()
        return response
