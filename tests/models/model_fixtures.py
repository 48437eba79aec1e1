"""Small models, and a web server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mqrouter.models.catalogue import Conversion, Member, PackageIndex
from mqrouter.models.convert import Quantisation, convert_bert

DIM, FEED_FORWARD, LAYERS, CONTEXT = 64, 128, 2, 64
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "soil", "frost", "##y", "water", "the", "in", "june", "is"]
WORDS = "the soil is frosty in june"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_weights(folder: Path, *, seed: int = 7) -> tuple[Path, Path]:
    """A random BERT of two layers, as model.safetensors and vocab.txt."""
    random = np.random.default_rng(seed)

    def tensor(*shape: int) -> Any:
        return random.normal(0.0, 0.3, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": tensor(len(PIECES), DIM),
        "embeddings.position_embeddings.weight": tensor(CONTEXT, DIM),
        "embeddings.token_type_embeddings.weight": tensor(2, DIM),
        "embeddings.position_ids": np.arange(CONTEXT)[None],
        "pooler.dense.weight": tensor(DIM, DIM),
        "pooler.dense.bias": tensor(DIM),
        **_norm("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            tensors[f"{prefix}.attention.self.{name}.weight"] = tensor(DIM, DIM)
            tensors[f"{prefix}.attention.self.{name}.bias"] = tensor(DIM)
        for name, shape in {
            "attention.output": (DIM, DIM), "intermediate": (FEED_FORWARD, DIM), "output": (DIM, FEED_FORWARD)
        }.items():  # fmt: skip
            tensors[f"{prefix}.{name}.dense.weight"] = tensor(*shape)
            tensors[f"{prefix}.{name}.dense.bias"] = tensor(shape[0])
        tensors |= _norm(f"{prefix}.attention.output.LayerNorm") | _norm(f"{prefix}.output.LayerNorm")
    weights, vocabulary = folder / "model.safetensors", folder / "vocab.txt"
    save_file(tensors, weights)
    vocabulary.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return weights, vocabulary


def write_gguf(path: Path, *, quantisation: Quantisation = Quantisation.Q8_0) -> Path:
    """A model of 60 kB that llama.cpp loads."""
    weights, vocabulary = write_weights(path.parent)
    convert_bert(weights, vocabulary, path, name="tiny", quantisation=quantisation)
    weights.unlink()
    vocabulary.unlink()
    return path


def write_wheel(folder: Path, files: dict[str, bytes], *, name: str = "tiny_model") -> Path:
    """A wheel that pip accepts, of a distribution without code."""
    info = f"{name}-1.0.dist-info"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in members.items():
            archive.writestr(path, data)
    return wheel


def wheel_source(files: dict[str, bytes]) -> PackageIndex:
    members = tuple(Member(path, sha256(data)) for path, data in files.items())
    return PackageIndex("tiny-model", "1.0", members)


def bert_files(folder: Path) -> dict[str, bytes]:
    weights, vocabulary = write_weights(folder)
    return {f"tiny_model/{path.name}": path.read_bytes() for path in (weights, vocabulary)}


BERT = Conversion.BERT_Q8_0


class Site:
    """One file behind an address. `cuts` are how many bytes the next answers carry before they break off."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.etag: str | None = '"v1"'
        self.honours_range = True
        self.shifts_range = False
        self.cuts: list[int | None] = []
        self.failures: list[int] = []
        self.ranges: list[str | None] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.ranges.append(wanted)
        if self.failures:
            request.send_error(self.failures.pop(0))
            return
        is_current = request.headers["If-Range"] in (None, self.etag)
        start = int(wanted[len("bytes=") : -1]) if wanted and self.honours_range and is_current else 0
        if start >= len(self.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if start and self.shifts_range:
            start -= 1
        rest = self.body[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        request.wfile.write(rest[:cut])


@contextmanager
def served(body: bytes) -> Iterator[Site]:
    site = Site(body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}/model.gguf"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="site")
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _norm(name: str) -> dict[str, Any]:
    return {f"{name}.weight": np.ones(DIM, np.float32), f"{name}.bias": np.zeros(DIM, np.float32)}
