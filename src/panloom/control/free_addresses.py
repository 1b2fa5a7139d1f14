"""Which storage address a machine gets that is taken in.

    of the subnet, no document's ──▶ above the control node's own, else below it ──▶ nobody answers ARP for it

Gateways have the lowest address of most subnets or the highest, and no document need name them; so the search begins in
the middle, and asks on the wire.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from ipaddress import IPv4Address
from itertools import chain, islice

from panloom.boot.arp_probe import answering
from panloom.control.world import World
from panloom.errors import ConflictError, UnavailableError
from panloom.model.resources import Node, Server, VirtualLan

ASKED_AT_ONCE = 16
MOST_ASKED = 1024  # some seconds; who answers for so many answers for any
SILENT_SECONDS = 5.0  # for how long one that nobody answered for is taken to be nobody's
ANSWERED_SECONDS = 60.0
Ask = Callable[[str, Collection[IPv4Address]], Awaitable[frozenset[IPv4Address]]]


class FreeAddresses:
    """Finds them; ``ask`` returns who answers on an interface, ``clock`` is in monotonic seconds."""

    def __init__(self, ask: Ask = answering, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[IPv4Address, tuple[bool, float]] = {}
        """Address → whether somebody answered for it, and until when that holds."""

    async def choose(self, world: World) -> IPv4Address:
        """Return one that is free; UnavailableError when nobody can be asked.

        ConflictError when there is none, or somebody answers for ``MOST_ASKED``.
        """
        platform = world.platform
        if platform is None:
            raise UnavailableError("no platform document is applied; write one and: panloom apply platform.yaml")
        storage, unnamed, answered = platform.storage, unnamed_addresses(world), 0
        while batch := tuple(islice(unnamed, ASKED_AT_ONCE)):
            if answered >= MOST_ASKED:
                why = f"ARP is answered for {answered} addresses of {storage.subnet} that no document names"
                raise ConflictError(f"{why}; see who answers: arping -I {storage.interface} {batch[0]}")
            await self._learn(storage.interface, batch)
            for address in batch:
                if not self._known[address][0]:
                    return address
            answered += len(batch)
        raise ConflictError(f"no address of {storage.subnet} is free for another node")

    async def _learn(self, interface: str, addresses: Collection[IPv4Address]) -> None:
        now = self._clock()
        self._known = {address: known for address, known in self._known.items() if now < known[1]}
        unknown = [address for address in addresses if address not in self._known]
        if not unknown:
            return
        taken = await self._ask(interface, unknown)
        for address in unknown:
            is_taken = address in taken
            self._known[address] = is_taken, now + (ANSWERED_SECONDS if is_taken else SILENT_SECONDS)


def unnamed_addresses(world: World) -> Iterator[IPv4Address]:
    """Yield the storage addresses that no document gives to anybody, in the order in which they are taken."""
    platform = world.platform
    if platform is None:
        return
    storage, lans = platform.storage, world.all(VirtualLan).values()
    taken = {node.address for node in world.all(Node).values()} | {storage.address}
    taken |= {address for relay in storage.relays for address in (relay.address, relay.router) if address}
    taken |= {address for lan in lans for address in (lan.router, *lan.dns) if address}
    taken |= {nic.address for server in world.all(Server).values() for nic in server.nics if nic.address}
    lent = [span for span in (storage.discovery, *(lan.range for lan in lans)) if span]
    own, subnet = int(storage.address), storage.subnet
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.prefixlen < 31:  # of two addresses both are hosts'
        first, last = first + 1, last - 1
    for number in chain(range(own + 1, last + 1), range(own - 1, first - 1, -1)):
        address = IPv4Address(number)
        if address not in taken and not any(begin <= address <= end for begin, end in lent):
            yield address
