"""Leases in the store: one key an address, so that no two machines can ever be written down for one.

    /record/lease/10.77.0.51    {"mac": "52:54:00:77:00:01", "expires_at": 1780000000.0}
    /record/lease/10.99.0.10    {"mac": "02:50:4c:00:00:01", "expires_at": 1780000000.0, "client": "01aa"}
    /record/lease/2001:db8::33  {"mac": "52:54:00:77:00:01", "expires_at": 1780000000.0}

``client`` is the identifier of one of several clients of a MAC; null, and in older records absent: any client's.

``expires_at`` is wall-clock time for people to read, and may be up to 150 s too early where a lease was prolonged;
whose an address is never depends on it.  Writes that wait
together become one commit; if it conflicts, somebody else wrote a lease, and each is tried alone.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Generic

import msgspec

from panloom.errors import ConflictError, UnavailableError
from panloom.protocol.dhcp_leases import Address, Holder
from panloom.protocol.lease_server import LeaseWrite
from panloom.state.contract import ABSENT, Store
from panloom.values import IpAddress, MacAddress

PREFIX = "/record/lease/"
_LARGEST_GROUP = 256
_log = logging.getLogger("panloom.boot")


class LeaseRecord(msgspec.Struct, frozen=True):
    """Who has an address."""

    mac: str
    expires_at: float  # wall clock, seconds
    client: str | None = None  # hexadecimal


class Written(msgspec.Struct, Generic[Address], frozen=True):
    """How a write ended: ``why`` is empty if it is durable; ``owner`` has the address by another process's hand."""

    write: LeaseWrite[Address]
    why: str = ""
    owner: Holder | None = None


class Book(Generic[Address]):
    """Writes leases of one kind of address down in the order in which they come."""

    def __init__(self, store: Store, written: Callable[[Written[Address]], None], kind: type[Address]) -> None:
        self._store = store
        self._kind: type[Address] = kind
        self._written: Callable[[Written[Address]], None] = written
        self._revisions: dict[Address, int] = {}
        self._queue: deque[LeaseWrite[Address]] = deque()
        self._wake = asyncio.Event()

    async def load(self) -> tuple[tuple[Address, Holder], ...]:
        """Return every lease in the store; UnavailableError if it cannot be read."""
        snapshot = await self._store.range(PREFIX)
        found = []
        for entry in snapshot.entries:
            address = ip_address(entry.key.removeprefix(PREFIX))
            if isinstance(address, self._kind):
                self._revisions[address] = entry.revision
                found.append((address, _holder(entry.value)))
        return tuple(found)

    def add(self, writes: Sequence[LeaseWrite[Address]]) -> None:
        """Queue writes; ``written`` is called for each when it has ended."""
        self._queue.extend(writes)
        if writes:
            self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._write(self._take_group())

    def _take_group(self) -> list[LeaseWrite[Address]]:
        group: dict[Address, LeaseWrite[Address]] = {}
        while self._queue and self._queue[0].address not in group and len(group) < _LARGEST_GROUP:
            write = self._queue.popleft()
            group[write.address] = write
        return list(group.values())

    async def _write(self, group: list[LeaseWrite[Address]]) -> None:
        try:
            await self._commit(group)
        except ConflictError:
            for write in group:
                await self._write_alone(write)
        except UnavailableError as error:
            _log.info("lease=unwritten count=%d why=%r", len(group), str(error))
            for write in group:
                self._written(Written(write, str(error)))
        else:
            for write in group:
                self._written(Written(write))

    async def _write_alone(self, write: LeaseWrite[Address]) -> None:
        """Write one lease, over what another process wrote for the same machine, and never over another machine's."""
        try:
            entry = await self._store.get(_key(write.address))
            owner = _holder(entry.value) if entry else None
            ours = (
                entry is None
                or entry.revision == self._revisions.get(write.address)
                or (owner is not None and owner.mac == write.mac)
            )
            self._revisions[write.address] = entry.revision if entry else ABSENT
            if ours:
                await self._commit([write])
                self._written(Written(write))
            else:
                self._written(Written(write, f"it is {owner.mac if owner else None}'s in the store", owner))
        except (ConflictError, UnavailableError) as error:
            self._written(Written(write, str(error)))

    async def _commit(self, group: list[LeaseWrite[Address]]) -> None:
        ends_from = time.time()
        puts = {
            _key(write.address): _record(write, ends_from + write.seconds) for write in group if write.mac is not None
        }
        gone = [_key(write.address) for write in group if write.mac is None]
        expect = {_key(write.address): self._revisions.get(write.address, ABSENT) for write in group}
        revision = await self._store.commit(expect=expect, put=puts, delete=gone)
        for write in group:
            self._revisions[write.address] = revision if write.mac is not None else ABSENT


class LeaseBook(Book[IPv4Address]):
    """The leases of DHCP."""

    def __init__(self, store: Store, written: Callable[[Written[IPv4Address]], None]) -> None:
        super().__init__(store, written, IPv4Address)


class Ipv6LeaseBook(Book[IPv6Address]):
    """The leases of DHCPv6."""

    def __init__(self, store: Store, written: Callable[[Written[IPv6Address]], None]) -> None:
        super().__init__(store, written, IPv6Address)


def _key(address: IpAddress) -> str:
    return f"{PREFIX}{address}"


def _record(write: LeaseWrite[Address], expires_at: float) -> bytes:
    client = write.client.hex() if write.client is not None else None
    return msgspec.json.encode(LeaseRecord(str(write.mac), expires_at, client))


def _holder(value: bytes) -> Holder:
    record = msgspec.json.decode(value, type=LeaseRecord)
    return Holder(MacAddress.parse(record.mac), bytes.fromhex(record.client) if record.client is not None else None)


async def leases(store: Store) -> dict[MacAddress, tuple[IpAddress, ...]]:
    """Return who has which addresses, a MAC's in order, those of IPv4 first."""
    snapshot = await store.range(PREFIX)
    found: dict[MacAddress, list[IpAddress]] = {}
    for entry in snapshot.entries:
        found.setdefault(_holder(entry.value).mac, []).append(ip_address(entry.key.removeprefix(PREFIX)))
    return {
        mac: tuple(sorted(each, key=lambda address: (address.version, int(address)))) for mac, each in found.items()
    }
