"""Reads the first keys of a GGUF file, without llama.cpp and without the tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from mqrouter.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

Value = int | float | bool | str

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING = 1 << 20


def read_header(path: Path) -> dict[str, Value]:
    """The scalar keys before the vocabulary, which is where converters put what describes the model.

    Raises ModelFileError where the file is not GGUF or ends early.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:
        raise ModelFileError(f"{path}: not a whole GGUF file: {error}") from error


def is_embedder(header: dict[str, Value]) -> bool:
    """True for an encoder, or a decoder whose converter said how to pool its output."""
    architecture = header.get("general.architecture")
    return "bert" in str(architecture) or f"{architecture}.pooling_type" in header


def _read(file: BinaryIO) -> dict[str, Value]:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, not with {MAGIC!r}")
    version, _tensors, keys = struct.unpack("<IQQ", file.read(20))
    if version not in VERSIONS:
        raise ValueError(f"version {version} is not one of {VERSIONS}")
    header: dict[str, Value] = {}
    for _ in range(keys):
        key = _string(file)
        (kind,) = struct.unpack("<I", file.read(4))
        if kind == _ARRAY or key.startswith("tokenizer."):
            break
        header[key] = _string(file) if kind == _STRING else _scalar(file, kind)
    return header


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST_STRING:
        raise ValueError(f"a string of {length} bytes")
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it ends early")
    return data.decode("utf-8", errors="replace")


def _scalar(file: BinaryIO, kind: int) -> Value:
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    layout = _SCALARS[kind]
    value: Value = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return value
