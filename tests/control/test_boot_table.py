"""What the boot services may hand out in each phase of a server's life."""

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec
import pytest

from panloom.control.boot_table import boot_table
from panloom.control.world import World
from panloom.decide.records import NodeRecord, Phase
from panloom.model.resources import Relay
from panloom.values import MacAddress
from support.dict_store import DictStore
from support.world import DOCUMENTS, LAN, MAC, PLATFORM, UP, WEB1, put, world_of

PREFIXES = tuple(IPv6Network(f"2001:db8:{number}::/64") for number in range(3))


def table_of(record=UP, documents=DOCUMENTS):
    return boot_table(asyncio.run(world_of(DictStore(), record, documents)))


def replaced(old, **changes):
    """Return the documents with one of them changed."""
    return tuple(old.model_copy(update=changes) if document is old else document for document in DOCUMENTS)


def test_before_a_platform_is_declared_there_is_nothing_to_hand_out():
    assert boot_table(asyncio.run(World.read(DictStore()))) is None


def test_a_server_that_is_up_is_handed_to_its_node_alone():
    table = table_of()
    first, second = table.nodes
    assert (first.name, str(first.address), second.server) == ("n1", "10.77.0.11", None)
    assert (first.server.name, first.server.epoch, first.server.secret) == ("shop/web1", 3, UP.secret)
    assert first.server.user == "shop.web1.3"
    assert str(first.server.target) == "iqn.2026-11.dev.panloom:shop.web1"
    assert str(first.server.initiator) == "iqn.2026-11.dev.panloom:node.n1"
    assert (table.interface, table.address, table.http_port) == ("br0", IPv4Address("10.77.0.1"), 8080)


@pytest.mark.parametrize("phase", Phase)
def test_a_server_is_handed_out_while_it_boots_or_runs_and_not_during_its_fence(phase):
    table = table_of(msgspec.structs.replace(UP, phase=phase))
    assert (table.nodes[0].server is not None) == (phase in (Phase.BOOTING, Phase.UP))


def test_a_node_is_handed_nothing_when_the_records_disagree():
    async def scenario():
        elsewhere = {"n2": NodeRecord(server="shop/web1"), "n1": NodeRecord(server="shop/web9")}
        return await put(DictStore(), *DOCUMENTS, servers={"shop/web1": UP}, nodes=elsewhere)

    assert [node.server for node in boot_table(asyncio.run(scenario())).nodes] == [None, None]


@pytest.mark.parametrize(
    "documents", [replaced(PLATFORM, auth="none"), replaced(WEB1, auth="none")], ids=["platform", "server"]
)
def test_without_authentication_no_secret_is_handed_out(documents):
    server = table_of(documents=documents).nodes[0].server
    assert (server.user, server.secret) == (None, None)


def test_a_virtual_nic_has_its_lan_s_settings_wherever_its_server_is():
    for record in (UP, msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)):
        (nic,) = table_of(record).nics
        assert (nic.server, nic.mac, nic.address) == ("shop/web1", MacAddress.parse(MAC), IPv4Address("10.1.0.11"))
        assert (nic.subnet, nic.router, nic.dns, nic.domain) == (LAN.subnet, LAN.router, LAN.dns, LAN.domain)
    assert table_of(msgspec.structs.replace(UP, nics=())).nics == ()


def test_prefixes_of_the_storage_network_of_relays_and_of_lans_are_handed_on():
    far = Relay(address=IPv4Address("10.88.0.1"), subnet=IPv4Network("10.88.0.0/24"), prefix=PREFIXES[1])
    storage = PLATFORM.storage.model_copy(update={"prefix": PREFIXES[0], "relays": (far,)})
    lan = LAN.model_copy(update={"prefix": PREFIXES[2]})
    swapped = {id(PLATFORM): PLATFORM.model_copy(update={"storage": storage}), id(LAN): lan}
    table = table_of(documents=tuple(swapped.get(id(document), document) for document in DOCUMENTS))
    assert (table.prefix, table.relays[0].prefix, table.nics[0].prefix) == PREFIXES
    assert table.ipv6_address == IPv6Address("2001:db8::a4d:1")
    assert table_of().ipv6_address is None
