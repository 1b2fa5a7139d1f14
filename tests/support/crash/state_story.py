"""What the state store may live through, leases and the MAC counter with it; the store is the real one on its SQLite.

StateStory(directory, seed).tell()  →  chapters, each from a start to the next power cut
"""

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from panloom.boot.lease_book import PREFIX, LeaseBook, LeaseRecord
from panloom.control.mac_counter import MacCounter
from panloom.durable_names import make_directory
from panloom.errors import ConflictError, PanloomError, UnavailableError
from panloom.protocol.lease_server import LeaseWrite
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress
from support.crash.chapter import NOTHING, Story, Violation
from support.crash.disk import ROOT, SECTOR, Contents
from support.crash.recorder import Killed
from support.crash.sqlite_recorder import SQLITE

PLACE = "var/state/state.sqlite"
SERIAL = 7
OLDER_FORMAT = Path(__file__).parents[2] / "state" / "fixtures" / "v1.sqlite"


class StatePromise:
    """What the store has promised: ``may_be`` are its possible pictures, each revision → entries."""

    def __init__(self):
        self.notes = 0  # how often it was changed
        self.may_be = [{}]
        self.leases = {}  # address → whose it may be: a MAC that was told so, or None
        self.macs = 0  # the last one given

    def begin(self, put, delete):
        """A commit was asked for; it may happen after those before it, or not at all."""
        after = {**self.may_be[-1], **put}
        for key in delete:
            after.pop(key, None)
        self.may_be.append(after)

    def done(self, number):
        """The so many-th of the commits under way was answered."""
        del self.may_be[:number]

    def power_was_cut(self):
        """Nothing is promised to a killed process alone."""

    def saw(self, entries):
        """A new process tells this."""
        self.may_be = [entries]

    def saw_leases(self, leases):
        """It relies on these."""
        self.leases = {address: {leases.get(address)} for address in {*self.leases, *leases}}

    def leasing(self, write):
        """An address is being given, or taken back."""
        self.leases.setdefault(write.address, {None}).add(write.mac)

    def leased(self, write):
        """The machine was told."""
        self.leases[write.address] = {write.mac}

    def check(self, root, *, power_cut):
        """Open the store that is left, and compare; kill and power cut leave the same."""
        try:
            entries, changes, leases, mac = asyncio.run(_look(root / PLACE))
        except PanloomError as error:
            raise Violation(f"does not open: {error}") from error
        if entries not in self.may_be:
            raise Violation(f"the store differs in {_differences(entries, self.may_be)}")
        if changes != entries:
            raise Violation(f"the history ends in {changes}, the store holds {entries}")
        for address, owners in self.leases.items():
            if leases.get(address) not in owners:
                raise Violation(f"{address} was given to {owners}, the book says {leases.get(address)}")
        if mac <= self.macs:
            raise Violation(f"the MAC {mac} is given a second time; {self.macs} were")


def _differences(entries, may_be):
    """Return, for each picture that would have been right, the keys in which the store is not as it says."""
    return [sorted(key for key in {*entries, *each} if entries.get(key) != each.get(key)) for each in may_be]


async def _look(path):
    """Return the entries, what the history makes of them, the leases, and the next number of a MAC."""
    make_directory(path.parent)
    store = await SqliteStore.open(path)
    try:
        entries = {entry.key: entry.value for entry in (await store.range("")).entries}
        changes = {}
        for key, value in store._rows("SELECT key, value FROM change ORDER BY revision, key"):
            if value is None:
                changes.pop(key, None)
            else:
                changes[key] = value
        leases = {a: holder.mac for a, holder in await LeaseBook(store, lambda written: None).load()}
        address = await MacCounter(store).allocate(SERIAL)
        return entries, changes, leases, address.number & 0xFFFFFF
    finally:
        await store.close()


class Told:
    """A store whose commits are marked: asked for, answered."""

    def __init__(self, store, mark):
        self._store = store
        self._mark = mark
        self._under_way = []
        self.answered = 0
        self.get, self.range = store.get, store.range

    async def commit(self, *, expect, put=None, delete=()):
        """Pass it on."""
        put, number = put or {}, object()
        self._mark(lambda promise: promise.begin(put, delete))
        self._under_way.append(number)
        try:
            revision = await self._store.commit(expect=expect, put=put, delete=delete)
        except ConflictError:  # it has not happened; and nothing else is under way where that is possible
            self._under_way.remove(number)
            self._mark(lambda promise: promise.may_be.pop())
            raise
        except UnavailableError:
            self._under_way.remove(number)
            if not self._store._writer._broken:  # a full disk: it was taken back
                self._mark(lambda promise: promise.may_be.pop())
            raise
        self.answered += 1
        done = self._under_way.index(number) + 1
        del self._under_way[:done]
        self._mark(lambda promise: promise.done(done))
        return revision


class StateStory(Story):
    """A control process as its store knows it; each fourth begins with a file of the format before this one."""

    def beginning(self):
        """An empty disk, or an older store."""
        promise = StatePromise()
        if self.chance.randrange(4):
            return NOTHING, promise
        promise.may_be = [{"/want/node/n1": b"uno"}]
        return older_format(), promise

    def live(self, root, *, durable):
        """Start, work, and end in one of three ways: cleanly, between two calls, within one."""
        with SQLITE.to(self.recorder):
            asyncio.run(self._live(root / PLACE))

    async def _live(self, path):
        store = None
        try:
            if self.chance.random() < 0.3:
                self.recorder.die_after(self.chance.randrange(25))
            make_directory(path.parent)
            store = await SqliteStore.open(path)
            self.recorder.die_after(None)
            entries = {entry.key: entry.value for entry in (await store.range("")).entries}
            self.mark(lambda promise: promise.saw(entries))
            self._told = Told(store, self.mark)
            self._book = LeaseBook(self._told, self._written)
            leases = {address: holder.mac for address, holder in await self._book.load()}
            self.mark(lambda promise: promise.saw_leases(leases))
            store._writer._connection.execute("PRAGMA wal_autocheckpoint = 24")  # a log that comes round often
            if self.chance.random() < 0.6:
                self.recorder.die_after(self.chance.randrange(150))
            for _ in range(self.steps):
                await self._step()
        except (Killed, UnavailableError):
            pass  # the process ended there
        finally:
            if self.chance.random() < 0.7:
                self.recorder.kill()
            if store:
                await store.close()

    async def _step(self):
        match self.chance.choices(("commit", "together", "delete", "lease", "rival", "mac"), (4, 2, 1, 3, 1, 2))[0]:
            case "commit":
                await self._commit(self._key())
            case "together":
                await asyncio.gather(*(self._commit(key) for key in dict.fromkeys(self._key() for _ in range(3))))
            case "delete":
                key = self._key()
                await self._told.commit(expect={}, delete=[key])
            case "lease":
                for number in dict.fromkeys(self.chance.randrange(8) for _ in range(3)):
                    self._lease(LeaseWrite(IPv4Address(f"10.0.0.{number}"), self._machine()))
                await self._write_leases()
            case "rival":
                await self._rival(LeaseWrite(IPv4Address(f"10.0.0.{self.chance.randrange(8)}"), _machine(1)))
            case "mac":
                mac = await MacCounter(self._told).allocate(SERIAL)
                number = mac.number & 0xFFFFFF
                self.mark(lambda promise: setattr(promise, "macs", number))

    async def _rival(self, write):
        """Another process gives an address; ours then gives it too, to the same machine or to another."""
        self.mark(lambda promise: promise.leasing(write))
        record = msgspec.json.encode(LeaseRecord(str(write.mac), 0.0))
        await self._told.commit(expect={}, put={f"{PREFIX}{write.address}": record})
        self.mark(lambda promise: promise.leased(write))
        self._lease(LeaseWrite(write.address, _machine(self.chance.randrange(1, 3))))
        self._lease(LeaseWrite(write.address + 8, self._machine()))  # of the same group, so that each is written alone
        await self._write_leases()

    async def _write_leases(self):
        while self._book._queue:
            await self._book._write(self._book._take_group())

    def _machine(self):
        """Return a MAC, or None for an address that its machine gives back."""
        return _machine(self.chance.randrange(6))

    def _lease(self, write):
        self.mark(lambda promise: promise.leasing(write))
        self._book.add([write])

    def _key(self):
        return f"/want/{self.chance.randrange(12)}"

    async def _commit(self, key):
        value = self.chance.randbytes(self.chance.choice((10, 200, 3000, 9000)))
        await self._told.commit(expect={}, put={key: value, key + "/also": value[:10]})

    def _written(self, written):
        if not written.why:
            self.mark(lambda promise: promise.leased(written.write))


def _machine(number):
    return MacAddress.parse(f"02:00:00:00:00:{number:02x}") if number else None


def older_format():
    """Return a disk with a store of the format before this one."""
    octets = OLDER_FORMAT.read_bytes()
    sectors = dict(enumerate(octets[at : at + SECTOR] for at in range(0, len(octets), SECTOR)))
    return Contents({4: (len(octets), sectors)}, {ROOT: {"var": 1}, 1: {"state": 2}, 2: {"state.sqlite": 4}})
