"""The fence at the ports: open until a fence has drained the writes, closed from then on; in a real kernel too."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import msgspec
import pytest

from panloom.control.ports import Ports, wanted_filter
from panloom.control.world import World
from panloom.decide.cabling import Cabling
from panloom.decide.port_filter import TABLE, PortRule
from panloom.decide.records import STEPS, Fence, Phase, Step, VirtualNic
from panloom.errors import ConflictError
from panloom.fabric.nftables import Nftables
from panloom.model.resources import Node
from panloom.values import MacAddress
from support.dhcp_wire import DhcpWire
from support.dict_store import DictStore
from support.namespaces import LoopInside, machines
from support.world import DOCUMENTS, LAN, MAC, PLATFORM, UP, WEB1, node, put, world_of

VIRTUAL = MacAddress.parse(MAC)
PREFIX = IPv6Network("2001:db8::/64")
ADDRESS = WEB1.nics[0].address


def fenced(done):
    fence = Fence(node="n1", cause="silent", done=done, started_at=0.0)
    return msgspec.structs.replace(UP, phase=Phase.FENCING, fence=fence)


def filter_of(record, documents=DOCUMENTS):
    return wanted_filter(asyncio.run(world_of(DictStore(), record, documents)))


def is_open(record):
    return PortRule("port-n1", VIRTUAL, ADDRESS) in filter_of(record).rules


def test_a_node_s_own_mac_and_address_pass_whatever_it_carries():
    for record in (UP, msgspec.structs.replace(UP, phase=Phase.WAITING, node=None)):
        wanted = filter_of(record)
        assert wanted.ports == ("port-n1", "port-n2")
        own = [rule for rule in wanted.rules if rule.discovers]
        assert own == [PortRule(f"port-n{n}", node(n).mac, node(n).address, discovers=True) for n in (1, 2)]


@pytest.mark.parametrize("name", ["_rack1", "port:1", "port*"])
def test_a_port_that_no_filter_can_name_keeps_no_other_from_being_filtered(name):
    documents = (*DOCUMENTS, node(3).model_copy(update={"port": name}))
    assert filter_of(UP, documents) == filter_of(UP)
    world = asyncio.run(world_of(DictStore(), UP, documents))
    why = Ports().why_not_placed(world.all(Node)["n3"], world)
    assert why == f"no filter can name its port {name}: rename the interface"
    assert "cannot be fenced" in Ports().why_not_fenced("n3", world)


def test_no_server_is_placed_on_a_node_that_shares_its_port():
    ports = Ports()
    ports._cabling = Cabling(frozenset({"port-n1", "port-n2"}), {})
    alone = asyncio.run(world_of(DictStore()))
    assert ports.why_not_placed(node(2), alone) is None
    shared = asyncio.run(world_of(DictStore(), UP, (*DOCUMENTS, node(3).model_copy(update={"port": "port-n2"}))))
    assert "that of n3 too" in ports.why_not_placed(node(2), shared)
    assert ports.why_not_placed(node(1), shared) is None


@pytest.mark.parametrize("step", STEPS)
def test_a_fence_closes_the_port_when_the_writes_are_drained_and_not_before(step):
    assert is_open(fenced(step)) == (step in (Step.EPOCH, Step.REFUSE_LOGINS, Step.DROP_SESSIONS))


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.FENCING])
def test_outside_of_a_fence_it_is_open_while_the_server_boots_or_runs(phase):
    assert is_open(msgspec.structs.replace(UP, phase=phase)) == (phase in (Phase.BOOTING, Phase.UP))


def test_a_server_passes_at_its_own_node_only_and_without_a_document_nowhere():
    elsewhere = msgspec.structs.replace(UP, node="n2")
    assert PortRule("port-n2", VIRTUAL, ADDRESS) in filter_of(elsewhere).rules
    assert not is_open(elsewhere)
    without = tuple(document for document in DOCUMENTS if document is not WEB1)
    assert all(rule.discovers for rule in filter_of(UP, without).rules)


def test_a_nic_without_an_address_of_its_own_has_those_that_were_lent_to_it():
    server = WEB1.model_copy(update={"nics": (WEB1.nics[0].model_copy(update={"address": None}),)})
    world = asyncio.run(
        world_of(DictStore(), UP, tuple(server if document is WEB1 else document for document in DOCUMENTS))
    )
    assert PortRule("port-n1", VIRTUAL, None) in wanted_filter(world).rules
    world.leased[VIRTUAL] = (IPv4Address("10.1.0.98"), IPv4Address("10.1.0.99"))
    lent = {rule.address for rule in wanted_filter(world).rules if rule.mac == VIRTUAL}
    assert lent == {IPv4Address("10.1.0.98"), IPv4Address("10.1.0.99")}


def test_an_address_that_was_lent_and_then_given_to_another_passes_at_one_port_only():
    lender = WEB1.model_copy(update={"nics": (WEB1.nics[0].model_copy(update={"address": None}),)})
    other = WEB1.model_copy(update={"name": "web2"})
    record = msgspec.structs.replace(UP, node="n2", nics=(VirtualNic(lan="front", mac="02:50:4c:00:00:02"),))
    documents = (*(lender if document is WEB1 else document for document in DOCUMENTS), other)
    servers = {"shop/web1": UP, "shop/web2": record}
    world = asyncio.run(put(DictStore(), *documents, servers=servers))
    world.leased[VIRTUAL] = (ADDRESS,)
    assert [rule.port for rule in wanted_filter(world).rules if rule.address == ADDRESS] == ["port-n2"]
    assert PortRule("port-n1", VIRTUAL, None) in wanted_filter(world).rules


PLATFORM6 = PLATFORM.model_copy(update={"storage": PLATFORM.storage.model_copy(update={"prefix": PREFIX})})
LAN6 = LAN.model_copy(update={"prefix": IPv6Network("2001:db8:1::/64")})


def with_prefixes(*replaced):
    """Return the documents with IPv6 beside IPv4 in both networks."""
    swapped = {id(PLATFORM): PLATFORM6, id(LAN): LAN6, **{id(old): new for old, new in replaced}}
    return tuple(swapped.get(id(document), document) for document in DOCUMENTS)


def test_with_prefixes_nodes_and_servers_have_the_addresses_beside_their_own():
    rules = filter_of(UP, with_prefixes()).rules
    assert PortRule("port-n1", node(1).mac, IPv6Address("2001:db8::a4d:b"), discovers=True) in rules
    assert PortRule("port-n1", VIRTUAL, IPv6Address("2001:db8:1::a01:b"), discovers=True) in rules
    closed = filter_of(fenced(Step.DRAIN_WRITES), with_prefixes()).rules
    assert VIRTUAL not in {rule.mac for rule in closed}
    assert not [rule for rule in filter_of(UP).rules if isinstance(rule.address, IPv6Address)]


def test_a_nic_of_a_range_may_ask_by_ipv6_and_then_use_what_it_was_lent():
    nic = WEB1.nics[0].model_copy(update={"address": None})
    documents = with_prefixes((WEB1, WEB1.model_copy(update={"nics": (nic,)})))
    world = asyncio.run(world_of(DictStore(), UP, documents))
    assert PortRule("port-n1", VIRTUAL, None, discovers=True) in wanted_filter(world).rules
    lent, elsewhere = IPv6Address("2001:db8:1::a01:62"), IPv6Address("2001:db8:2::a01:62")
    world.leased[VIRTUAL] = (IPv4Address("10.1.0.98"), lent, elsewhere)
    allowed = {rule.address for rule in wanted_filter(world).rules if rule.mac == VIRTUAL}
    assert allowed == {IPv4Address("10.1.0.98"), lent}


def test_in_a_kernel_what_was_applied_is_there_and_an_older_world_cannot_undo_it():
    async def scenario(meddler):
        store = DictStore()
        before = await world_of(store)
        ports = Ports()
        assert not ports.is_applied(before)
        await ports.apply(before)
        assert ports.is_applied(before)
        assert VIRTUAL in macs_let_in(ports)
        # Looking again whether it is there takes nobody's ground away.
        looking = asyncio.create_task(ports.apply(before))
        while not looking.done():
            assert ports.is_applied(before)
            await asyncio.sleep(0)
        closed = await put(store, servers={"shop/web1": fenced(Step.DRAIN_WRITES)})
        assert not ports.is_applied(closed)
        await ports.apply(closed)
        assert VIRTUAL not in macs_let_in(ports)
        with pytest.raises(ConflictError, match="older"):
            await ports.apply(before)
        assert ports._table.observe() == wanted_filter(closed)
        # Whoever meddles with it is put right by the next pass.
        meddler.run({"nftables": [{"delete": {"table": TABLE}}]})
        await ports.apply(await World.read(store))
        assert ports._table.observe() == wanted_filter(closed)

    def macs_let_in(ports):
        return {rule.mac for rule in ports._table.observe().rules}

    with machines({"n1": str(node(1).mac)}) as chassis, LoopInside(chassis.control) as inside:
        inside.call(scenario(Nftables(Path("/run/netns") / chassis.control.name)))


def test_the_port_of_a_mac_is_where_its_frames_came_in():
    with machines({"n1": str(node(1).mac)}) as chassis, LoopInside(chassis.control) as inside:
        with DhcpWire(chassis["n1"]) as wire:
            wire.send(b"hello", node(1).mac)
        assert inside.call(Ports().port_of(str(node(1).mac))) == "port-n1"
        assert inside.call(Ports().port_of("52:54:00:77:00:99")) is None
