"""Downloads one address into a file, going on where an earlier attempt stopped.

The part stays on disk when the link breaks; beside it lies what names its version (the ETag), so that
parts of two versions are never joined.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from mqrouter import __version__
from mqrouter.errors import ModelFileError, UnreachableError
from mqrouter.models.files import read_json_table, write_json

Progress = Callable[[int, int | None], None]
"""Told the bytes on disk and, where known, the bytes to come to."""

SOCKET_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18
ATTEMPTS_WITHOUT_PROGRESS = 3
PAUSE_S = 2.0

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Part:
    """The unfinished file, and the validator of the version it is a part of."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """The ETag to resume with; None where there is nothing that is safe to go on with."""
        note = read_json_table(self._note)
        etag = note.get("etag") if note.get("url") == url and self.size else None
        return etag if isinstance(etag, str) else None

    def restart(self, url: str, etag: str | None) -> None:
        """The part is empty, and may be resumed only by a strong validator (RFC 9110, 13.1.5)."""
        self.path.write_bytes(b"")
        if etag and not etag.startswith("W/"):
            write_json(self._note, {"url": url, "etag": etag})
        else:
            self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """The part is whole and checked: no validator is needed any more."""
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.finish()

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")


class _BrokenOff(Exception):
    """The connection ended before the body did."""


class _WrongRange(Exception):
    """What the server has does not continue the part: it is of something else."""


def download(url: str, part: Part, progress: Progress, *, pause: Callable[[float], None] = time.sleep) -> None:
    """`part.path` holds the whole body.

    A broken connection is taken up again as long as attempts bring bytes. Raises UnreachableError when
    they no longer do (the part is kept), ModelFileError when the server refuses or the disk is full.
    """
    failures = 0
    while True:
        before = part.size
        try:
            return _attempt(url, part, progress)
        except (_BrokenOff, _WrongRange, HTTPException, OSError) as error:
            if isinstance(error, _WrongRange):
                part.discard()
            _raise_if_final(url, error)
            failures = 0 if part.size > before else failures + 1
            if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise UnreachableError(_gave_up(url, part, error)) from error
            pause(PAUSE_S * failures)


def _attempt(url: str, part: Part, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"mqrouter/{__version__}"})
    offset = part.size
    if etag := part.validator(url):
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", etag)
    try:
        response = urllib.request.urlopen(request, timeout=SOCKET_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        if _whole_size(error.headers) == offset:
            return
        raise _WrongRange("the part is longer than the file") from error
    with response:
        if response.status != 206:
            part.restart(url, response.headers["ETag"])
            offset = 0
        elif _range_start(response) != offset:
            raise _WrongRange("the server sent another range than the one asked for")
        total = _total(response, offset)
        _check_space(part.path, offset, total)
        _append(response, part.path, offset, total, progress)


def _append(response: HTTPResponse, path: Path, offset: int, total: int | None, progress: Progress) -> None:
    done = offset
    progress(done, total)
    with path.open("ab") as file:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if total is not None and done != total:
        raise _BrokenOff(f"the body ended after {done} of {total} bytes")


def _range_start(response: HTTPResponse) -> int | None:
    match = _CONTENT_RANGE.fullmatch(response.headers["Content-Range"] or "")
    return int(match[1]) if match and match[1] else None


def _whole_size(headers: Message) -> int | None:
    match = _CONTENT_RANGE.fullmatch(headers["Content-Range"] or "")
    return int(match[2]) if match and match[2] != "*" else None


def _total(response: HTTPResponse, offset: int) -> int | None:
    """None for a body without a length, whose end nothing but a hash can vouch for."""
    length = response.headers["Content-Length"]
    return offset + int(length) if length and length.isdecimal() else None


def _check_space(path: Path, offset: int, total: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if total is not None and total - offset > free:
        raise ModelFileError(
            f"{path.parent}: {(total - offset) / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
        )


def _raise_if_final(url: str, error: Exception) -> None:
    """A refusal will be a refusal again, and a full or read-only disk stays so; everything else may pass."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code < 500 and error.code not in (408, 429):
            raise ModelFileError(f"{url}: the server answered {error.code} {error.reason}") from error
    elif isinstance(error, OSError) and error.filename is not None:
        raise ModelFileError(f"{error.filename}: cannot be written: {error.strerror}") from error
    elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        raise ModelFileError(f"the download cannot be written: {error.strerror}") from error


def _gave_up(url: str, part: Part, error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    kept = f"; {part.size / 1e6:.1f} MB are kept and the next pull goes on from there" if part.validator(url) else ""
    return f"{url}: {reason or type(error).__name__}{kept}"
