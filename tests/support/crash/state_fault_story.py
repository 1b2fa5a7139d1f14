"""A state store on a disk that fails it once: whatever was answered holds, and what was refused is asked for again.

a full disk              the commit is refused; the next one is done
any other call of SQLite the commit is refused; or done, where SQLite can do without; nothing after a failed sync
a start                  ends in one clear error; the next one succeeds
"""

import asyncio
import copy

from panloom.boot.lease_book import LeaseBook
from panloom.durable_names import make_directory
from panloom.errors import PanloomError, UnavailableError
from panloom.state.sqlite import SqliteStore
from support.crash.chapter import Chapter, Violation, boot_of_the_machine
from support.crash.faults import Injector
from support.crash.recorder import Recorder
from support.crash.sqlite_recorder import SQLITE
from support.crash.state_story import PLACE, StateStory, Told


class StateFaultStory(StateStory):
    """Always the same work for a seed; only the fault differs."""

    def __init__(self, directory, seed, *, steps, number=None, name=None, way=None):
        super().__init__(directory, seed, steps=steps)
        self._fault = (number, name, way)
        self.injector = None
        self._store = None
        self._lost = False  # a sync failed that the next start cannot know of

    def tell(self):
        """Return the one chapter."""
        contents, self.promise = self.beginning()
        root = self.directory / "root"
        root.mkdir()
        contents.write_to(root)
        chapter = Chapter(1, contents, copy.deepcopy(self.promise), [])
        with boot_of_the_machine(self.directory, 1), Recorder(root, contents) as self.recorder:
            chapter.log = self.recorder.log
            self.recorder.faults = self.injector = Injector(self.recorder, *self._fault)
            with SQLITE.to(self.recorder):
                asyncio.run(self._work(root / PLACE))
            self.recorder.faults = None
            if lost := self.recorder.lost():
                raise Violation(f"{lost} were written to by another way than is recorded")
        if self._lost:
            del chapter.log[self.injector.logged :]
        return chapter

    async def _work(self, path):
        await self._start(path)
        try:
            for _ in range(self.steps):
                await self._attempt()
        finally:
            await self._store.close()

    async def _start(self, path):
        """Start, again if that was refused."""
        try:
            await self._open(path)
        except (PanloomError, OSError) as error:
            if self.injector.struck is None or not isinstance(error, PanloomError):
                raise Violation(f"does not start: {error!r}") from error
            self._lost = self.injector.failed_sync
            await self._open(path)
        (mode,) = self._store._writer._connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            raise Violation(f"the store goes on with the journal mode {mode}")
        entries = await self._see()
        self._told = Told(self._store, self.mark)
        self._book = LeaseBook(self._told, self._written)
        leases = {address: holder.mac for address, holder in await self._book.load()}
        self.mark(lambda promise: promise.saw_leases(leases))
        if entries:
            self._store._writer._connection.execute("PRAGMA wal_autocheckpoint = 24")

    async def _open(self, path):
        try:
            make_directory(path.parent)
        except OSError as error:  # as the control process has it
            raise UnavailableError(str(error)) from error
        self._store = await SqliteStore.open(path)

    async def _see(self):
        entries = {entry.key: entry.value for entry in (await self._store.range("")).entries}
        self.mark(lambda promise: promise.saw(entries))
        return entries

    async def _attempt(self):
        before, answered = self.injector.struck, self._told.answered
        was_broken = self._store._writer._broken
        try:
            await self._step()
        except UnavailableError as error:
            broken = self._store._writer._broken
            if before and not broken:
                raise Violation(f"refused ({error}) long after {before}") from error
            if not broken:  # a full disk: it has not happened, and can be asked for again
                await self._see()
        if was_broken and self._told.answered > answered:
            raise Violation("the store is out of use, and answers")
