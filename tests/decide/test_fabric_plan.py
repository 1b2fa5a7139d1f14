"""The plan of the virtual LANs against model kernels: it ends as a fresh start does, and who shares no LAN is apart."""

from ipaddress import IPv4Address

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from panloom.decide.fabric_plan import (
    LARGEST_MTU,
    Admission,
    Bridge,
    Default,
    Fabric,
    FabricPort,
    Guard,
    Host,
    Lan,
    Leg,
    Make,
    Member,
    Peer,
    Remove,
    Rvi,
    Source,
    Station,
    Vxlan,
    changes,
    lan_device,
    states,
)
from panloom.decide.rvi import Place
from panloom.values import MacAddress, Vni
from support.fabric_model import BROADCAST, ModelFabric, ModelKernel

CONTROL = Place.at(0, 0)
NODES = tuple(Place.at(0, number) for number in range(1, 6))


def host(place, *, subnet=78):
    addresses = (IPv4Address(f"10.{subnet}.0.{place.node + 1}"), IPv4Address(f"10.{subnet + 1}.0.{place.node + 1}"))
    return Host(place, ("fa", "fb"), addresses)


def member(lan, node, place):
    """Return the member that is called ``node`` of LAN number ``lan``, wherever it is."""
    return Member(MacAddress(0x02_50_4C_00_00_00 | lan << 8 | node), Vni(lan << 8 | node), place)


@st.composite
def lans(draw):
    found = []
    for number in draw(st.sets(st.integers(1, 3))):
        places = draw(st.permutations([*NODES, None, None]))
        names = draw(st.sets(st.integers(1, 4)))
        members = tuple(member(number, name, places[name]) for name in sorted(names))
        found.append(Lan(Vni(number << 8), members))
    return tuple(found)


fabrics = st.builds(
    lambda lans, subnet, mtu: Fabric(
        host(CONTROL, subnet=subnet), tuple(host(node, subnet=subnet) for node in NODES), lans, mtu
    ),
    lans(),
    st.sampled_from([78, 90]),
    st.sampled_from([1500, 17000]),
)


@st.composite
def damage(draw, items):
    """Return the items as somebody may have left them who is not Panloom: some are missing, some half made."""
    kept = draw(st.sets(st.sampled_from(sorted(items, key=str))))
    devices = {item.name for item in kept if isinstance(item, Vxlan | Bridge)}
    bridges = {item.name for item in kept if isinstance(item, Bridge)}
    groups = {item.number for item in kept if isinstance(item, Rvi)}
    legs = {item.number for item in kept if isinstance(item, Leg)}
    result = set()
    for item in kept:
        match item:
            case Vxlan(bridge=str(bridge)) if bridge not in bridges:
                item = msgspec.structs.replace(item, bridge=None)
            case Rvi(legs=members) if not set(members) <= legs:
                groups.discard(item.number)
                continue
        if Guard() not in kept and isinstance(item, FabricPort | Source | Admission):
            continue  # without the tables there are no elements
        if isinstance(item, Vxlan | Bridge):
            item = msgspec.structs.replace(item, whole=draw(st.booleans()))
        result.add(item)
    masters = {item.name: item.bridge for item in result if isinstance(item, Vxlan)}
    return {
        item
        for item in result
        if not (isinstance(item, Station) and not masters.get(item.port))
        and not (isinstance(item, Default) and item.device not in devices)
        and not (isinstance(item, Peer) and (item.device not in devices or item.rvi not in groups))
    }


@given(st.lists(fabrics, min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=40)
def test_any_sequence_of_edits_and_crashes_ends_as_a_fresh_start_does(wanted, data):
    kernels = {place: ModelKernel() for place in (CONTROL, *NODES)}
    for fabric in wanted:
        for place, items in states(fabric).items():
            plan = changes(kernels[place].items, items)
            kernels[place].apply(plan[: data.draw(st.integers(0, len(plan)))])
    for place, items in states(wanted[-1]).items():
        kernels[place].apply(changes(kernels[place].items, items))
        assert kernels[place].items == items
        assert changes(kernels[place].items, items) == ()


@given(fabrics, st.data())
@settings(deadline=None, max_examples=40)
def test_what_somebody_else_has_spoilt_is_mended(fabric, data):
    for items in states(fabric).values():
        kernel = ModelKernel()
        kernel.items = data.draw(damage(items))
        kernel.apply(changes(kernel.items, items))
        assert kernel.items == items


@given(fabrics)
@settings(deadline=None, max_examples=40)
def test_each_member_is_heard_by_its_lan_and_by_nobody_else(fabric):
    wanted = states(fabric)
    kernels = {place: ModelKernel() for place in wanted}
    for place, items in wanted.items():
        kernels[place].apply(changes((), items))
    model = ModelFabric((fabric.control, *fabric.nodes), kernels)
    for lan in fabric.lans:
        placed = [one for one in lan.members if one.place is not None]
        for sender in placed:
            others = sorted(one.place for one in placed if one is not sender)
            device = lan_device(lan.vni)
            assert sorted(model.heard(sender.place, device, sender.mac, BROADCAST)) == others
            for receiver in placed:
                heard = model.heard(sender.place, device, sender.mac, receiver.mac)
                assert heard == ([receiver.place] if receiver is not sender else [])
            # A MAC that is another's passes neither the control node nor a peer.
            for other in (one for one in placed if one is not sender):
                assert model.heard(sender.place, device, other.mac, BROADCAST) == []


@given(fabrics, st.data())
@settings(deadline=None, max_examples=40)
def test_a_node_with_raw_sockets_reaches_only_lans_of_its_own(fabric, data):
    wanted = states(fabric)
    kernels = {place: ModelKernel() for place in wanted}
    for place, items in wanted.items():
        kernels[place].apply(changes((), items))
    hosts = (fabric.control, *fabric.nodes)
    model = ModelFabric(hosts, kernels)
    vnis = {vni for lan in fabric.lans for vni in (lan.vni, *(one.vni for one in lan.members))}
    macs = [one.mac for lan in fabric.lans for one in lan.members]
    if not macs:
        return
    attacker, leg = data.draw(st.sampled_from(NODES)), data.draw(st.integers(0, 1))
    address = data.draw(st.sampled_from([host.addresses[leg] for host in hosts]))
    vni, source = data.draw(st.sampled_from(sorted(vnis, key=str))), data.draw(st.sampled_from(macs))
    destination = data.draw(st.sampled_from([*macs, BROADCAST]))
    heard = model.injected(attacker, address, vni, source, destination, fabric=leg)
    own = {one.place for lan in fabric.lans if any(one.place == attacker for one in lan.members) for one in lan.members}
    assert set(heard) <= own
    if heard:
        assert any(one.mac == source and one.place == attacker for lan in fabric.lans for one in lan.members)


def test_a_member_that_moves_changes_one_entry_of_its_peer_and_no_device():
    before = Fabric(
        host(CONTROL), tuple(map(host, NODES)), (Lan(Vni(256), (member(1, 1, NODES[0]), member(1, 2, NODES[1]))),)
    )
    after = msgspec.structs.replace(before, lans=(Lan(Vni(256), (member(1, 1, NODES[0]), member(1, 2, NODES[2]))),))
    plan = changes(states(before)[NODES[0]], states(after)[NODES[0]])
    mac = member(1, 2, None).mac
    assert [change for change in plan if isinstance(change.item, Peer | Vxlan | Default)] == [
        Make(Peer("lan-000100", mac, NODES[2].rvi))
    ]
    # The node that it left is shut out before anything else happens.
    left = host(NODES[1]).addresses
    assert plan[:2] == tuple(Remove(Admission(address, Vni(256), mac)) for address in reversed(left))
    assert not any(
        isinstance(change.item, Vxlan | Bridge) for change in changes(states(before)[CONTROL], states(after)[CONTROL])
    )


def test_a_frame_inside_is_as_large_as_both_fabrics_carry_and_a_lan_allows():
    def mtu(carried):
        lans = (Lan(Vni(256), (member(1, 1, NODES[0]),)),)
        items = states(Fabric(host(CONTROL), tuple(map(host, NODES)), lans, carried))[NODES[0]]
        return next(item.mtu for item in items if isinstance(item, Vxlan))

    assert [mtu(carried) for carried in (1500, 9000, 16946, 65535)] == [1450, 8950, LARGEST_MTU, LARGEST_MTU]


@pytest.mark.parametrize(
    ("lans", "why"),
    [
        ((Lan(Vni(1), (member(1, 1, NODES[0]), member(1, 2, NODES[0]))),), "2 members of LAN 1 are on one node"),
        ((Lan(Vni(1), (member(1, 1, Place.at(0, 99)),)),), "where no node is"),
        ((Lan(Vni(1), (member(1, 1, CONTROL),)),), "where no node is"),
        ((Lan(Vni(257), (member(1, 1, NODES[0]),)),), "VNI 257 is given to 2"),
    ],
)
def test_what_no_kernel_could_hold_is_refused(lans, why):
    with pytest.raises(ValueError, match=why):
        states(Fabric(host(CONTROL), tuple(map(host, NODES)), lans))
