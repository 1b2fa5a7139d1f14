"""From documents and records to hosts, LANs and members; and what is told to whom."""

import asyncio
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec
import pytest

from panloom.control.boot_table import boot_table
from panloom.control.lans import Lans, fabric_of
from panloom.control.personalities import personality_of
from panloom.control.ports import wanted_filter
from panloom.control.world import LANS
from panloom.decide.fabric_plan import Host, Lan, Member, Vxlan
from panloom.decide.lan_news import LanNews, LanNic
from panloom.decide.records import Fence, LanRecord, Phase, Step, VirtualNic
from panloom.decide.rvi import Place
from panloom.errors import UnavailableError
from panloom.model.resources import FabricNetwork, Fabrics, Nic
from panloom.values import MacAddress, Vni
from support.dict_store import DictStore
from support.world import DOCUMENTS, LAN, PLATFORM, UP, WEB1, world_of

RED_MAC = "02:50:4c:00:00:02"
FABRICS = Fabrics(
    a=FabricNetwork(interface="laba", subnet=IPv4Network("10.78.0.0/24")),
    b=FabricNetwork(interface="labb", subnet=IPv4Network("10.79.0.0/24")),
    mtu=9000,
)
RED = LAN.model_copy(update={"name": "red", "subnet": IPv4Network("10.5.0.0/24"), "network": "fabrics", "router": None})
SERVER = WEB1.model_copy(update={"nics": (*WEB1.nics, Nic(lan="red", address=IPv4Address("10.5.0.11")))})
CHANGED = {"platform": PLATFORM.model_copy(update={"fabrics": FABRICS}), "server": SERVER}
RECORD = msgspec.structs.replace(UP, nics=(*UP.nics, VirtualNic(lan="red", mac=RED_MAC, vni=22)))
FENCED = msgspec.structs.replace(RECORD, phase=Phase.FENCING, fence=Fence("n1", "silent", Step.FILTER_PORT, 0.0))


def world(record=RECORD, *, vni=True):
    async def make():
        store = DictStore()
        if vni:
            await store.commit(put={f"{LANS}shop/red": msgspec.json.encode(LanRecord(21))})
        documents = [CHANGED.get(document.kind, document) for document in DOCUMENTS]
        return await world_of(store, record, (*documents, RED))

    return asyncio.run(make())


def test_hosts_have_addresses_that_end_as_their_storage_addresses_do():
    fabric = fabric_of(world())
    a, b = IPv4Address("10.78.0.0"), IPv4Address("10.79.0.0")
    assert fabric.control == Host(Place.at(0, 0), ("laba", "labb"), (a + 1, b + 1))
    assert fabric.nodes == tuple(Host(Place.at(0, own), ("fa", "fb"), (a + own, b + own)) for own in (11, 12))
    assert fabric.mtu == 9000
    assert fabric.lans == (Lan(Vni(21), (Member(MacAddress.parse(RED_MAC), Vni(22), Place.at(0, 11)),)),)


def test_a_server_that_is_shut_out_has_no_place_in_its_lans():
    (lan,) = fabric_of(world(FENCED)).lans
    assert [member.place for member in lan.members] == [None]


def test_without_fabrics_there_is_nothing_and_without_a_vni_nothing_yet():
    async def flat():
        return await world_of(DictStore())

    assert fabric_of(asyncio.run(flat())) is None
    with pytest.raises(UnavailableError, match="LAN shop/red has no VNI yet"):
        fabric_of(world(vni=False))


def test_what_goes_over_the_fabrics_is_nothing_to_the_storage_network():
    here = world()
    assert RED_MAC not in {str(rule.mac) for rule in wanted_filter(here).rules}
    assert [nic.lan for nic in boot_table(here).nics] == ["front"]
    assert [nic.lan for nic in personality_of("shop/web1", RECORD, here).nics] == ["front"]


def test_a_node_is_told_of_its_own_lans_under_the_key_of_its_epoch_until_it_is_shut_out():
    class Told(Lans):
        """Without a kernel."""

        def _keep(self, wanted):
            self.wanted = wanted

    admitted, shut_out = world(), world(FENCED)

    async def scenario():
        lans = Told()
        assert lans.news("shop/web1") is None
        await lans.apply(admitted)
        first, second = (LanNews.decode(lans.news("shop/web1"), UP.beacon_key) for _ in range(2))
        assert (first.server, first.epoch) == ("shop/web1", UP.epoch)
        assert first.fabrics == (("fa", IPv4Interface("10.78.0.11/24")), ("fb", IPv4Interface("10.79.0.11/24")))
        assert first.nics == (LanNic("lan-000015", IPv4Interface("10.5.0.11/24")),)
        assert Vxlan("lan-000015", Vni(21), 8950, mac=MacAddress.parse(RED_MAC)) in first.items
        assert second == msgspec.structs.replace(first, counter=second.counter)
        assert second.counter > first.counter
        assert lans.news("shop/nobody") is None
        await lans.apply(shut_out)
        assert lans.news("shop/web1") is None
        assert not any(isinstance(item, Vxlan) for item in lans.wanted)

    asyncio.run(scenario())
