"""One connection, one writer: the only read-write way into the database.

Writes are functions of the raw connection. Whatever is waiting when the writer comes round runs in one
transaction, so that many small writes share one sync to disk (`synchronous=FULL`); each caller's future
resolves after the commit. The writer is never cancelled: aiosqlite would leave the transaction open.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from mqrouter.edge.store.lock import hold_lock
from mqrouter.edge.store.mending import mend
from mqrouter.edge.store.quarantine import Mark, Verdict, examine, is_checked_at_start, is_damage, quick_check, remember
from mqrouter.edge.store.schema import INCREMENTAL_VACUUM, migrate
from mqrouter.errors import StoreError, StoreFatalError, StoreFullError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
_Entry = tuple[Operation[Any], "asyncio.Future[Any]"]

MAX_BATCH = 512
MAX_BATCHES = 4
"""One after the other, before whoever wants to read has their turn."""
FATAL_CODES = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
PRAGMAS = (
    INCREMENTAL_VACUUM,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -2000",  # 2 MB: the operating system caches the file anyway
    "PRAGMA busy_timeout = 5000",
    "PRAGMA wal_autocheckpoint = 500",  # pages: in smaller bites a claim waits 2.3 ms at most, with 1,000 it was 4.2 ms
    "PRAGMA journal_size_limit = 4194304",  # what a burst made of the log is given back
)


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection, with one more thing to do in its thread: a whole function in a single hop."""

    async def run(self, operation: Operation[T]) -> T:
        result: T = await self._execute(operation, self._conn)  # type: ignore[no-untyped-call]
        return result


class Database:
    """Use as an async context manager; raises StoreLockedError where another daemon owns the file.

    A damaged file is set aside and what reads of it salvaged. `make_room` is called before anything is written;
    `on_full` whenever the disk took no more.
    """

    def __init__(
        self,
        path: Path,
        *,
        make_room: Callable[[], object] = lambda: None,
        on_full: Callable[[], object] = lambda: None,
    ) -> None:
        self._path = path
        self._make_room = make_room
        self._on_full = on_full
        self._waiting: deque[_Entry] = deque()
        self._work = asyncio.Event()
        self._is_closing = False

    async def __aenter__(self) -> Database:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = hold_lock(self._path)
        try:
            self._make_room()
            # In a thread: a large file takes its time, and the loop has others to serve.
            if (damage := await asyncio.to_thread(examine, self._path)) is not None:
                await asyncio.to_thread(mend, self._path, damage)
            try:
                await self._open()
            except sqlite3.Error as error:
                if not (is_damage(error) or error.sqlite_errorcode == sqlite3.SQLITE_ERROR):
                    raise
                await asyncio.to_thread(mend, self._path, Mark(Verdict.DAMAGED, str(error)))
                await self._open()
        except BaseException as error:
            self._lock.close()
            if isinstance(error, (sqlite3.Error, OSError)):
                raise StoreError(f"{self._path}: {error}") from error
            raise
        self._loop = asyncio.get_running_loop()
        self._writer = asyncio.create_task(self._write_forever(), name="store.writer")
        return self

    async def _open(self) -> None:
        self._connection = _Connection(self._connect, iter_chunk_size=64)
        try:
            await self._connection
            await self._connection.run(_prepare)
        except BaseException:
            await self._connection.close()
            raise

    async def check(self) -> None:
        """Checks what was too large to be checked at start. Raises StoreFatalError, with a mark for the next one."""
        if is_checked_at_start(self._path):
            return
        if (reason := await _in_thread(lambda: quick_check(self._path))) is not None:
            error = sqlite3.DatabaseError(reason)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise self._translated(error) from error

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        self._work.set()
        await asyncio.wait([self._writer])
        await self._connection.close()
        self._lock.close()

    async def write(self, operation: Operation[T], committed: Callable[[], object] | None = None) -> T:
        """Runs `operation` in a transaction and returns its result once it is on disk.

        Cancelling the caller does not undo the write: `committed` is called once it is on disk, in any case before
        the caller goes on. Raises StoreError where it did not happen.
        """
        if self._is_closing:
            raise StoreError("the database is closed")
        if self._writer.done():
            raise StoreFatalError("the disk failed earlier: nothing is written any more")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if committed is not None:
            future.add_done_callback(lambda done: None if done.exception() else committed())
        self._waiting.append((operation, future))
        self._work.set()
        return await asyncio.shield(future)

    async def read(self, operation: Operation[T]) -> T:
        """Runs a reading `operation` between two write transactions and returns its result."""
        try:
            return await self._connection.run(operation)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _connect(self) -> sqlite3.Connection:
        # One thread uses it, but which one is aiosqlite's business.
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=256)

    async def _write_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                try:
                    failed = await self._connection.run(self._write_waiting)
                    if failed is not None:
                        await self._failed(*failed)
                except StoreFatalError as error:
                    self._fail_all(error)
                    return  # every later write is refused
            if self._is_closing:
                return

    def _write_waiting(self, connection: sqlite3.Connection) -> tuple[Sequence[_Entry], Exception] | None:
        """Writes what is waiting, and what comes meanwhile, each batch at once after the other: in the thread.

        To ask the loop for each would leave the disk idle while it is busy. Returns a batch that failed, if any.
        """
        for _ in range(MAX_BATCHES):
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            if not batch:
                break
            try:
                results = _commit(connection, [operation for operation, _ in batch])
            except Exception as error:
                return batch, error
            self._loop.call_soon_threadsafe(_settle, batch, results)
        return None

    async def _failed(self, batch: Sequence[_Entry], error: Exception) -> None:
        if len(batch) > 1 and not _is_fatal(error):
            await self._write_singly(batch)
            return
        for _, future in batch:
            future.set_exception(self._translated(error))
        if _is_fatal(error):
            raise StoreFatalError(f"the disk failed: {error}") from error

    async def _write_singly(self, batch: Sequence[_Entry]) -> None:
        """One of them is at fault: the others must not suffer for it."""
        for number, entry in enumerate(batch):
            try:
                await self._write_one(entry)
            except StoreFatalError:
                self._waiting.extendleft(reversed(batch[number + 1 :]))  # they fail with the rest
                raise

    async def _write_one(self, entry: _Entry) -> None:
        try:
            results = await self._connection.run(lambda connection: _commit(connection, [entry[0]]))
        except Exception as error:
            await self._failed([entry], error)
        else:
            _settle([entry], results)

    def _fail_all(self, error: StoreFatalError) -> None:
        while self._waiting:
            self._waiting.popleft()[1].set_exception(StoreFatalError(str(error)))

    def _translated(self, error: Exception) -> StoreError:
        """Returns what the stages understand; the next start hears of damage, and whoever makes room of a full disk."""
        if isinstance(error, StoreError):
            return error
        remember(self._path, error)
        kind = StoreFatalError if _is_fatal(error) else StoreError
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            kind = StoreFullError
            self._on_full()
        translated = kind(f"{type(error).__name__}: {error}")
        translated.__cause__ = error
        return translated


def _commit(connection: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    return results


def _settle(batch: Sequence[_Entry], results: Sequence[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


def _is_fatal(error: Exception) -> bool:
    """True for an I/O error, since after a failed sync nobody knows what is on disk, and for a damaged file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in FATAL_CODES


async def _in_thread(look: Callable[[], T]) -> T:
    """As asyncio.to_thread, but nobody waits for it at the end: a stop has its limit, and a look changes nothing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        result = look()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(result))

    threading.Thread(target=run, name="store.check", daemon=True).start()
    return await future


def _prepare(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    for pragma in PRAGMAS:
        connection.execute(pragma)
    migrate(connection)
