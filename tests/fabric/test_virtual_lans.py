"""Virtual LANs in real kernels: hosts in namespaces, two fabrics between them, and an attacker among them.

Whoever should not hear a frame is asked when what was sent behind it has come, or when it was counted as refused.
"""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from fabric.frames import ARP, arp, udp
from panloom.decide.fabric_plan import VXLAN_PORT, lan_device, member_port, states
from panloom.errors import KernelError
from panloom.fabric.virtual_lans import VirtualLans
from panloom.values import Vni
from support.fabrics import BROADCAST, Fabrics, fabrics, lan, marked, member, nic
from support.waiting import until

RED, BLUE = 1, 2


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fabrics]:
    with fabrics(4) as made:
        yield made


@pytest.fixture
def bench(hosts) -> Fabrics:
    """Two LANs: n1, n2 and n3 in red, n3 and n4 in blue; no NIC has an address."""
    hosts.apply()
    hosts.apply(lan(RED, 1, 2, 3), lan(BLUE, 3, 4))
    return hosts


@pytest.fixture
def ears(bench):
    """Return a function that gives the ear at a host's NIC in a LAN."""
    with ExitStack() as stack:

        def listen(name, number):
            ear = bench[name].ear(nic(number))
            stack.callback(ear.close)
            return ear

        yield listen


def mac(number, node):
    return member(number, node).mac


def give_address(bench, name, number, address):
    bench[name].namespace.ip(f"address add {address} dev {nic(number)}")


def send_vxlan(host, address, vni, frame, *, device=None):
    """Send a frame in VXLAN by an ordinary socket, as whoever is root on a node can."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        if device:
            mouth.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        mouth.sendto(struct.pack("!II", 0x08000000, vni.number << 8) + frame, (str(address), VXLAN_PORT))


def refused(host, address=None):
    """Return how many packets of a source were refused so far, of strangers by default."""
    return host.lans.refused()[address]


def unforwarded(host):
    """Return how many packets to addresses of others a host has dropped."""
    names, values = (
        line.split()[1:]
        for line in host.namespace.run("cat", "/proc/net/snmp").stdout.splitlines()
        if line[:3] == b"Ip:"
    )
    return int(values[names.index(b"InAddrErrors")])


# ── want, have, changes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_process_finds_all_as_the_old_one_left_it(bench):
    wanted = states(bench.fabric(lan(RED, 1, 2, 3), lan(BLUE, 3, 4)))
    for host in bench.hosts.values():
        with VirtualLans(host.file) as anew:
            assert anew.observe() == wanted[host.host.place]
    assert bench.apply(lan(RED, 1, 2, 3), lan(BLUE, 3, 4)) == 0


def test_what_somebody_breaks_by_hand_is_mended(bench):
    control, node = bench["c"].namespace, bench["n1"].namespace
    port, bridge, device = member_port(Vni(RED << 8 | 1)), lan_device(Vni(RED << 8)), nic(RED)
    for spoilt, line in (
        (control, f"link set {port} nomaster"),
        (control, f"link set {port} type bridge_slave learning on"),
        (control, f"link set {bridge} arp on"),
        (control, f"link set {bridge} type bridge mcast_snooping 1"),
        (control, f"link del {bridge}"),
        (control, f"link del {port}"),
        (node, f"link set {device} down"),
        (node, f"link set {device} mtu 1400"),
        (node, f"link del {device}"),
        (node, f"nexthop del id {member(RED, 2).place.rvi}"),
        (node, f"nexthop del id {member(RED, 2).place.leg(1)}"),
    ):
        spoilt.ip(line)
        assert bench.apply(lan(RED, 1, 2, 3), lan(BLUE, 3, 4)) > 0, line


def test_another_device_under_a_name_of_ours_makes_room(bench):
    node, device = bench["n1"].namespace, nic(RED)
    node.ip(f"link del {device}")
    node.ip(f"link add {device} type vxlan id 77 dstport 4790 learning")
    bench.apply(lan(RED, 1, 2, 3), lan(BLUE, 3, 4))
    node.ip(f"link del {device}")
    node.ip(f"link add {device} type veth peer name other")
    bench.apply(lan(RED, 1, 2, 3), lan(BLUE, 3, 4))


def test_an_error_of_the_kernel_names_the_change_and_says_why(bench):
    plan = [change for change in bench.plan("n1", lan(RED, 1, 4)) if "Peer" in repr(change)]
    with pytest.raises(KernelError, match=r"Peer.*No such|Peer.*Nexthop|Peer.*nexthop"):
        bench["n1"].lans.apply(plan)


@given(
    st.lists(
        st.tuples(st.sets(st.integers(1, 4), max_size=3), st.sets(st.integers(1, 4), max_size=3), st.integers(0, 40)),
        min_size=1,
        max_size=4,
    )
)
@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_sequence_of_edits_and_crashes_ends_as_a_fresh_start_does(hosts, edits):
    for red, blue, crash in edits:
        for name, host in hosts.hosts.items():
            host.lans.apply(hosts.plan(name, lan(RED, *red), lan(BLUE, *blue))[:crash])
    red, blue, _ = edits[-1]
    hosts.apply(lan(RED, *red), lan(BLUE, *blue))


# ── who hears what ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_cap_087_a_node_is_in_two_lans_with_a_nic_of_each(bench, ears):
    red, blue = ears("n3", RED), ears("n3", BLUE)
    ears("n1", RED).say(mac(RED, 1), mac(RED, 3), b"by red")
    ears("n4", BLUE).say(mac(BLUE, 4), mac(BLUE, 3), b"by blue")
    assert red.until(b"by red") == [b"by red"]
    assert blue.until(b"by blue") == [b"by blue"]


def test_cap_089_090_members_have_an_rvi_to_each_other_with_a_leg_on_each_fabric(bench):
    for name, others in (("n1", (2, 3)), ("n2", (1, 3)), ("n3", (1, 2, 4)), ("n4", (3,))):
        said = bench[name].namespace.run("ip", "-json", "nexthop", "show").stdout
        known = {entry["id"]: entry for entry in json.loads(said)}
        ways = {
            tuple(known[leg["id"]]["gateway"] for leg in entry["group"]) for entry in known.values() if "group" in entry
        }
        assert ways == {tuple(map(str, bench[f"n{other}"].host.addresses)) for other in others}
    # One flow stays on one leg, and many are on both.
    give_address(bench, "n1", RED, "10.1.0.1/24")
    give_address(bench, "n2", RED, "10.1.0.2/24")
    before = [bench["n1"].count(leg, "tx_bytes") for leg in ("fa", "fb")]
    with bench["n2"].socket(socket.AF_INET, socket.SOCK_DGRAM) as hears:
        hears.bind(("10.1.0.2", 9))
        hears.settimeout(10)
        for _ in range(64):
            with bench["n1"].socket(socket.AF_INET, socket.SOCK_DGRAM) as says:
                says.sendto(bytes(1000), ("10.1.0.2", 9))
            hears.recv(2000)
    gained = [bench["n1"].count(leg, "tx_bytes") - octets for leg, octets in zip(("fa", "fb"), before, strict=True)]
    assert min(gained) > 8000, gained


def test_cap_107_unicast_goes_straight_to_its_receiver_and_broadcast_to_all(bench, ears):
    n1, n2, n3 = (ears(name, RED) for name in ("n1", "n2", "n3"))
    ports = [member_port(Vni(RED << 8 | node)) for node in (1, 2, 3)]

    def passed():
        return [bench["c"].count(port, what) for port in ports for what in ("rx_packets", "tx_packets")]

    before = passed()
    for number in range(20):
        n1.say(mac(RED, 1), mac(RED, 2), b"to n2, %d" % number)
    n2.until(b"to n2, 19")
    assert passed() == before
    n1.say(mac(RED, 1), BROADCAST, b"to all")
    assert n3.until(b"to all") == [b"to all"]
    assert n2.until(b"to all") == [b"to all"]
    assert passed() != before


def test_cap_108_without_a_lan_in_common_there_is_no_path_but_by_a_router(bench, ears):
    n1, n2, n3, n4 = ears("n1", RED), ears("n2", RED), ears("n3", BLUE), ears("n4", BLUE)
    for destination in (mac(BLUE, 4), mac(BLUE, 3), BROADCAST):
        n1.say(mac(RED, 1), destination, b"from red")
    n1.say(mac(RED, 1), BROADCAST, b"done")
    n2.until(b"done")
    n4.say(mac(BLUE, 4), BROADCAST, b"from blue")
    assert n3.until(b"from blue") == [b"from blue"]
    n3.say(mac(BLUE, 3), BROADCAST, b"from blue")
    assert n4.until(b"from blue") == [b"from blue"]

    give_address(bench, "n1", RED, "10.1.0.1/24")
    give_address(bench, "n3", RED, "10.1.0.3/24")
    give_address(bench, "n3", BLUE, "10.2.0.3/24")
    give_address(bench, "n4", BLUE, "10.2.0.4/24")
    bench["n1"].namespace.ip("route add 10.2.0.0/24 via 10.1.0.3")
    with (
        bench["n1"].socket(socket.AF_INET, socket.SOCK_DGRAM) as says,
        bench["n4"].socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
    ):
        hears.bind(("10.2.0.4", 9))
        hears.settimeout(10)
        before = unforwarded(bench["n3"])
        says.sendto(b"nobody forwards", ("10.2.0.4", 9))
        until(lambda: unforwarded(bench["n3"]) > before, "n3 has dropped what it does not forward")
        bench["n3"].namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        try:
            says.sendto(b"n3 forwards", ("10.2.0.4", 9))
            assert hears.recv(100) == b"n3 forwards"
        finally:
            bench["n3"].namespace.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")


def test_cap_109_a_broadcast_is_sent_once_and_cloned_to_all_but_its_sender(bench, ears):
    n1, n2, n3 = (ears(name, RED) for name in ("n1", "n2", "n3"))
    ports = [member_port(Vni(RED << 8 | node)) for node in (1, 2, 3)]

    def passed(what):
        return [bench["c"].count(port, what) for port in ports]

    came_in, went_out = passed("rx_packets"), passed("tx_packets")
    n1.say(mac(RED, 1), BROADCAST, b"to all")
    assert n2.until(b"to all") == n3.until(b"to all") == [b"to all"]
    assert [now - then for now, then in zip(passed("rx_packets"), came_in, strict=True)] == [1, 0, 0]
    assert [now - then for now, then in zip(passed("tx_packets"), went_out, strict=True)] == [0, 1, 1]
    n2.say(mac(RED, 2), BROADCAST, b"last")
    assert n1.until(b"last") == [b"last"]


def test_what_is_no_vxlan_passes_the_filter_untouched(bench):
    for name, address in (("n1", "10.1.0.1/24"), ("n2", "10.1.0.2/24")):
        give_address(bench, name, RED, address)
    for host, address in (("n2", "10.1.0.2"), ("c", bench["c"].host.addresses[0])):
        with (
            bench[host].socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
            bench["n1"].socket(socket.AF_INET, socket.SOCK_STREAM) as caller,
        ):
            listener.bind((str(address), 80))
            listener.listen()
            caller.settimeout(10)
            caller.connect((str(address), 80))


def test_a_frame_whose_way_a_node_has_lost_goes_by_the_control_node_to_its_receiver_alone(bench, ears):
    n1, n2, n3 = (ears(name, RED) for name in ("n1", "n2", "n3"))
    bench["n1"].namespace.run("bridge", "fdb", "del", str(mac(RED, 2)), "dev", nic(RED))
    n1.say(mac(RED, 1), mac(RED, 2), b"to n2")
    assert n2.until(b"to n2") == [b"to n2"]
    n1.say(mac(RED, 1), BROADCAST, b"last")
    assert n3.until(b"last") == [b"last"]


def test_cap_117_a_packet_of_16896_octets_passes_whole_and_no_larger_one(bench):
    give_address(bench, "n1", RED, "10.1.0.1/24")
    give_address(bench, "n2", RED, "10.1.0.2/24")
    with (
        bench["n1"].socket(socket.AF_INET, socket.SOCK_DGRAM) as says,
        bench["n2"].socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
    ):
        says.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: no fragments
        hears.bind(("10.1.0.2", 9))
        hears.settimeout(10)
        says.sendto(bytes(16868), ("10.1.0.2", 9))
        assert len(hears.recv(20000)) == 16868
        with pytest.raises(OSError, match="Message too long"):
            says.sendto(bytes(16869), ("10.1.0.2", 9))


# ── who must not be heard ────────────────────────────────────────────────────────────────────────────────────────────


def test_cap_084_a_node_that_makes_vxlan_itself_reaches_no_lan_but_its_own_and_is_counted(bench, ears):
    control, attacker, heard = bench["c"], bench["n4"], [ears(name, RED) for name in ("n1", "n2")]
    red, address = Vni(RED << 8), attacker.host.addresses[0]
    at_control, at_node = refused(control, address), refused(bench["n1"])
    for source in (mac(RED, 2), mac(BLUE, 4)):
        forged = marked(source, BROADCAST, b"forged")
        send_vxlan(attacker, bench["n1"].host.addresses[0], red, forged)  # straight to a member of another LAN
        for vni in (Vni(RED << 8 | 2), red, Vni(999)):
            send_vxlan(attacker, control.host.addresses[0], vni, forged)  # as a member of another LAN, as a relay
    own = Vni(BLUE << 8 | 4)
    send_vxlan(attacker, control.host.addresses[0], own, marked(mac(RED, 2), BROADCAST, b"forged"))
    until(lambda: refused(control, address) == at_control + 7, "the control node has counted seven")
    until(lambda: refused(bench["n1"]) == at_node + 2, "n1 has counted two")
    ears("n3", RED).say(mac(RED, 3), BROADCAST, b"last")
    assert [ear.until(b"last") for ear in heard] == [[b"last"]] * 2


def test_cap_084_a_member_cannot_speak_with_the_mac_of_another(bench, ears):
    n1, n2, control = ears("n1", RED), ears("n2", RED), bench["c"]
    addresses = bench["n1"].host.addresses
    at_control, at_node = sum(refused(control, address) for address in addresses), refused(bench["n2"])
    n1.say(mac(RED, 3), mac(RED, 2), b"forged")
    n1.say(mac(RED, 3), BROADCAST, b"forged")
    until(lambda: sum(refused(control, address) for address in addresses) == at_control + 1, "one by the control node")
    until(lambda: refused(bench["n2"]) == at_node + 1, "and one straight to n2")
    n1.say(mac(RED, 1), mac(RED, 2), b"true")
    assert n2.until(b"true") == [b"true"]


def test_cap_084_vxlan_that_comes_in_through_a_lan_is_heard_by_nobody(bench, ears):
    """n1 shares red with n3 and would get into blue, in the name of n4's own address."""
    n3, address = ears("n3", BLUE), bench["n4"].host.addresses[0]
    give_address(bench, "n3", RED, "10.1.0.3/24")
    bench["n1"].namespace.ip(f"address add {address}/32 dev lo")
    bench["n1"].namespace.ip(f"route add 10.1.0.3/32 dev {nic(RED)} src {address}")
    bench["n1"].namespace.ip(f"neighbour add 10.1.0.3 lladdr {mac(RED, 3)} dev {nic(RED)}")
    before = refused(bench["n3"])
    try:
        send_vxlan(bench["n1"], "10.1.0.3", Vni(BLUE << 8), marked(mac(BLUE, 4), mac(BLUE, 3), b"forged"))
        until(lambda: refused(bench["n3"]) == before + 1, "n3 has counted it")
    finally:
        bench["n1"].namespace.ip(f"address del {address}/32 dev lo")
    ears("n4", BLUE).say(mac(BLUE, 4), BROADCAST, b"last")
    assert n3.until(b"last") == [b"last"]


def test_the_control_node_has_no_part_in_a_lan(bench, ears):
    """Linux would answer ARP for any address of the host's, at any of its interfaces, and take packets to them."""
    n1, n2, address = ears("n1", RED), ears("n2", RED), bench["c"].host.addresses[1]
    sender, source = IPv4Address("10.79.0.77"), mac(RED, 1).to_octets()
    with bench["c"].socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("0.0.0.0", 9))
        service.setblocking(False)
        n1.send(arp(source, source, sender, address))
        n1.send(udp(source, sender, address, 9, 9, b"to the control node"))
        n1.say(mac(RED, 1), BROADCAST, b"done")
        n2.until(b"done")
        with pytest.raises(BlockingIOError):
            service.recv(100)
    n2.say(mac(RED, 2), BROADCAST, b"last")
    assert n1.until(b"last", also=[ARP]) == [b"last"]
