"""The rows of a database file without its trees: every table leaf page by itself, as SQLite lays them out.

For files whose header, roots or inner pages are gone. https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mqrouter.edge.store.log_file import read_log

MAGIC = b"SQLite format 3\0"
DEFAULT_PAGE_SIZE = 4096
TABLE_LEAF = 0x0D
ROOT_PAGE, TREE_PAGE = 1, 5  # kinds in a pointer map; the others are free pages and overflow pages
ROOT_OF_FIRST_TABLE = bytes([ROOT_PAGE, 0, 0, 0, 0])

Value = int | float | str | bytes | None


class _UnreadableError(Exception):
    """This cell, page or chain makes no sense."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of some table: which one, its columns must tell."""

    rowid: int
    values: tuple[Value, ...]


@dataclass(slots=True)
class PageFile:
    """The pages of a database with those of its log over them."""

    page_size: int
    usable: int
    file: bytes | mmap.mmap
    log: dict[int, bytes] = field(default_factory=dict)

    def page(self, number: int) -> bytes:
        """Raises _UnreadableError where there is no such page."""
        if number in self.log:
            return self.log[number]
        start = (number - 1) * self.page_size
        page = self.file[start : start + self.page_size] if number > 0 else b""
        if len(page) < self.page_size:
            raise _UnreadableError
        return page

    def numbers(self) -> list[int]:
        return sorted({*range(1, len(self.file) // self.page_size + 1), *self.log})


def open_pages(path: Path) -> PageFile:
    """The file need not be a database any more, nor be there at all."""
    file = _mapped(path)
    log = read_log(path.with_name(path.name + "-wal"))
    pages = PageFile(DEFAULT_PAGE_SIZE, DEFAULT_PAGE_SIZE, file, {} if log is None else log.pages())
    header = pages.log.get(1, bytes(file[:100]))
    if header.startswith(MAGIC):
        (size,) = struct.unpack_from(">H", header, 16)
        size = 65536 if size == 1 else size
        if 512 <= size <= 65536 and size & (size - 1) == 0:
            pages.page_size, pages.usable = size, size - header[20]
    elif log is not None:
        pages.page_size = pages.usable = log.page_size
    return pages


def _mapped(path: Path) -> bytes | mmap.mmap:
    if not path.exists() or path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_records(pages: PageFile, is_wanted: Callable[[int], bool]) -> Iterator[Record]:
    """Yields the rows with a wanted rowid of every table leaf page that is in use; some may be out of date."""
    unused = _unused_pages(pages)
    for number in pages.numbers():
        if number == 1 or number in unused:
            continue  # the first holds the schema
        try:
            page = pages.page(number)
        except _UnreadableError:
            continue
        if page[0] == TABLE_LEAF:
            yield from _records_of(pages, page, is_wanted)


def _records_of(pages: PageFile, page: bytes, is_wanted: Callable[[int], bool]) -> Iterator[Record]:
    (cells,) = struct.unpack_from(">H", page, 3)
    for index in range(min(cells, (pages.page_size - 8) // 2)):
        (at,) = struct.unpack_from(">H", page, 8 + 2 * index)
        try:
            length, at = _varint(page, at)
            rowid, at = _varint(page, at)
            if is_wanted(rowid):
                yield Record(rowid, _values(_payload(pages, page, at, length)))
        except (_UnreadableError, IndexError, struct.error):
            continue


def _values(payload: bytes) -> tuple[Value, ...]:
    header_length, place = _varint(payload, 0)
    if not 1 <= header_length <= len(payload):
        raise _UnreadableError
    content = header_length
    values: list[Value] = []
    while place < header_length:
        kind, place = _varint(payload, place)
        value, content = _value(payload, content, kind)
        values.append(value)
    if content != len(payload):
        raise _UnreadableError
    return tuple(values)


def _payload(pages: PageFile, page: bytes, at: int, length: int) -> bytes:
    """Returns a cell's whole content, from its overflow pages too."""
    usable = pages.usable
    most = usable - 35
    local = length
    if length > most:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
    parts = [page[at : at + local]]
    if local < length:
        (overflow,) = struct.unpack_from(">I", page, at + local)
        missing = length - local
        while missing > 0:  # ends: every page brings something, and a missing one raises
            part = pages.page(overflow)
            parts.append(part[4 : 4 + min(missing, usable - 4)])
            missing -= len(parts[-1])
            (overflow,) = struct.unpack_from(">I", part)
    payload = b"".join(parts)
    if len(payload) != length:
        raise _UnreadableError
    return payload


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of one to nine bytes, and where it ends."""
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >= 1 << 63 else value, at + 9


INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _value(data: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind in INTEGER_BYTES:
        end = at + INTEGER_BYTES[kind]
        return int.from_bytes(data[at:end], "big", signed=True), end
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], at
    if kind == 7:
        return struct.unpack_from(">d", data, at)[0], at + 8
    if kind < 12:
        raise _UnreadableError
    end = at + (kind - 12) // 2
    if kind % 2 == 0:
        return data[at:end], end
    try:
        return data[at:end].decode("utf-8"), end
    except UnicodeDecodeError as error:
        raise _UnreadableError from error


def _unused_pages(pages: PageFile) -> set[int]:
    """Returns pages that hold no rows now: what they hold was true once."""
    try:
        first = pages.page(1)
    except _UnreadableError:
        first = bytes(100)
    return _freelist(pages, first) | _unused_by_pointer_map(pages, first)


def _freelist(pages: PageFile, first: bytes) -> set[int]:
    found: set[int] = set()
    if not first.startswith(MAGIC):
        return found
    (trunk,) = struct.unpack_from(">I", first, 32)
    while trunk and trunk not in found:
        try:
            page = pages.page(trunk)
        except _UnreadableError:
            break
        found.add(trunk)
        following, leaves = struct.unpack_from(">2I", page)
        leaves = min(leaves, pages.usable // 4 - 2)
        found.update(struct.unpack_from(f">{leaves}I", page, 8))
        trunk = following
    return found


def _unused_by_pointer_map(pages: PageFile, first: bytes) -> set[int]:
    """A database with auto_vacuum keeps a map of what each page is for: every page of the tree, and nothing else."""
    has_map = any(first[52:56]) if first.startswith(MAGIC) else _looks_like_map(pages)
    unused: set[int] = set()
    entries = pages.usable // 5
    numbers = pages.numbers()
    if not has_map or not numbers:
        return unused
    for number in range(2, numbers[-1] + 1, entries + 1):
        unused.add(number)
        try:
            page = pages.page(number)
        except _UnreadableError:
            continue
        kinds = page[: 5 * entries : 5]
        if all(kind <= TREE_PAGE for kind in kinds):  # else the map itself is damaged
            unused.update(
                number + 1 + index for index, kind in enumerate(kinds) if kind not in (0, ROOT_PAGE, TREE_PAGE)
            )
    return unused


def _looks_like_map(pages: PageFile) -> bool:
    try:
        return pages.page(2).startswith(ROOT_OF_FIRST_TABLE)
    except _UnreadableError:
        return False
