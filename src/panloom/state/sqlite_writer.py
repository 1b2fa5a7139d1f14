"""The one thread that writes to a SQLite store, and its group commit.

    request ─┐                     ┌─ verdict of its own (a revision, or ConflictError)
    request ─┼─► one transaction ──┼─ verdict
    request ─┘    one fsync        └─ verdict          nobody hears anything before the fsync has returned

While one transaction is being synced the next requests gather; they then share the next one.  Each request is checked
against what the requests before it in the same transaction have left.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from panloom.errors import ConflictError, PanloomError, UnavailableError

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MAX_REQUESTS: Final = 512  # in one transaction; bounds how long the first waits for the last
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Batch:
    """A transaction that several requests fill."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.revision: int
        (self.revision,) = connection.execute("SELECT value FROM counter WHERE name = 'revision'").fetchone()

    def commit(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str]) -> int:
        """Change the keys at a revision of their own, or raise ``ConflictError`` having changed nothing."""
        for key, revision in expect.items():
            now = self._revision_of(key)
            if now != revision:
                raise ConflictError(f"{key} has revision {now}, not {revision}")
        gone = [key for key in delete if self._revision_of(key)]
        if put or gone:
            self.revision += 1
        for key, value in put.items():
            self._execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", key, value, self.revision)
            self._execute("INSERT INTO change VALUES (?, ?, ?)", self.revision, key, value)
        for key in gone:
            self._execute("DELETE FROM entry WHERE key = ?", key)
            self._execute("INSERT OR IGNORE INTO change VALUES (?, ?, NULL)", self.revision, key)
        return self.revision

    def finish(self) -> None:
        """Write down the last revision given."""
        self._execute("UPDATE counter SET value = ? WHERE name = 'revision'", self.revision)

    def _revision_of(self, key: str) -> int:
        row = self._execute("SELECT revision FROM entry WHERE key = ?", key).fetchone()
        return row[0] if row else 0

    def _execute(self, statement: str, *values: str | bytes | int | None) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


class Writer(threading.Thread):
    """Gathers requests, performs them in shared transactions and tells each its verdict."""

    def __init__(self, connection: sqlite3.Connection, *, published: Callable[[], object]) -> None:
        super().__init__(name="state-writer", daemon=True)
        self._connection = connection
        self._published = published  # called from this thread when a new revision is durable
        self._queue: queue.SimpleQueue[tuple[Callable[[Batch], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._broken: UnavailableError | None = None

    def submit(self, request: Callable[[Batch], Result]) -> Future[Result]:
        """Have ``request`` performed in the next transaction; its verdict comes when that is on stable storage."""
        future: Future[Result] = Future()
        self._queue.put((request, future))
        return future

    def stop(self) -> None:
        """End the thread when everything submitted so far has its verdict; it closes the connection."""
        self._queue.put(None)

    def run(self) -> None:
        """Serve until stopped."""
        stopping = False
        while not stopping:
            gathered = [self._queue.get()]
            while len(gathered) < MAX_REQUESTS and not self._queue.empty():
                gathered.append(self._queue.get())
            stopping = None in gathered
            self._serve([item for item in gathered if item and item[1].set_running_or_notify_cancel()])
        self._connection.close()

    def _serve(self, requests: list[tuple[Callable[[Batch], Any], Future[Any]]]) -> None:
        try:
            verdicts = self._perform([request for request, _ in requests])
        except UnavailableError as error:
            for _, future in requests:
                future.set_exception(error)
            return
        for (_, future), verdict in zip(requests, verdicts, strict=True):
            if isinstance(verdict, PanloomError):
                future.set_exception(verdict)
            else:
                future.set_result(verdict)

    def _perform(self, requests: list[Callable[[Batch], Any]]) -> list[Any]:
        """Return the requests' verdicts, all durable; ``UnavailableError`` if none of them has happened."""
        if self._broken:
            raise self._broken
        verdicts: list[Any] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            batch = Batch(self._connection)
            before = batch.revision
            for request in requests:
                try:
                    verdicts.append(request(batch))
                except ConflictError as conflict:
                    verdicts.append(conflict)
            if batch.revision != before:
                batch.finish()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if batch.revision != before:
            self._published()
        return verdicts

    def _failed(self, error: sqlite3.Error) -> UnavailableError:
        """Roll back; a full disk passes, but after an I/O error nothing the page cache says can be believed."""
        failure = UnavailableError(f"the state store cannot be written: {error}")
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            error = second
        if error.sqlite_errorcode & 0xFF not in _PASSING:
            self._broken = UnavailableError(f"the state store is out of use until it is opened again: {error}")
        log.error("event=state_write_failed error=%r broken=%s", str(error), self._broken is not None)
        return failure
