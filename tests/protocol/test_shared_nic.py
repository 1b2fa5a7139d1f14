"""Who gets a frame: no stack ever sees what is not its own, and nothing that is its own is lost."""

import random
from collections import Counter, defaultdict
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.frames import BROADCAST, IPV4, arp, ethernet, tagged, udp
from panloom.protocol.fragments import MOST_DATAGRAMS, PATIENCE_SECONDS
from panloom.protocol.shared_nic import ByMac, ByPort, Dropped, Identity, StoragePorts
from panloom.values import MacAddress
from support import mixed_frames as made
from support.mixed_frames import MAC1, MAC2, OS, OURS, PORT, PORTS, STORAGE, STRANGER, TARGET

STORAGE_MAC, OS_MAC = MacAddress.from_octets(MAC1), MacAddress.from_octets(MAC2)
FRAMES = 100_000
RULE = StoragePorts(
    STORAGE_MAC,
    frozenset({OURS, made.OURS6}),
    frozenset({(TARGET, PORT), (made.TARGET6, PORT)}),
    PORTS,
)


def separate():
    return ByMac([Identity("storage", STORAGE_MAC), Identity("os", OS_MAC)])


def who(nic, frame, now=0.0):
    found = nic.receive(frame, now=now)
    assert all(delivery.frame == frame for delivery in found)
    assert len({delivery.stack for delivery in found}) == len(found)
    return {delivery.stack for delivery in found}


def test_cap_007_each_stack_sees_the_frames_for_its_own_mac_and_others_are_counted():
    nic = separate()
    assert who(nic, made.segment(MAC1)) == STORAGE
    assert who(nic, made.ping(MAC2)) == OS
    assert who(nic, made.ping(STRANGER)) == set()
    assert who(nic, made.ping(MAC1)[:13]) == set()
    assert who(nic, made.to(BROADCAST, IPV4, b"", source=MAC2)) == set()
    assert nic.drops == {Dropped.FOREIGN: 1, Dropped.MALFORMED: 1, Dropped.REFLECTED: 1}


def test_a_stack_sends_under_its_own_mac_only():
    nic = separate()
    frame = ethernet(MAC2, IPV4, b"", destination=STRANGER)
    assert nic.may_send("os", frame)
    assert not nic.may_send("storage", frame)
    assert not nic.may_send("nobody", frame)
    assert nic.drops == {Dropped.NOT_ITS_OWN: 2}


def test_cap_010_of_100_000_mixed_frames_none_is_delivered_wrongly():
    """Separated by MAC; the maker of each frame knows whose it is."""
    chance, nic, drops = random.Random(1), separate(), 0
    delivered = Counter()
    for _ in range(FRAMES):
        frame, right = made.by_mac(chance)
        assert who(nic, frame) == right
        delivered.update(right)
        drops += not right
    assert nic.drops.total() == drops > FRAMES / 10
    assert min(delivered.values()) > FRAMES / 10


def test_cap_010_of_100_000_frames_separated_by_port_none_is_delivered_wrongly():
    """Fragments of many datagrams come among each other, in any order; each frame arrives once."""
    chance, nic = random.Random(2), ByPort(RULE)
    right, got = defaultdict(set), defaultdict(Counter)
    sent = now = 0
    while sent < FRAMES:
        pile = []
        for _ in range(40):  # fewer datagrams than are held at once
            frames, whose = made.by_port(chance)
            pile += [(frame, whose) for frame in (frames if isinstance(frames, list) else [frames])]
        chance.shuffle(pile)
        right.clear()
        got.clear()
        expected = Counter()
        for frame, whose in pile:
            right[frame] = whose
            expected[frame] += 1
            for delivery in nic.receive(frame, now=now):
                got[delivery.frame][delivery.stack] += 1
        for frame, whose in right.items():
            assert dict(got[frame]) == dict.fromkeys(whose, expected[frame]), frame.hex()
        sent += len(pile)
        now += 1
    assert nic.lost_fragments == 0
    assert set(nic.drops) == {Dropped.FOREIGN, Dropped.REFLECTED, Dropped.TCP_TO_GROUP}


def test_cap_010_broadcasts_go_to_each_stack_and_tcp_to_a_group_to_none():
    nic = separate()
    assert who(nic, arp(made.PEER, made.PEER, TARGET, OURS)) == STORAGE | OS
    assert who(nic, udp(made.PEER, TARGET, OURS, 67, 68)) == STORAGE | OS
    assert who(nic, made.segment(BROADCAST)) == set()
    assert who(nic, made.segment(made.GROUP)) == set()
    assert nic.drops == {Dropped.TCP_TO_GROUP: 2}


def test_cap_009_the_ports_of_the_targets_that_are_listed_are_the_disks():
    nic = ByPort(RULE)
    assert who(nic, made.segment(ours=PORTS[0])) == STORAGE
    assert who(nic, made.segment(ours=PORTS[-1])) == STORAGE
    assert who(nic, made.segment(ours=PORTS[-1] + 1)) == OS
    assert who(nic, made.segment(ours=PORTS[0], source=made.NO_TARGET)) == OS  # a target that is not listed
    assert who(nic, made.segment(ours=PORTS[0], theirs=22)) == OS
    assert who(nic, made.ping(MAC1)) == OS


def test_cap_009_a_fragmented_packet_of_the_disks_reaches_its_stack_in_any_order():
    nic = ByPort(RULE)
    first, *later = made.fragments(7, b"y" * 100)
    assert len(later) == 4
    assert [who(nic, frame) for frame in later] == [set()] * 4
    found = nic.receive(first, now=0.0)
    assert [(delivery.stack, delivery.frame) for delivery in found] == [("storage", one) for one in (first, *later)]
    assert who(nic, later[0]) == STORAGE  # again, after the first
    assert [who(nic, frame) for frame in made.fragments(8, b"y" * 100, ours=22)] == [OS] * 5


def test_fragments_whose_first_never_comes_are_given_up():
    nic = ByPort(RULE)
    assert nic.deadline is None
    for number in range(MOST_DATAGRAMS + 3):
        assert who(nic, made.fragments(number, b"y" * 50)[1]) == set()
    assert nic.lost_fragments == 3
    assert nic.deadline == PATIENCE_SECONDS
    nic.handle_timer(now=PATIENCE_SECONDS)
    assert nic.lost_fragments == MOST_DATAGRAMS + 3
    assert nic.deadline is None


def test_a_first_fragment_without_ports_is_nobodys():
    nic = ByPort(RULE)
    packet = made.ipv4(TARGET, OURS, 6, b"\0", datagram=1, more=True)
    assert who(nic, made.to(MAC1, IPV4, packet)[: 14 + 21]) == set()
    assert nic.drops == {Dropped.MALFORMED: 1}


def test_cap_009_each_stack_sends_from_its_own_ports_only():
    def leaving(ours, theirs=PORT, target=TARGET):
        return made.to(made.PEER, IPV4, made.ipv4(OURS, target, 6, made.tcp(ours, theirs)), source=MAC1)

    nic = ByPort(RULE)
    assert nic.may_send("storage", leaving(PORTS[0]))
    assert nic.may_send("os", leaving(40000))
    assert nic.may_send("os", leaving(PORTS[0], target=made.NO_TARGET))
    assert nic.may_send("storage", arp(MAC1, MAC1, OURS, TARGET))
    refused = [
        ("os", leaving(PORTS[0])),
        ("storage", leaving(40000)),
        ("storage", udp(MAC1, OURS, TARGET, PORTS[0], PORT)),
        ("storage", made.segment(made.PEER)),
        ("os", leaving(22)[:30]),
    ]
    assert [stack for stack, frame in refused if nic.may_send(stack, frame)] == []
    assert nic.drops[Dropped.NOT_ITS_OWN] == len(refused)


def test_cap_020_stacks_that_share_a_mac_are_told_apart_by_their_addresses():
    """A platform's card has one address for its drives and one for the network of all its elements."""
    addresses = {f"n{number}": IPv4Address(f"10.1.0.{number}") for number in (1, 2, 3)}
    elements = [Identity(name, OS_MAC, frozenset({address})) for name, address in addresses.items()]
    nic = ByMac([Identity("storage", STORAGE_MAC), *elements])
    for name, address in addresses.items():
        frame = udp(made.PEER, TARGET, address, 1000, 2000, b"hello", destination=MAC2)
        assert who(nic, frame) == {name}
        assert who(nic, tagged(frame)) == set()
    assert who(nic, made.segment(MAC1)) == STORAGE
    nic.replace([Identity("storage", STORAGE_MAC), *elements[:1]])
    assert who(nic, udp(made.PEER, TARGET, addresses["n2"], 1000, 2000, destination=MAC2)) == set()
    assert nic.drops == {Dropped.NO_ADDRESS: 4}


@pytest.mark.parametrize(
    ("identities", "why"),
    [
        ([Identity("a", OS_MAC), Identity("b", OS_MAC)], "shares"),
        ([Identity("a", OS_MAC, frozenset({OURS})), Identity("b", OS_MAC)], "b shares"),
        ([Identity("a", OS_MAC, frozenset({OURS})), Identity("b", OS_MAC, frozenset({OURS}))], "both have"),
        ([Identity("a", OS_MAC), Identity("a", STORAGE_MAC)], "one MAC"),
        ([Identity("a", MacAddress.from_octets(BROADCAST))], "group's"),
    ],
)
def test_stacks_that_could_not_be_told_apart_are_refused_and_change_nothing(identities, why):
    nic = separate()
    with pytest.raises(ValueError, match=why):
        nic.replace(identities)
    assert who(nic, made.ping(MAC2)) == OS


@pytest.mark.parametrize("ports", [range(0), range(5), range(65530, 65540), range(10, 20, 2)])
def test_storage_ports_are_a_range_of_ports(ports):
    with pytest.raises(ValueError, match="storage ports"):
        StoragePorts(STORAGE_MAC, RULE.addresses, RULE.targets, ports)


@given(
    st.binary(max_size=120),
    st.sampled_from([MAC1, MAC2, BROADCAST, made.GROUP, STRANGER, b""]),
    st.sampled_from([b"", b"\x08\x00\x45", b"\x86\xdd\x60", b"\x08\x06\x00\x01\x08\x00\x06\x04"]),
)
def test_any_octets_are_for_those_whose_address_they_bear_or_for_nobody(octets, destination, kind):
    frame = destination + made.PEER + kind + octets if destination else octets
    nic = separate()
    assert who(nic, frame) <= {MAC1: STORAGE, MAC2: OS}.get(
        frame[:6], STORAGE | OS if frame[:1] and frame[0] & 1 else set()
    )
    assert bool(nic.drops) == (not nic.receive(frame, now=0.0))
    ports = ByPort(RULE)
    for delivery in ports.receive(frame, now=0.0):
        assert frame[:6] == MAC1 or frame[0] & 1
        assert delivery.frame == frame
    assert ports.may_send("os", frame) in (True, False)
    assert ports.may_send("storage", frame) in (True, False)
