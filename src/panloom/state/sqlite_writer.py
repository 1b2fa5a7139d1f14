"""The one thread that writes to a SQLite store, and its group commit.

    request ─┐                     ┌─ verdict of its own (a revision, or ConflictError)
    request ─┼─► one transaction ──┼─ verdict
    request ─┘    one fsync        └─ verdict          nobody hears anything before the fsync has returned

While one transaction is being synced the next requests gather; they then share the next one.  Each request is checked
against what the requests before it in the same transaction have left.  The thread also wakes when a lease is due.
"""

import logging
import queue
import secrets
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from panloom.errors import ConflictError, UnavailableError
from panloom.state.contract import ABSENT
from panloom.state.leases import Leases

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MAX_REQUESTS: Final = 512  # in one transaction; bounds how long the first waits for the last
RETRY_SECONDS: Final = 1.0  # before leases that could not be ended are tried again
LONGEST_WAIT_SECONDS: Final = 3600.0  # a queue's wait has an upper bound
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Batch:
    """A transaction that several requests fill."""

    def __init__(self, connection: sqlite3.Connection, leases: Leases, *, now: float) -> None:
        self._connection = connection
        self._leases = leases
        self._now = now
        self.revision = self._counter("revision")
        self._first = self.revision + 1
        self._ended = leases.due(now=now)
        for lease in self._ended:
            self._delete_keys("lease = ?", lease)

    @property
    def changed(self) -> bool:
        """Whether a revision was given to any request."""
        return self.revision >= self._first

    def commit(
        self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str], lease: int | None
    ) -> int:
        """Change the keys at a revision of their own, or raise ``ConflictError`` having changed nothing."""
        for key, revision in expect.items():
            now = self._revision_of(key)
            if now != revision:
                raise ConflictError(f"{key} has revision {now}, not {revision}")
        if lease is not None:
            self._leases.check(lease, now=self._now)
        gone = {key for key in delete if self._revision_of(key) != ABSENT}
        if put or gone:
            self.revision += 1
        for key, value in put.items():
            self._execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", key, value, self.revision, lease)
            self._execute("INSERT INTO change VALUES (?, ?, ?)", self.revision, key, value)
        for key in gone:
            self._execute("DELETE FROM entry WHERE key = ?", key)
            self._execute("INSERT INTO change VALUES (?, ?, NULL)", self.revision, key)
        return self.revision

    def grant(self, seconds: float) -> int:
        """Start a lease under a number that no earlier one had."""
        lease = secrets.randbits(62)
        self._leases.start(lease, seconds, now=self._now)
        return lease

    def keep(self, lease: int) -> None:
        """Count its seconds anew; ``ConflictError`` if it has ended."""
        self._leases.keep(lease, now=self._now)

    def revoke(self, lease: int) -> None:
        """End the lease and delete its keys."""
        self._leases.stop(lease)
        self._ended += (lease,)
        self._delete_keys("lease = ?", lease)

    def end_former_leases(self) -> None:
        """Delete the keys of leases that an earlier process granted."""
        self._delete_keys("lease IS NOT NULL")

    def finish(self, history: int) -> None:
        """Write down the last revision given, and drop what the history need not hold any more."""
        self._execute("UPDATE counter SET value = ? WHERE name = 'revision'", self.revision)
        if self.revision - self._counter("dropped") > history + history // 8:
            self._execute("DELETE FROM change WHERE revision <= ?", self.revision - history)
            self._execute("UPDATE counter SET value = ? WHERE name = 'dropped'", self.revision - history)

    def committed(self) -> None:
        """Forget the leases whose end is now on stable storage."""
        for lease in self._ended:
            self._leases.forget(lease)

    def _delete_keys(self, condition: str, *values: int) -> None:
        keys = [key for (key,) in self._execute(f"SELECT key FROM entry WHERE {condition}", *values)]
        self.commit({}, {}, keys, None)

    def _revision_of(self, key: str) -> int:
        row = self._execute("SELECT revision FROM entry WHERE key = ?", key).fetchone()
        return row[0] if row else ABSENT

    def _counter(self, name: str) -> int:
        (value,) = self._execute("SELECT value FROM counter WHERE name = ?", name).fetchone()
        return int(value)

    def _execute(self, statement: str, *values: str | bytes | int | None) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)


class Writer:
    """Gathers requests, performs them in shared transactions and tells each its verdict."""

    def __init__(self, connection: sqlite3.Connection, *, clock: Callable[[], float], history: int) -> None:
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._connection = connection
        self._clock = clock
        self._history = history
        self._published: Callable[[], object] = lambda: None
        self._leases = Leases()
        self._queue: queue.SimpleQueue[tuple[Callable[[Batch], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._failure: UnavailableError | None = None  # of the last transaction
        self._broken = False

    def start(self, published: Callable[[], object]) -> None:
        """Begin; ``published`` is called, from the writer's thread, whenever a new revision is durable."""
        self._published = published
        self._thread.start()

    def submit(self, request: Callable[[Batch], Result]) -> Future[Result]:
        """Have ``request`` performed in the next transaction; its verdict comes when that is on stable storage."""
        future: Future[Result] = Future()
        self._queue.put((request, future))
        return future

    def stop(self) -> None:
        """Return when everything submitted so far has its verdict; the connection is then closed."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            gathered = self._gather()
            stopping = None in gathered
            self._serve([item for item in gathered if item and item[1].set_running_or_notify_cancel()])
        self._connection.close()

    def _gather(self) -> list[tuple[Callable[[Batch], Any], Future[Any]] | None]:
        """Return what waits, after waiting for a request or until a lease is due."""
        deadline = self._leases.deadline
        patience = None
        if deadline is not None and not self._broken:
            patience = min(max(deadline - self._clock(), RETRY_SECONDS if self._failure else 0.0), LONGEST_WAIT_SECONDS)
        try:
            gathered = [self._queue.get(timeout=patience)]
        except queue.Empty:
            return []
        while len(gathered) < MAX_REQUESTS and not self._queue.empty():
            gathered.append(self._queue.get())
        return gathered

    def _serve(self, requests: list[tuple[Callable[[Batch], Any], Future[Any]]]) -> None:
        verdicts = self._perform([request for request, _ in requests])
        for (_, future), verdict in zip(requests, verdicts, strict=True):
            if isinstance(verdict, Exception):
                future.set_exception(verdict)
            else:
                future.set_result(verdict)

    def _perform(self, requests: list[Callable[[Batch], Any]]) -> list[Any]:
        """Return the requests' verdicts, all durable, or an ``UnavailableError`` for each when none has happened."""
        if self._broken:
            return [self._failure] * len(requests)
        verdicts: list[Any] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            batch = Batch(self._connection, self._leases, now=self._clock())
            for request in requests:
                try:
                    verdicts.append(request(batch))
                except ConflictError as conflict:
                    verdicts.append(conflict)
            if batch.changed:
                batch.finish(self._history)
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the top of this thread: whoever waits must hear of it
            self._failure = self._failed(error)
            return [self._failure] * len(requests)
        self._failure = None
        batch.committed()
        if batch.changed:
            self._published()
        return verdicts

    def _failed(self, error: Exception) -> UnavailableError:
        """Roll back.  A full disk passes; after any other error what the page cache holds cannot be believed."""
        passing = isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _PASSING
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            passing = False
        self._broken = not passing
        log.error("event=state_write_failed error=%r passing=%s", str(error), passing)
        remedy = "free space on its disk" if passing else "mend its disk and restart"
        return UnavailableError(f"the state store cannot be written: {error}; {remedy}")
