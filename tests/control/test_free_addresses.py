"""Which storage address a machine gets that is taken in: nobody's, by the documents and by what the wire says."""

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from panloom.control.free_addresses import (
    ANSWERED_SECONDS,
    MOST_ASKED,
    SILENT_SECONDS,
    FreeAddresses,
    unnamed_addresses,
)
from panloom.errors import ConflictError
from panloom.model.resources import Relay, StorageNetwork
from support.dict_store import DictStore
from support.world import DOCUMENTS, PLATFORM, node, put


def platform(address, subnet, **more):
    storage = StorageNetwork(interface="br0", address=IPv4Address(address), subnet=IPv4Network(subnet), **more)
    return PLATFORM.model_copy(update={"storage": storage})


def worlds(*documents):
    return asyncio.run(put(DictStore(), *documents))


class Wire:
    """A network on which some addresses are somebody's."""

    def __init__(self, *taken):
        self.taken = set(map(IPv4Address, taken))
        self.asked = []

    async def ask(self, _interface, addresses):
        self.asked += addresses
        return frozenset(self.taken.intersection(addresses))


def test_the_search_begins_above_the_control_nodes_own_and_ends_at_the_lowest():
    found = [str(address) for address in unnamed_addresses(worlds(platform("10.77.0.4", "10.77.0.0/29")))]
    assert found == ["10.77.0.5", "10.77.0.6", "10.77.0.3", "10.77.0.2", "10.77.0.1"]


def test_what_a_document_gives_to_anybody_is_no_new_nodes():
    relay = Relay(address=IPv4Address("10.77.0.13"), subnet=IPv4Network("10.9.0.0/24"))
    own = platform("10.77.0.10", "10.77.0.8/29", discovery=("10.77.0.14", "10.77.0.14"), relays=(relay,))
    front = DOCUMENTS[4].model_copy(update={"router": IPv4Address("10.77.0.9"), "dns": ()})
    found = worlds(own, node(1), *DOCUMENTS[3:4], front)
    assert [str(address) for address in unnamed_addresses(found)] == ["10.77.0.12"]  # .11 is n1's


def test_an_address_that_somebody_answers_for_is_passed_over_until_it_may_have_gone():
    async def scenario():
        now, wire = 0.0, Wire("10.77.0.5")
        addresses = FreeAddresses(wire.ask, clock=lambda: now)
        world = await put(DictStore(), platform("10.77.0.4", "10.77.0.0/29"))
        chosen = [str(await addresses.choose(world)) for _ in range(2)]
        once = len(wire.asked)
        now = SILENT_SECONDS
        await addresses.choose(world)
        again = wire.asked[once:]
        wire.taken.clear()
        now = ANSWERED_SECONDS
        return chosen, once, again, str(await addresses.choose(world))

    chosen, once, again, later = asyncio.run(scenario())
    assert (chosen, once, later) == (["10.77.0.6", "10.77.0.6"], 5, "10.77.0.5")
    assert IPv4Address("10.77.0.5") not in again


def test_one_that_answers_for_every_address_is_said_to_and_not_asked_for_ever():
    asked = []

    async def liar(_interface, addresses):
        asked.extend(addresses)
        return frozenset(addresses)

    world = worlds(platform("10.0.0.1", "10.0.0.0/8"))
    with pytest.raises(
        ConflictError, match=r"ARP is answered for 1024 addresses of 10\.0\.0\.0/8 .* arping -I br0 10\.0\."
    ):
        asyncio.run(FreeAddresses(liar).choose(world))
    assert len(asked) == MOST_ASKED


def test_a_full_network_is_said_so():
    world = worlds(platform("10.77.0.1", "10.77.0.0/30"))
    with pytest.raises(ConflictError, match=r"no address of 10\.77\.0\.0/30 is free for another node"):
        asyncio.run(FreeAddresses(Wire("10.77.0.2").ask).choose(world))
