"""The embedded store: one SQLite file, in WAL mode with synchronous=FULL.

event loop                           threads
commit ─────────────────────────────► writer: one transaction for all that wait (``sqlite_writer``)
   ▲                                     │ fsync
   └───────────── revision ◄─────────────┤
watch  ◄──────────── wake ───────────────┘
   └──► reads what is new ──────────► reader: a connection of its own; sees durable transactions only
get, range ─────────────────────────►
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from panloom.errors import UnavailableError
from panloom.state import sqlite_file
from panloom.state.contract import (
    NOTHING,
    Change,
    CompactedError,
    Entry,
    Snapshot,
    check_commit,
    check_key,
    check_prefix,
    check_seconds,
)
from panloom.state.sqlite_writer import Batch, Writer

Result = TypeVar("Result")

_Place = tuple[int, str]  # a revision and, of its changes sorted by key, the last one seen
_LAST = "\x7f"  # sorts after every character of a key
_CHANGES_AT_ONCE = 1000


class SqliteStore:
    """A ``contract.Store`` in one file, for one process and one event loop; made by ``open``."""

    def __init__(self, reader: sqlite3.Connection, writer: Writer, lock: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._read_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-reader")
        self._writer = writer
        self._lock = lock
        self._watchers: set[asyncio.Event] = set()
        self._closed = False
        self._writer.start(lambda: self._loop.call_soon_threadsafe(self._wake))

    @classmethod
    async def open(cls, path: Path, *, clock: Callable[[], float] = time.monotonic, history: int = 100_000) -> Self:
        """Open the store in ``path``, made if absent; ``UnavailableError`` if it is in use, foreign or newer.

        ``clock`` returns monotonic seconds; ``history`` is how many revisions a watch can go back at least.
        """
        lock = sqlite_file.take_lock(path)
        with ExitStack() as undo:
            undo.callback(os.close, lock)
            try:
                sqlite_file.make_durable(path)
                writer = sqlite_file.connect(path)
                undo.callback(writer.close)
                sqlite_file.prepare(writer, path)
                reader = sqlite_file.connect(path)
            except (OSError, sqlite3.Error) as error:
                raise UnavailableError(f"{path} cannot be opened: {error}") from error
            undo.pop_all()
        store = cls(reader, Writer(writer, clock=clock, history=history), lock)
        try:
            await store._write(Batch.end_former_leases)
        except UnavailableError:
            await store.close()
            raise
        return store

    async def get(self, key: str) -> Entry | None:
        """See ``contract.Store.get``."""
        check_key(key)
        rows = await self._read(partial(self._rows, "SELECT key, value, revision FROM entry WHERE key = ?", key))
        return Entry(*rows[0]) if rows else None

    async def range(self, prefix: str) -> Snapshot:
        """See ``contract.Store.range``."""
        check_prefix(prefix)
        return await self._read(partial(self._snapshot, prefix))

    async def commit(
        self,
        *,
        expect: Mapping[str, int] = NOTHING,
        put: Mapping[str, bytes] = NOTHING,
        delete: Collection[str] = (),
        lease: int | None = None,
    ) -> int:
        """See ``contract.Store.commit``."""
        check_commit(expect, put, delete)
        return await self._write(partial(Batch.commit, expect=expect, put=put, delete=delete, lease=lease))

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        """See ``contract.Store.watch``."""
        check_prefix(prefix)
        place = (after, _LAST)
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            while True:
                news.clear()
                changes, place = await self._read(partial(self._changes, prefix, place))
                for change in changes:
                    yield change
                if not changes:
                    await news.wait()
        finally:
            self._watchers.discard(news)

    async def grant(self, seconds: float) -> int:
        """See ``contract.Store.grant``."""
        check_seconds(seconds)
        return await self._write(partial(Batch.grant, seconds=seconds))

    async def keep(self, lease: int) -> None:
        """See ``contract.Store.keep``."""
        await self._write(partial(Batch.keep, lease=lease))

    async def revoke(self, lease: int) -> None:
        """See ``contract.Store.revoke``."""
        await self._write(partial(Batch.revoke, lease=lease))

    async def close(self) -> None:
        """See ``contract.Store.close``."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        await self._loop.run_in_executor(self._read_thread, self._reader.close)
        await asyncio.to_thread(self._writer.stop)
        self._read_thread.shutdown()
        os.close(self._lock)

    def _wake(self) -> None:
        for news in self._watchers:
            news.set()

    async def _write(self, request: Callable[[Batch], Result]) -> Result:
        if self._closed:
            raise UnavailableError("the state store is closed")
        return await asyncio.wrap_future(self._writer.submit(request))

    async def _read(self, question: Callable[[], Result]) -> Result:
        if self._closed:
            raise UnavailableError("the state store is closed")
        try:
            return await self._loop.run_in_executor(self._read_thread, question)
        except sqlite3.Error as error:
            raise UnavailableError(f"the state store cannot be read: {error}") from error

    def _snapshot(self, prefix: str) -> Snapshot:
        with self._one_moment():
            rows = self._rows(
                "SELECT key, value, revision FROM entry WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix + _LAST
            )
            return Snapshot(self._counter("revision"), tuple(Entry(*row) for row in rows))

    def _changes(self, prefix: str, place: _Place) -> tuple[tuple[Change, ...], _Place]:
        """Return some changes after ``place`` and the place to go on from."""
        with self._one_moment():
            dropped = self._counter("dropped")
            if place < (dropped, _LAST):
                raise CompactedError(
                    f"the history begins at revision {dropped + 1}; read the range again and watch from there"
                )
            rows = self._rows(
                "SELECT key, value, revision FROM change WHERE (revision, key) > (?, ?) AND key >= ? AND key < ?"
                " ORDER BY revision, key LIMIT ?",
                *(*place, prefix, prefix + _LAST, _CHANGES_AT_ONCE),
            )
            end = (self._counter("revision"), _LAST)
        changes = tuple(Change(*row) for row in rows)
        if len(changes) == _CHANGES_AT_ONCE:
            return changes, (changes[-1].revision, changes[-1].key)
        return changes, max(place, end)

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Let everything read inside be of one revision."""
        self._reader.execute("BEGIN")
        try:
            yield
        finally:
            self._reader.execute("COMMIT")

    def _counter(self, name: str) -> int:
        ((value,),) = self._rows("SELECT value FROM counter WHERE name = ?", name)
        return int(value)

    def _rows(self, statement: str, *values: str | int) -> list[Any]:
        return self._reader.execute(statement, values).fetchall()
