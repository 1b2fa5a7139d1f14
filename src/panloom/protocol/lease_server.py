"""What the servers of DHCP and of DHCPv6 have in common: leases that are durable before anybody is told of them.

    found(…)                the leases that are in the store
    handle_timer(now=)      offers and leases run out; wanted at ``deadline``
    leases_to_store()       must be durable before their answer; then stored(…) or not_stored(…)
    packets_to_send()       replies
    events()                what changed, and what was refused and why

Time is the caller's monotonic clock, which never says how long a process was away: a lease found in the store is held
for its full length from then on.  No wall clock decides whose an address is.  So what must be durable before an answer
is whose the address is, not until when: a lease that is there already is stored anew only now and then, for those who
read it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import Enum
from typing import Generic, TypeGuard

import msgspec

from panloom.protocol.dhcp_leases import (
    ADDRESSES_OF_A_MAC,
    Address,
    Allotment,
    Holder,
    Lease,
    LeaseState,
    LeaseTable,
)
from panloom.values import IpAddress, MacAddress

LEASE_SECONDS = 600
OFFER_SECONDS = 10.0
DECLINE_SECONDS = 60.0
STORED_ANEW_SECONDS = LEASE_SECONDS / 4  # a lease that was stored so lately is prolonged without being stored again
_SWEEP_SECONDS = 5.0  # what has run out is free at once, but forgotten only now and then


class LeaseWrite(msgspec.Struct, Generic[Address], frozen=True):
    """A lease that must be stored, or forgotten when ``mac`` is None."""

    address: Address
    mac: MacAddress | None
    client: bytes | None = None  # as in ``Holder``
    seconds: int = LEASE_SECONDS


class Datagram(msgspec.Struct, Generic[Address], frozen=True):
    """Octets for a client's MAC (None: by routing, to a relay or what is behind it), from our server port."""

    octets: bytes
    mac: MacAddress | None
    address: Address
    port: int


class DhcpEventKind(Enum):
    """What happened."""

    OFFERED = "offered"
    BOUND = "bound"
    REFUSED = "refused"  # a known client that cannot have what it asked for
    DECLINED = "declined"
    RELEASED = "released"
    IGNORED = "ignored"  # bad input, or somebody else's business


class DhcpEvent(msgspec.Struct, frozen=True):
    """One thing that happened, for logs and for the control process."""

    kind: DhcpEventKind
    mac: MacAddress | None = None
    address: IpAddress | None = None
    why: str = ""


class LeaseServer(ABC, Generic[Address]):
    """The leases of one interface, and what is to be stored, sent and told of them."""

    def __init__(self) -> None:
        self._leases: LeaseTable[Address] = LeaseTable()
        self._now = 0.0
        self._sweep_at = 0.0
        self._writes: list[LeaseWrite[Address]] = []
        self._packets: list[Datagram[Address]] = []
        self._events: list[DhcpEvent] = []

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""
        return self._sweep_at if self._leases else None

    def owner(self, address: Address) -> MacAddress | None:
        """Return who holds ``address`` for certain: bound and durable."""
        lease = self._leases.get(address)
        return lease.holder.mac if lease is not None and lease.durable_until is not None else None

    def found(self, leases: Iterable[tuple[Address, Holder]], *, now: float) -> None:
        """Take over leases that are in the store; each is held for its full length from now."""
        self._tick(now)
        for address, holder in leases:
            self._leases.forget(address)
            lease = self._leases.take(address, holder, LeaseState.BOUND, self._now + LEASE_SECONDS)
            lease.durable_until = lease.until

    def handle_timer(self, *, now: float) -> None:
        """Let run out what has run out."""
        self._tick(now)
        if self._now >= self._sweep_at:
            self._sweep_at = self._now + _SWEEP_SECONDS
            for address in self._leases.over(self._now):
                self._end(address)

    @abstractmethod
    def stored(self, write: LeaseWrite[Address], *, now: float) -> None:
        """Note that a lease of ``leases_to_store`` is durable; who waits is answered, if it may still have it."""

    def not_stored(self, write: LeaseWrite[Address], why: str, *, now: float) -> None:
        """Note that a lease could not be stored; the client hears nothing and will ask again."""
        lease = self._awaited(write, now)
        if lease is None:
            return
        self._event(DhcpEventKind.REFUSED, write.mac, write.address, f"its lease could not be stored: {why}")
        lease.requests = []
        if lease.durable_until is None:
            self._leases.forget(write.address)
        else:
            lease.state, lease.until = LeaseState.BOUND, lease.durable_until

    def leases_to_store(self) -> tuple[LeaseWrite[Address], ...]:
        """Return what must be stored, in order; each is then told to ``stored`` or ``not_stored``."""
        writes, self._writes = tuple(self._writes), []
        return writes

    def packets_to_send(self) -> tuple[Datagram[Address], ...]:
        """Return the replies that are due, in order."""
        packets, self._packets = tuple(self._packets), []
        return packets

    def events(self) -> tuple[DhcpEvent, ...]:
        """Return what happened since the last call."""
        events, self._events = tuple(self._events), []
        return events

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _awaited(self, write: LeaseWrite[Address], now: float) -> Lease | None:
        """Return the lease that a write is of, None if that has come to nothing meanwhile."""
        self._tick(now)
        lease = self._leases.get(write.address)
        if lease is None or lease.state is not LeaseState.STORING or lease.holder.mac != write.mac:
            return None
        return lease

    def _running(self, address: Address) -> Lease | None:
        """Return an address's lease that is not over."""
        lease = self._leases.get(address)
        return None if lease is None or lease.is_over(self._now) else lease

    def _can_have(self, address: Address | None, mac: MacAddress, allotment: Allotment[Address]) -> TypeGuard[Address]:
        """Refuse where nothing is free, and a further address to a MAC whose clients have as many as they may."""
        if address is None:
            which = f"{allotment.first} is" if allotment.is_fixed else "every address of the range is"
            why = f"{which} in use"
        elif self._running(address) is None and self._leases.has_enough(mac, allotment, self._now):
            why = f"it has {ADDRESSES_OF_A_MAC} addresses of the range, declined ones included, and may have no more"
        else:
            return True
        self._event(DhcpEventKind.REFUSED, mac, None, why)
        return False

    def _lend(self, address: Address, holder: Holder, state: LeaseState = LeaseState.OFFERED) -> Lease:
        """Give an address that nobody has, or whose lease is over, for the time of an offer."""
        self._end(address)
        return self._leases.take(address, holder, state, self._now + OFFER_SECONDS)

    def _is_stored(self, address: Address, lease: Lease, holder: Holder) -> bool:
        """Prolong a lease that was stored lately; else have it stored, once, and return False."""
        if lease.state is LeaseState.BOUND and self._now - lease.stored_at < STORED_ANEW_SECONDS:
            lease.until = lease.durable_until = self._now + LEASE_SECONDS
            return True
        if lease.state in (LeaseState.OFFERED, LeaseState.BOUND):
            lease.state, lease.holder = LeaseState.STORING, holder
            self._writes.append(LeaseWrite(address, holder.mac, holder.client))
        return False

    def _bind(self, lease: Lease, seconds: float) -> None:
        """Hold a lease for so long from now that has just become durable."""
        lease.state, lease.stored_at = LeaseState.BOUND, self._now
        lease.until = lease.durable_until = self._now + seconds

    def _rest(self, address: Address, mac: MacAddress) -> None:
        """Lend an address to nobody for a while, ``mac`` being who uses it or says that it is in use."""
        self._end(address)
        self._leases.take(address, Holder(mac), LeaseState.DECLINED, self._now + DECLINE_SECONDS)

    def _end(self, address: Address) -> None:
        """Free the address, and have the store forget it if it knows it."""
        lease = self._leases.get(address)
        if lease is not None and lease.durable_until is not None:
            self._writes.append(LeaseWrite(address, None))
        self._leases.forget(address)

    def _tick(self, now: float) -> None:
        self._now = max(self._now, now)

    def _event(self, kind: DhcpEventKind, mac: MacAddress | None, address: Address | None, why: str = "") -> None:
        self._events.append(DhcpEvent(kind, mac, address, why))
