"""Bridges, taps and addresses: the plan against a model kernel always, and in a namespace of the real one."""

import asyncio
import fcntl
import os
import struct
from ipaddress import IPv4Interface
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from panloom.errors import KernelError, UnavailableError
from panloom.fabric.links import Address, Bridge, Links, Make, Remove, Tap, changes
from panloom.fabric.namespaces import within
from support.namespaces import namespace

NAMES = ("lab0", "lab1", "n1", "n2")
CHASSIS = {
    Bridge("lab0"),
    Tap("n1", "lab0"),
    Tap("n2", "lab0"),
    Address("lab0", IPv4Interface("10.77.0.1/24")),
    Address("lab0", IPv4Interface("10.99.0.1/16")),
}

bridges = st.sets(st.sampled_from(["lab0", "lab1"]))
addresses = st.sampled_from(["10.77.0.1/24", "10.77.0.2/24", "10.99.0.1/16"]).map(IPv4Interface)


@st.composite
def chassis(draw):
    """Return a set of links whose ports and addresses have the bridge they name."""
    names = draw(bridges)
    wanted = {Bridge(name) for name in names}
    if names:
        some = st.sampled_from(sorted(names))
        wanted |= {Tap(name, draw(some)) for name in draw(st.sets(st.sampled_from(["n1", "n2"])))}
        wanted |= draw(st.sets(st.builds(Address, some, addresses), max_size=3))
    return wanted


class ModelKernel:
    """A kernel that is a set of links, and as strict about their order."""

    def __init__(self):
        self.links = set()

    def apply(self, plan):
        for change in plan:
            match change:
                case Make(Bridge() as bridge):
                    self.links.add(bridge)
                case Make(Tap(name, bridge) as tap):
                    assert Bridge(bridge) in self.links
                    self.links = {link for link in self.links if not (isinstance(link, Tap) and link.name == name)}
                    self.links.add(tap)
                case Make(Address(link=name) as address):
                    assert Bridge(name) in self.links
                    self.links.add(address)
                case Remove(Bridge(name) as bridge):
                    self.links.remove(bridge)  # and its ports are nobody's
                    ports = {link for link in self.links if isinstance(link, Tap) and link.bridge == name}
                    self.links = self.links - ports | {Tap(port.name, "") for port in ports}
                case Remove(link):
                    self.links.remove(link)


@given(st.lists(chassis(), max_size=5))
def test_the_model_kernel_gets_what_is_wanted(wanted):
    kernel = ModelKernel()
    for want in wanted:
        kernel.apply(changes(kernel.links, want))
        assert kernel.links == want
        assert changes(kernel.links, want) == ()


def test_what_is_only_half_there_is_made_again_and_can_be_removed():
    half = {Bridge("lab0", whole=False), Tap("n1", "", whole=False)}
    assert changes(half, {Bridge("lab0"), Tap("n1", "lab0")}) == (Make(Bridge("lab0")), Make(Tap("n1", "lab0")))
    assert set(changes(half, ())) == {Remove(link) for link in half}


class Inside:
    """A connection into a namespace of its own, for tests that are not coroutines."""

    def __init__(self, inside, runner):
        self.namespace = inside
        self.path = Path("/run/netns") / inside.name
        self.runner = runner
        self.links = Links(self.path)
        runner.run(self.links.__aenter__())

    def observe(self):
        return self.runner.run(self.links.observe(NAMES))

    def apply(self, plan):
        self.runner.run(self.links.apply(plan))

    def become(self, wanted):
        self.apply(changes(self.observe(), wanted))
        assert changes(self.observe(), wanted) == ()


@pytest.fixture
def inside():
    with namespace("links") as made, asyncio.Runner() as runner:
        connection = Inside(made, runner)
        yield connection
        runner.run(connection.links.__aexit__(None, None, None))


def test_a_chassis_is_made_observed_and_removed(inside):
    inside.become(CHASSIS)
    assert inside.observe() == CHASSIS
    inside.become(CHASSIS - {Tap("n2", "lab0")})
    inside.become(set())
    assert inside.namespace.run("ip", "-br", "link").stdout.split()[0] == b"lo"
    assert len(inside.namespace.run("ip", "-br", "link").stdout.splitlines()) == 1


def test_the_real_kernel_gets_what_is_wanted(inside):
    @given(chassis())
    @settings(max_examples=25, deadline=None)
    def check(wanted):
        inside.become(wanted)
        assert inside.observe() == wanted

    check()


@pytest.mark.parametrize(
    "words",
    [
        "link set n1 nomaster",
        "link set n1 down",
        "link set n1 addrgenmode eui64",
        "link set lab0 down",
        "link del n1",
        "link del lab0",
        "address del 10.77.0.1/24 dev lab0",
        "address add 10.77.0.9/24 dev lab0",
    ],
)
def test_what_others_did_is_seen_and_mended(inside, words):
    inside.become(CHASSIS)
    inside.namespace.ip(words)
    assert changes(inside.observe(), CHASSIS)
    inside.become(CHASSIS)


def test_other_links_are_left_alone(inside):
    inside.namespace.ip("link add theirs type bridge")
    inside.namespace.ip("address add 192.0.2.1/24 dev theirs")
    inside.become(CHASSIS)
    inside.become(set())
    assert b"192.0.2.1/24" in inside.namespace.run("ip", "-br", "address").stdout


def test_the_bridge_keeps_its_mac_when_ports_come_and_go(inside):
    inside.become({Bridge("lab0")})
    mac = inside.namespace.mac("lab0")
    inside.namespace.ip("link add low address 02:00:00:00:00:01 type bridge")
    for _ in range(3):
        inside.become({Bridge("lab0"), Tap("n1", "lab0")})
        inside.namespace.ip("link set n1 address 02:00:00:00:00:02")
        assert inside.namespace.mac("lab0") == mac
        inside.become({Bridge("lab0")})
        assert inside.namespace.mac("lab0") == mac


def test_ports_have_no_ipv6_of_their_own(inside):
    inside.become(CHASSIS)
    for port in ("n1", "n2"):
        assert b"inet6" not in inside.namespace.run("ip", "address", "show", port).stdout


def test_a_program_can_open_the_tap_by_its_name(inside):
    inside.become(CHASSIS)
    with within(inside.path):
        device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"n1", 0x1002 | 0x4000))  # TUNSETIFF as QEMU does it
        assert b"LOWER_UP" in inside.namespace.run("ip", "link", "show", "n1").stdout
    finally:
        os.close(device)


def test_a_name_that_another_kind_of_link_has_is_told(inside):
    inside.namespace.ip("link add lab0 type veth peer name other")
    with pytest.raises(KernelError, match="lab0 should be a bridge"):
        inside.apply([Make(Bridge("lab0"))])
    with pytest.raises(KernelError, match="lab1 should be a bridge"):
        inside.apply([Make(Tap("n1", "lab1"))])
    with pytest.raises(KernelError, match="no link n2"):
        inside.apply([Remove(Tap("n2", "lab0"))])


def test_a_refusal_is_told_in_the_kernels_words(inside):
    with pytest.raises(KernelError, match=r"(?i)invalid|range|long"):
        inside.apply([Make(Bridge("a-name-that-is-too-long"))])


def test_a_missing_namespace_is_named():
    async def connect():
        async with Links(Path("/run/netns/panloom-none")):
            pass

    with pytest.raises(UnavailableError, match="panloom-none"):
        asyncio.run(connect())
