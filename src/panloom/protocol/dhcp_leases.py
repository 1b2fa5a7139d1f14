"""Who has which address, and until when nobody else may: the table of the DHCP server.

            DISCOVER             nobody              REQUEST             stored
        free ─────────▶ PROBING ─────────▶ OFFERED ─────────▶ STORING ─────────▶ BOUND ──┐ REQUEST: STORING again,
         ▲                 │ somebody         │ 10 s            │ not stored    ▲ │ │   │ holder and end unchanged
         │                 ▼ answers          ▼                 ▼               │ │ └───┘ until that is stored; BOUND
         │◀─── 60 s ─── DECLINED ◀────────────┬─────────────────┬── DECLINE ────┼─┤       if it was stored lately
         │◀───────────────────────────────────┴─────────────────┴── RELEASE ────┼─┤
         │◀───────────────────────────────────────────────────── lease over ────┼─┘
         └── found in the store at the start ───────────────────────────────────┘

Behind a relay there is no PROBING.

One address has one holder at any time.  A holder is a machine by its MAC, or one of several clients of that MAC by its
identifier (RFC 2131 section 4.2), who may then hold an address each.
"""

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

import msgspec

from panloom.values import MacAddress
from panloom.wire.dhcp import Message, Option

WAITING = 4  # requests of one client that wait for its lease: firmware and system, or one that asks anew
ADDRESSES_OF_A_MAC = 8  # of one range, those that it declined included
_FULL_SECONDS = 1.0  # how long a range without a free address is not searched again
Address = TypeVar("Address", IPv4Address, IPv6Address)


class Holder(msgspec.Struct, frozen=True):
    """Who has an address: a MAC, or one client of it.

    ``client`` is option 61, empty for a client that sends none; None: any client of the MAC.
    """

    mac: MacAddress
    client: bytes | None = None

    def speaks_for(self, other: "Holder") -> bool:
        """Return whether what ``other`` has is this one's too."""
        return self.mac == other.mac and (None in (self.client, other.client) or self.client == other.client)


def client_of(request: Message) -> Holder:
    """Return the very client that sent ``request``."""
    return Holder(request.chaddr, request.options.get(Option.CLIENT_IDENTIFIER, b""))


class Allotment(msgspec.Struct, Generic[Address], frozen=True):
    """Which addresses one client may have: a fixed one (``first`` = ``last``) or any of a range."""

    first: Address
    last: Address
    reserved: frozenset[Address]  # addresses that the range does not lend

    @property
    def is_fixed(self) -> bool:
        """Return whether there is only one address to give."""
        return self.first == self.last

    def allows(self, address: Address) -> bool:
        """Return whether the client may have ``address``, be it free or not."""
        return self.first <= address <= self.last and (self.is_fixed or address not in self.reserved)


class Assignment(Allotment[IPv4Address], frozen=True):
    """What one client of DHCP may have, and what goes with it."""

    options: Mapping[int, bytes]
    file: bytes = b""
    by_client: bool = False  # clients of one MAC hold an address each, else they share one
    kin: frozenset[MacAddress] = frozenset()  # other MACs of the same machine

    def holder(self, request: Message) -> Holder:
        """Return as whom the sender of ``request`` has its address."""
        return client_of(request) if self.by_client and not self.is_fixed else Holder(request.chaddr)


class LeaseState(Enum):
    """How far an address is on its way to its holder."""

    PROBING = "probing"
    OFFERED = "offered"
    STORING = "storing"
    BOUND = "bound"
    DECLINED = "declined"


class Lease:
    """Who has an address, and until when nobody else may."""

    def __init__(self, holder: Holder, state: LeaseState, until: float) -> None:
        self.holder = holder
        self.state = state
        self.until = until
        self.durable_until: float | None = None  # end of what was acknowledged, None if nothing is stored
        self.stored_at = float("-inf")  # by this process
        self.requests: list[Message] = []  # to be answered when it is probed or stored, the oldest first
        self.kin: frozenset[MacAddress] = frozenset()  # of the holder's machine, who may answer for the address

    def wait(self, request: Message) -> None:
        """Keep a request until it can be answered; the latest few are kept, each transaction's last."""
        others = [waiting for waiting in self.requests if waiting.xid != request.xid]
        self.requests = [*others, request][-WAITING:]

    def is_over(self, now: float) -> bool:
        """Return whether the address is anybody's again."""
        return self.state is not LeaseState.STORING and self.until <= now


class LeaseTable(Generic[Address]):
    """The leases of one server, by address and by MAC."""

    def __init__(self) -> None:
        self._leases: dict[Address, Lease] = {}
        self._of_mac: dict[MacAddress, set[Address]] = {}
        self._next: dict[tuple[Address, Address], int] = {}  # where in a range to look next
        self._full: dict[
            tuple[Address, Address], float
        ] = {}  # ranges without a free address, and until when that is believed

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, address: Address) -> Lease | None:
        """Return the lease of an address, over or not."""
        return self._leases.get(address)

    def held(self, holder: Holder, *states: LeaseState) -> tuple[Address, ...]:
        """Return the holder's addresses in order, those in ``states`` alone where any are named."""
        mine = sorted(self._of_mac.get(holder.mac, ()))
        return tuple(
            address
            for address in mine
            if holder.speaks_for((lease := self._leases[address]).holder) and (not states or lease.state in states)
        )

    def take(self, address: Address, holder: Holder, state: LeaseState, until: float) -> Lease:
        """Give a free address to ``holder``."""
        lease = self._leases[address] = Lease(holder, state, until)
        self._of_mac.setdefault(holder.mac, set()).add(address)
        return lease

    def forget(self, address: Address) -> None:
        """Free an address; harmless when it is free."""
        lease = self._leases.pop(address, None)
        if lease is not None:
            mine = self._of_mac[lease.holder.mac]
            mine.discard(address)
            if not mine:
                del self._of_mac[lease.holder.mac]

    def over(self, now: float) -> tuple[Address, ...]:
        """Return the addresses whose leases have run out and are not forgotten."""
        return tuple(address for address, lease in self._leases.items() if lease.is_over(now))

    def is_free_for(self, address: Address, holder: Holder, now: float) -> bool:
        """Return whether ``holder`` may have the address: it is nobody's, or its own and not declined."""
        lease = self._leases.get(address)
        if lease is None or lease.is_over(now):
            return True
        return lease.state is not LeaseState.DECLINED and holder.speaks_for(lease.holder)

    def choose(
        self, allotment: Allotment[Address], holder: Holder, wanted: Address | None, now: float
    ) -> Address | None:
        """Return the holder's own address, else the one it wants, else the next free one; None if there is none."""
        likely = [allotment.first] if allotment.is_fixed else [*self.held(holder), *([wanted] if wanted else ())]
        for address in likely:
            if allotment.allows(address) and self.is_free_for(address, holder, now):
                return address
        return None if allotment.is_fixed else self._next_free(allotment, holder, now)

    def has_enough(self, mac: MacAddress, allotment: Allotment[Address], now: float) -> bool:
        """Return whether the clients of a MAC have as many addresses of the range as they may together."""
        mine = self._of_mac.get(mac, ())
        held = sum(allotment.allows(address) and not self._leases[address].is_over(now) for address in mine)
        return held >= ADDRESSES_OF_A_MAC

    def _next_free(self, allotment: Allotment[Address], holder: Holder, now: float) -> Address | None:
        bounds = (allotment.first, allotment.last)
        if self._full.get(bounds, now) > now:
            return None
        size = int(allotment.last) - int(allotment.first) + 1
        start = self._next.get(bounds, 0)
        for step in range(size):
            offset = (start + step) % size
            address = allotment.first + offset
            if address not in allotment.reserved and self.is_free_for(address, holder, now):
                self._next[bounds] = offset + 1
                return address
        self._full[bounds] = now + _FULL_SECONDS
        return None
