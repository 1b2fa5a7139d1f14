"""The slow, plain twin of every store: a dict, a list of changes and a sweep over the leases.

It keeps ``panloom.state.contract`` in memory, so it also serves tests of whatever needs a store but not a disk.
"""

import asyncio
import itertools
import time

from panloom.errors import ConflictError, UnavailableError
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


class DictStore:
    def __init__(self, *, clock=time.monotonic, history=100_000):
        self.clock = clock
        self.history = history
        self.revision = 0
        self.dropped = 0
        self.entries = {}  # key -> (value, revision, lease)
        self.changes = []
        self.leases = {}  # lease -> (seconds, end)
        self.numbers = itertools.count(1)
        self.closed = False

    async def get(self, key):
        check_key(key)
        self._sweep()
        found = self.entries.get(key)
        await asyncio.sleep(0)  # others have their turn between this and what is made of it, as with a store on a disk
        return Entry(key, found[0], found[1]) if found else None

    async def range(self, prefix):
        check_prefix(prefix)
        self._sweep()
        found = sorted((key, entry) for key, entry in self.entries.items() if key.startswith(prefix))
        return Snapshot(self.revision, tuple(Entry(key, value, revision) for key, (value, revision, _) in found))

    async def commit(self, *, expect=NOTHING, put=NOTHING, delete=(), lease=None):
        check_commit(expect, put, delete)
        self._sweep()
        for key, revision in expect.items():
            now = self.entries[key][1] if key in self.entries else 0
            if now != revision:
                raise ConflictError(f"{key} has revision {now}, not {revision}")
        if lease is not None and lease not in self.leases:
            raise ConflictError(f"lease {lease} has ended")
        return self._change(put, {key for key in delete if key in self.entries}, lease)

    async def watch(self, prefix, *, after):
        check_prefix(prefix)
        while True:
            self._sweep()
            if after < self.dropped:
                raise CompactedError(f"the history begins at revision {self.dropped + 1}")
            news = [change for change in self.changes if change.revision > after]
            after = max(after, self.revision)
            for change in news:
                if change.key.startswith(prefix):
                    yield change
            await asyncio.sleep(0.001)

    async def grant(self, seconds):
        check_seconds(seconds)
        self._sweep()
        lease = next(self.numbers)
        self.leases[lease] = (seconds, self.clock() + seconds)
        return lease

    async def keep(self, lease):
        self._sweep()
        if lease not in self.leases:
            raise ConflictError(f"lease {lease} has ended")
        seconds, _ = self.leases[lease]
        self.leases[lease] = (seconds, self.clock() + seconds)

    async def revoke(self, lease):
        self._sweep()
        self._end(lease)

    async def close(self):
        self.closed = True

    def _sweep(self):
        if self.closed:
            raise UnavailableError("the state store is closed")
        for lease in [lease for lease, (_, end) in self.leases.items() if self.clock() >= end]:
            self._end(lease)

    def _end(self, lease):
        self.leases.pop(lease, None)
        self._change({}, {key for key, entry in self.entries.items() if entry[2] == lease and lease is not None}, None)

    def _change(self, put, gone, lease):
        if put or gone:
            self.revision += 1
        for key in sorted({*put, *gone}):
            if key in gone:
                del self.entries[key]
            else:
                self.entries[key] = (put[key], self.revision, lease)
            self.changes.append(Change(key, put.get(key), self.revision))
        if self.revision - self.dropped > self.history + self.history // 8:
            self.dropped = self.revision - self.history
            self.changes = [change for change in self.changes if change.revision > self.dropped]
        return self.revision
