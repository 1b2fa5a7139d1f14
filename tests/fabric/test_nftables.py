"""The port filter in a real kernel: frames sent by machines that lie, and the difference that is empty after apply."""

import itertools
import os
import socket
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from fabric.frames import IPV4, NO_ADDRESS, arp, ethernet, icmpv6, ipv6_udp, may_enter, tagged, udp
from panloom.decide.port_filter import PortFilter, PortRule, changes
from panloom.errors import KernelError, UnavailableError
from panloom.fabric.namespaces import within
from panloom.fabric.nftables import Nftables, PortFilterTable
from panloom.values import MacAddress
from support.namespaces import machines, namespace
from support.waiting import until

MACS = {"n1": "52:54:00:00:00:01", "n2": "52:54:00:00:00:02", "free": "52:54:00:00:00:03"}
HARDWARE = {name: MacAddress.parse(mac) for name, mac in MACS.items()}
VIRTUAL = MacAddress.parse("02:50:4c:00:00:01")
ADDRESS = {"n1": IPv4Address("10.77.0.51"), "n2": IPv4Address("10.77.0.52")}
VIRTUAL_ADDRESS = IPv4Address("10.99.0.10")
CONTROL = IPv4Address("10.77.0.1")
EVERYBODY = IPv4Address("255.255.255.255")
LINK_LOCAL = IPv6Address("fe80::1")
BESIDE = {"n1": IPv6Address("2001:db8::51"), "n2": IPv6Address("2001:db8::52")}
IPV6_CONTROL, ALL_AGENTS = IPv6Address("2001:db8::1"), IPv6Address("ff02::1:2")


def fence(virtual_at="n1", *, address=VIRTUAL_ADDRESS):
    """Return the filter with both nodes' own MACs, and the server's MAC at one of them."""
    rules = [PortRule(f"port-{name}", HARDWARE[name], ADDRESS[name], discovers=True) for name in ADDRESS]
    rules += (PortRule(f"port-{name}", HARDWARE[name], BESIDE[name]) for name in BESIDE)
    if virtual_at:
        rules.append(PortRule(f"port-{virtual_at}", VIRTUAL, address))
    return PortFilter.of(["port-n1", "port-n2"], rules)


def file_of(inside):
    return Path("/run/netns") / inside.name


class Bench:
    """A chassis with an end of each cable in hand: ``n1`` and ``n2`` at managed ports, ``free`` at one that is not."""

    def __init__(self, chassis):
        self.nftables = Nftables(file_of(chassis.control))
        self.table = PortFilterTable(self.nftables)
        self.chassis = chassis
        self.cables = {}
        self.numbers = itertools.count(1)
        for name, node in chassis.nodes.items():
            with within(file_of(node)):
                cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            cable.bind(("eth0", 0))
            cable.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
            cable.settimeout(10)
            self.cables[name] = cable

    def close(self):
        for cable in self.cables.values():
            cable.close()
        self.nftables.close()

    def apply(self, wanted):
        self.table.apply(changes(self.table.observe(), wanted))
        assert changes(self.table.observe(), wanted) == ()

    def arrives(self, sender, frame, *, at=None):
        """Return whether what a machine sends comes out at another, before an honest frame sent right behind it."""
        at = at or ("n2" if sender == "free" else "free")
        behind = self.honest(sender)
        self.cables[sender].send(frame)
        self.cables[sender].send(behind)
        return bare(frame) in self.until(behind, at)

    def honest(self, sender):
        """Return a frame that passes whenever the sender's own MAC is at its port, unlike any before."""
        own = HARDWARE[sender].to_octets()
        return arp(own, own, NO_ADDRESS, IPv4Address("10.250.0.0") + next(self.numbers))

    def until(self, last, at):
        """Return what arrives at a machine up to the frame ``last``, all bare."""
        frames = []
        while not frames or frames[-1] != bare(last):
            frames.append(bare(self.cables[at].recv(2000)))
        return frames


def bare(frame):
    """Return the frame without its tag, which packet sockets take off, and its padding, which bridges may."""
    return (frame[:12] + frame[16:] if frame[12:14] == b"\x81\0" else frame).rstrip(b"\0")


@pytest.fixture(scope="module")
def bench():
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})  # frames sent on one processor stay in order
    with machines(MACS) as chassis:
        made = Bench(chassis)
        yield made
        made.close()
    os.sched_setaffinity(0, processors)


MINE, HIS = HARDWARE["n1"].to_octets(), HARDWARE["n2"].to_octets()
SERVER = VIRTUAL.to_octets()
FOREIGN = bytes.fromhex("525400009999")
OTHER = IPv4Address("10.77.0.99")

PASS = {
    "own MAC, own address": udp(MINE, ADDRESS["n1"], CONTROL, 5000, 3260),
    "virtual MAC, its address": udp(SERVER, VIRTUAL_ADDRESS, CONTROL, 80, 5000),
    "DHCP request": udp(MINE, NO_ADDRESS, EVERYBODY, 68, 67),
    "DHCP request from the virtual MAC": udp(SERVER, NO_ADDRESS, EVERYBODY, 68, 67),
    "ARP request": arp(MINE, MINE, ADDRESS["n1"], CONTROL),
    "ARP probe": arp(MINE, MINE, NO_ADDRESS, ADDRESS["n1"]),
    "ARP announcement of the virtual MAC": arp(SERVER, SERVER, VIRTUAL_ADDRESS, VIRTUAL_ADDRESS, operation=2),
    "router solicitation": icmpv6(MINE, LINK_LOCAL, 133),
    "duplicate address detection": icmpv6(MINE, IPv6Address("::"), 135),
    "neighbour advertisement": icmpv6(MINE, LINK_LOCAL, 136, target=LINK_LOCAL),
    "own MAC, own IPv6 address": ipv6_udp(MINE, BESIDE["n1"], IPV6_CONTROL, 5000, 3260),
    "neighbour solicitation from its own address": icmpv6(MINE, BESIDE["n1"], 135, target=IPV6_CONTROL),
    "neighbour advertisement of its own address": icmpv6(MINE, BESIDE["n1"], 136, target=BESIDE["n1"]),
    "the same from its link-local address": icmpv6(MINE, LINK_LOCAL, 136, target=BESIDE["n1"]),
    "echo request": icmpv6(MINE, BESIDE["n1"], 128, hop_limit=64),
    "DHCPv6 request": ipv6_udp(MINE, LINK_LOCAL, ALL_AGENTS, 546, 547),
}
DROP = {
    "foreign MAC": udp(FOREIGN, ADDRESS["n1"], CONTROL, 5000, 3260),
    "another node's MAC and address": udp(HIS, ADDRESS["n2"], CONTROL, 5000, 3260),
    "foreign address": udp(MINE, OTHER, CONTROL, 5000, 3260),
    "another node's address": udp(MINE, ADDRESS["n2"], CONTROL, 5000, 3260),
    "the control node's address": udp(MINE, CONTROL, ADDRESS["n2"], 3260, 5000),
    "own MAC with the virtual address": udp(MINE, VIRTUAL_ADDRESS, CONTROL, 5000, 80),
    "virtual MAC with the node's address": udp(SERVER, ADDRESS["n1"], CONTROL, 5000, 80),
    "no address, but not DHCP": udp(MINE, NO_ADDRESS, EVERYBODY, 68, 69),
    "rogue DHCP offer": udp(MINE, ADDRESS["n1"], EVERYBODY, 67, 68),
    "rogue DHCP offer without address": udp(MINE, NO_ADDRESS, EVERYBODY, 67, 68),
    "rogue DHCP offer to a relay": udp(MINE, ADDRESS["n1"], CONTROL, 67, 67),
    "foreign ARP sender MAC": arp(MINE, FOREIGN, ADDRESS["n1"], CONTROL),
    "the virtual MAC's ARP from the node's": arp(MINE, SERVER, VIRTUAL_ADDRESS, CONTROL),
    "foreign ARP sender address": arp(MINE, MINE, CONTROL, ADDRESS["n2"], operation=2),
    "gratuitous ARP for another": arp(MINE, MINE, ADDRESS["n2"], ADDRESS["n2"]),
    "ARP of another form": arp(MINE, MINE, ADDRESS["n1"], CONTROL, hlen=8),
    "router advertisement": icmpv6(MINE, LINK_LOCAL, 134),
    "redirect": icmpv6(MINE, LINK_LOCAL, 137),
    "solicitation from afar": icmpv6(MINE, LINK_LOCAL, 133, hop_limit=64),
    "solicitation from a global address": icmpv6(MINE, IPv6Address("2001:db8::1"), 135),
    "solicitation from the virtual MAC": icmpv6(SERVER, LINK_LOCAL, 133),
    "IPv6 that is not ICMP": icmpv6(MINE, LINK_LOCAL, 133, next_header=17),
    "another node's IPv6 address": ipv6_udp(MINE, BESIDE["n2"], IPV6_CONTROL, 5000, 3260),
    "the control node's IPv6 address": ipv6_udp(MINE, IPV6_CONTROL, BESIDE["n2"], 3260, 5000),
    "own IPv6 address from the virtual MAC": ipv6_udp(SERVER, BESIDE["n1"], IPV6_CONTROL, 5000, 3260),
    "neighbour advertisement of another's address": icmpv6(MINE, BESIDE["n1"], 136, target=BESIDE["n2"]),
    "the same from its link-local address": icmpv6(MINE, LINK_LOCAL, 136, target=BESIDE["n2"]),
    "the control node's advertisement": icmpv6(MINE, LINK_LOCAL, 136, target=IPV6_CONTROL),
    "neighbour advertisement of nothing": icmpv6(MINE, LINK_LOCAL, 136),
    "neighbour advertisement from afar": icmpv6(MINE, BESIDE["n1"], 136, target=BESIDE["n1"], hop_limit=64),
    "router advertisement from its own address": icmpv6(MINE, BESIDE["n1"], 134),
    "rogue DHCPv6 reply": ipv6_udp(MINE, LINK_LOCAL, ALL_AGENTS, 547, 546),
    "rogue DHCPv6 reply from its own address": ipv6_udp(MINE, BESIDE["n1"], BESIDE["n2"], 547, 546),
    "DHCPv6 from a MAC without IPv6": ipv6_udp(SERVER, LINK_LOCAL, ALL_AGENTS, 546, 547),
    "link-local, but not DHCPv6": ipv6_udp(MINE, LINK_LOCAL, IPV6_CONTROL, 546, 3260),
    "unknown protocol": ethernet(MINE, 0x88B5, b"?"),
    "spanning tree": ethernet(MINE, 38, bytes.fromhex("424203"), destination=bytes.fromhex("0180c2000000")),
    "tagged": tagged(udp(MINE, ADDRESS["n1"], CONTROL, 5000, 3260)),
    "tagged ARP": tagged(arp(MINE, MINE, ADDRESS["n1"], CONTROL)),
}


@pytest.mark.parametrize("what", PASS)
def test_an_honest_frame_passes(bench, what):
    bench.apply(fence())
    before = bench.table.refused()
    assert bench.arrives("n1", PASS[what])
    assert bench.table.refused() == before
    assert may_enter(fence(), "port-n1", PASS[what])


@pytest.mark.parametrize("what", DROP)
def test_a_lying_frame_is_dropped_and_counted(bench, what):
    bench.apply(fence())
    before = bench.table.refused().get("port-n1", 0)
    assert not bench.arrives("n1", DROP[what])
    assert bench.table.refused()["port-n1"] > before  # the kernel behind the port may have tried something too
    assert not may_enter(fence(), "port-n1", DROP[what])


@pytest.mark.parametrize(
    "what", [what for what in DROP if what not in ("spanning tree", "another node's MAC and address")]
)
def test_a_port_that_is_not_managed_is_left_alone(bench, what):
    bench.apply(fence())
    assert bench.arrives("free", DROP[what], at="n2")


def test_the_control_node_reaches_the_nodes(bench):
    bench.apply(fence())
    receiver = bench.cables["n1"]
    with within(file_of(bench.chassis.control)):
        control = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with control:
        control.bind(("br0", 0))
        offer = udp(bytes.fromhex("0250000000fe"), CONTROL, EVERYBODY, 67, 68)
        control.send(offer)
        until(lambda: receiver.recv(2000) == offer, "the offer arrives")


def test_a_mac_without_address_may_only_ask_for_one(bench):
    bench.apply(fence(address=None))
    assert bench.arrives("n1", udp(SERVER, NO_ADDRESS, EVERYBODY, 68, 67))
    assert bench.arrives("n1", arp(SERVER, SERVER, NO_ADDRESS, VIRTUAL_ADDRESS))
    assert not bench.arrives("n1", udp(SERVER, VIRTUAL_ADDRESS, CONTROL, 80, 5000))
    assert not bench.arrives("n1", arp(SERVER, SERVER, VIRTUAL_ADDRESS, CONTROL))


def test_a_managed_port_without_rules_lets_nothing_in(bench):
    stream = udp(HIS, ADDRESS["n2"], CONTROL, 5000, 3260)
    bench.apply(PortFilter.of(["port-n2"], []))
    bench.cables["n2"].send(stream)
    bench.cables["n2"].send(bench.honest("n2"))
    bench.cables["n1"].send(last := bench.honest("n1"))
    assert not [frame for frame in bench.until(last, "free") if frame[6:12] == HIS]
    assert bench.table.refused()["port-n2"] >= 2


def test_a_fence_cuts_a_running_stream_at_once(bench):
    """The server's machine sends without pause; of what it sends after apply has returned, nothing comes through."""
    bench.apply(fence())
    sent, ended = [0], threading.Event()

    def stream():
        while not ended.wait(0.0005):  # no faster than the receiver's buffer takes
            number = sent[0] + 1
            bench.cables["n1"].send(udp(SERVER, VIRTUAL_ADDRESS, CONTROL, 80, 5000, number.to_bytes(4, "big")))
            sent[0] = number

    sender = threading.Thread(target=stream)
    sender.start()
    try:
        until(lambda: bench.cables["free"].recv(2000)[6:12] == SERVER, "the stream runs")
        bench.apply(fence(virtual_at="n2"))
        last = sent[0] + 1  # may have been under way when apply returned
        until(lambda: sent[0] > last + 100, "the machine goes on sending")
    finally:
        ended.set()
        sender.join()
    moved = udp(SERVER, VIRTUAL_ADDRESS, CONTROL, 80, 5000, b"here now")
    bench.cables["n2"].send(moved)
    arrived = [frame for frame in bench.until(moved, "free") if frame[6:12] == SERVER and frame != bare(moved)]
    assert all(int.from_bytes(frame[42:46], "big") <= last for frame in arrived)
    assert bench.table.refused()["port-n1"] >= 99


# --- the kernel and the twin

stations = st.sampled_from([MINE, HIS, SERVER, FOREIGN])
ipv4 = st.sampled_from([ADDRESS["n1"], ADDRESS["n2"], VIRTUAL_ADDRESS, NO_ADDRESS, CONTROL, OTHER])
ipv6 = st.sampled_from([LINK_LOCAL, IPv6Address("::"), IPV6_CONTROL, IPv6Address("::1"), *BESIDE.values()])
ports = st.sampled_from([67, 68, 80, 69])
ipv6_ports = st.sampled_from([546, 547, 80])
frames = st.one_of(
    st.builds(udp, stations, ipv4, ipv4, ports, ports, st.binary(max_size=4)),
    st.builds(arp, stations, stations, ipv4, ipv4, operation=st.integers(1, 2), hlen=st.sampled_from([6, 6, 6, 7])),
    st.builds(
        icmpv6,
        stations,
        ipv6,
        st.integers(130, 138),
        hop_limit=st.sampled_from([255, 255, 64]),
        next_header=st.sampled_from([58, 58, 0, 17]),
        target=st.none() | ipv6,
    ),
    st.builds(ipv6_udp, stations, ipv6, ipv6, ipv6_ports, ipv6_ports),
    st.builds(ethernet, stations, st.sampled_from([IPV4, 0x86DD, 0x0806, 0x88B5, 0x8847]), st.binary(max_size=60)),
)
more_rules = st.sets(
    st.builds(
        PortRule,
        st.sampled_from(["port-n1", "port-n2"]),
        st.sampled_from([HARDWARE["n2"], VIRTUAL]),
        st.none() | ipv4.filter(lambda address: address != NO_ADDRESS) | st.sampled_from(list(BESIDE.values())),
    ),
    max_size=3,
)


@given(more_rules, st.lists(frames, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_decides_as_the_twin_does(bench, rules, sent):
    wanted = PortFilter.of(
        ["port-n1", "port-n2"], {PortRule("port-n1", HARDWARE["n1"], ADDRESS["n1"], discovers=True), *rules}
    )
    bench.apply(wanted)
    for frame in sent:
        assert bench.arrives("n1", frame) == may_enter(wanted, "port-n1", frame)


# --- what is observed


def test_the_same_fence_again_changes_nothing(bench):
    bench.apply(fence())
    assert changes(bench.table.observe(), fence()) == ()
    assert bench.table.observe() == fence()


@pytest.mark.parametrize(
    "words",
    [
        "flush chain bridge panloom port",
        "insert rule bridge panloom ingress accept",
        'add element bridge panloom stations { "port-n1" . 52:54:00:00:99:99 }',
        'delete element bridge panloom managed { "port-n1" }',
        "delete table bridge panloom",
    ],
)
def test_what_others_did_to_the_table_is_seen_and_mended(bench, words):
    bench.apply(fence())
    meddle(bench.nftables, words)
    assert bench.table.observe() != fence()
    assert changes(bench.table.observe(), fence())
    bench.apply(fence())
    assert not bench.arrives("n1", DROP["foreign MAC"])


def meddle(nftables, words):
    """Do what a person would type into nft."""
    assert nftables._library.nft_run_cmd_from_buffer(nftables._context, words.encode()) == 0


def test_a_new_process_takes_over_the_table_and_the_fence_holds_meanwhile(bench):
    bench.apply(fence())
    later = PortFilterTable(bench.nftables)
    assert later.observe() is None
    later.apply(changes(None, fence()))
    assert later.observe() == fence()
    assert not bench.arrives("n1", DROP["foreign MAC"])


def test_other_tables_stay(bench):
    bench.nftables.run({"nftables": [{"add": {"table": {"family": "bridge", "name": "theirs"}}}]})
    bench.apply(fence())
    bench.apply(fence(virtual_at=None))
    tables = bench.nftables.run({"nftables": [{"list": {"tables": {"family": "bridge"}}}]})["nftables"]
    assert {item["table"]["name"] for item in tables if "table" in item} == {"theirs", "panloom"}


def test_counts_stay_when_the_fence_changes(bench):
    bench.apply(fence())
    before = bench.table.refused()["port-n1"]
    bench.arrives("n1", DROP["foreign MAC"])
    bench.apply(fence(virtual_at="n2"))
    bench.arrives("n1", DROP["foreign MAC"])
    assert bench.table.refused()["port-n1"] == before + 2


def test_a_thousand_ports_are_one_transaction():
    rules = [
        PortRule(f"port{n}", MacAddress(0x02_50_4C_00_00_00 + n), IPv4Address("10.0.0.0") + n, discovers=n % 2 == 0)
        for n in range(1000)
    ]
    with namespace("many") as inside:
        nftables = Nftables(file_of(inside))
        table, wanted = PortFilterTable(nftables), PortFilter.of([rule.port for rule in rules], rules)
        table.apply(changes(table.observe(), wanted))
        assert changes(table.observe(), wanted) == ()
        nftables.close()


# --- failures


def test_a_refused_command_is_told_in_nfts_words_and_changes_nothing(bench):
    bench.apply(fence())
    command = {"nftables": [{"delete": {"table": {"family": "bridge", "name": "panloom"}}}, {"add": {"nonsense": {}}}]}
    with pytest.raises(KernelError, match=r"nftables: .*Unknown object"):
        bench.nftables.run(command)
    assert bench.table.observe() == fence()


def test_a_missing_namespace_is_named():
    with pytest.raises(UnavailableError, match="/run/netns/panloom-none"):
        Nftables(Path("/run/netns/panloom-none"))


def test_a_closed_connection_says_so():
    with namespace("closed") as inside:
        nftables = Nftables(file_of(inside))
        nftables.close()
        nftables.close()
        with pytest.raises(UnavailableError, match="closed"):
            PortFilterTable(nftables).observe()
