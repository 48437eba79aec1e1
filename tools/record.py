"""A proxy that writes down what a model server says. Run by tools/record."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import click
from aiohttp import web
from exchanges import KEPT_HEADERS, Exchange, as_text

HOP_BY_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})


class Recorder:
    def __init__(self, session: aiohttp.ClientSession, url: str, file: Path) -> None:
        self._session = session
        self._url = url
        self._file = file

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        target = self._url + request.path_qs
        async with self._session.request(request.method, target, data=content or None, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            chunks: list[str] = []
            is_cut = False
            try:
                async for chunk in answer.content.iter_any():
                    chunks.append(as_text(chunk))
                    await response.write(chunk)
            except aiohttp.ClientError:
                is_cut = True
            asked = json.loads(content) if content else None
            self._write(Exchange(request.method, request.path, asked, answer.status, kept, chunks, is_cut))
            if is_cut and request.transport is not None:
                request.transport.close()
        return response

    def _write(self, exchange: Exchange) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(exchange.as_line())
        print(f"{exchange.method} {exchange.path}: HTTP {exchange.status}, {len(exchange.body)} bytes", file=sys.stderr)


async def _serve(url: str, file: Path, port: int) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", Recorder(session, url.rstrip("/"), file).pass_on)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        place = f"http://127.0.0.1:{runner.addresses[0][1]}"
        print(f"recording {place} to {file}; end with Ctrl+C", file=sys.stderr, flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


@click.command("record")
@click.argument("url")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--port", default=8099, show_default=True, help="Where to listen, on loopback; 0: anywhere.")
def main(url: str, file: Path, port: int) -> None:
    """Pass requests on to URL (an address without a path) and append each exchange to FILE.

    Keys and hosts are left out; read what was written all the same before it is committed: the server's own words are
    kept as they are.

    \b
    Example:
      tools/record http://hub.lan:11434 tests/recorded/ollama.jsonl
    """
    try:
        asyncio.run(_serve(url, file, port))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
