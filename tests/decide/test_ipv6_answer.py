from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec
import pytest

from panloom.decide.boot_answer import BootIndex, BootNode, BootRelay, Scope
from panloom.decide.ipv6_answer import ipv6_answer, ipv6_link
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Kind, Message, Option
from support.boot_chassis import FRONT_PREFIX, IPV6, MACS, PREFIX, VIRTUAL_MAC, server, table, with_ipv6

LOADERS = ("snponly.efi",)
FAR_PREFIX = IPv6Network("2001:db8:88::/64")
RELAY = BootRelay(IPv4Address("10.88.0.1"), IPv4Network("10.88.0.0/24"), IPv4Address("10.88.0.1"), FAR_PREFIX)
FAR = MacAddress.parse("52:54:00:88:00:01")


def vendor(text):
    return ((int(Option.VENDOR_CLASS), dhcpv6.encode_vendor_class(text)),)


IPXE = (*vendor(b"PXEClient:Arch:00000:UNDI:002001"), (int(Option.USER_CLASS), b"\0\4iPXE"))
PXE = vendor(b"PXEClient:Arch:00007:UNDI:003000")
HTTP = vendor(b"HTTPClient:Arch:00016:UNDI:003000")
ARM = (*vendor(b"PXEClient"), (int(Option.CLIENT_ARCHITECTURE), b"\0\x0b"))


def answer(mac, options, here=None, *, link=None, loaders=LOADERS):
    known = with_ipv6(table(n1=server())) if here is None else here
    far = BootNode("far", FAR, IPv4Address("10.88.0.51"))
    whole = msgspec.structs.replace(known, relays=(RELAY,), nodes=(*known.nodes, far))
    found = mac if isinstance(mac, MacAddress) else MacAddress.parse(mac)
    return ipv6_answer(BootIndex(whole), found, Message(Kind.SOLICIT, b"abc", options), link, loaders)


def test_a_nodes_address_is_beside_the_one_of_its_document():
    given = answer(MACS["n1"], ())
    assert (given.scope, given.addresses, given.link) == (Scope.NODE, (IPV6["n1"],) * 2, PREFIX)
    assert (given.file, given.wants_token, given.server.name) == ("", False, "shop/web1")


@pytest.mark.parametrize("chap", [True, False])
def test_ipxe_is_given_a_script_with_and_without_credentials(chap):
    given = answer(MACS["n1"], IPXE, with_ipv6(table(n1=server(chap=chap))))
    assert (given.file, given.wants_token) == ("http://[2001:db8:77::a4d:1]:8080/boot/", True)


def test_firmware_is_given_its_loader_by_the_protocol_that_it_speaks():
    assert answer(MACS["n1"], PXE).file == "tftp://[2001:db8:77::a4d:1]/snponly.efi"
    given = answer(MACS["n1"], HTTP)
    assert given.file == "http://[2001:db8:77::a4d:1]:8080/files/snponly.efi"
    assert given.options == vendor(b"HTTPClient")
    assert answer(MACS["n1"], ARM).why_no_file == "snponly-arm64.efi is not among the files"
    assert answer(MACS["n1"], ARM, loaders=("snponly-arm64.efi",)).file.endswith("/snponly-arm64.efi")
    shim = answer(MACS["n1"], PXE, loaders=(*LOADERS, "shimx64.efi", "grubx64.efi"))
    assert shim.file == "tftp://[2001:db8:77::a4d:1]/shimx64.efi"
    assert "architecture unknown" in answer(MACS["n1"], vendor(b"PXEClient")).why_no_file


def test_a_virtual_mac_has_an_address_of_its_lan_and_boots_nothing():
    given = answer(VIRTUAL_MAC, IPXE)
    first, last = IPv6Address("2001:db8:99::a63:a"), IPv6Address("2001:db8:99::a63:13")
    assert (given.scope, given.addresses, given.link) == (Scope.NIC, (first, last), FRONT_PREFIX)
    assert (given.file, given.options) == ("", ((Option.DOMAIN_LIST, b"\x05front\x07example\0"),))


def test_strangers_are_met_where_their_firmware_asks():
    assert answer(MACS["stranger"], ()) is None
    given = answer(MACS["stranger"], IPXE)
    assert (given.scope, given.node) == (Scope.DISCOVERY, None)
    assert given.addresses == (IPv6Address("2001:db8:77::a4d:c8"), IPv6Address("2001:db8:77::a4d:cb"))


@pytest.mark.parametrize("mac", [*MACS.values(), VIRTUAL_MAC])
def test_without_a_prefix_nobody_is_answered(mac):
    assert answer(mac, IPXE, table(n1=server())) is None


def test_a_node_behind_a_relay_is_answered_there_alone():
    given = answer(FAR, PXE, link=IPv6Address("2001:db8:88::1"))
    assert (given.addresses[0], given.link) == (IPv6Address("2001:db8:88::a58:33"), FAR_PREFIX)
    assert answer(FAR, PXE) is None
    for mac in (MACS["n1"], MACS["stranger"], VIRTUAL_MAC):
        assert answer(mac, IPXE, link=IPv6Address("2001:db8:88::1")) is None
    assert answer(MACS["n1"], IPXE, link=IPv6Address("2001:db8:77::1")) is None, "no relay names that link"


def test_each_is_told_the_prefix_of_its_own_link():
    index = BootIndex(with_ipv6(table()))
    assert ipv6_link(index, MacAddress.parse(MACS["n1"])) == PREFIX
    assert ipv6_link(index, MacAddress.parse(MACS["stranger"])) == PREFIX
    assert ipv6_link(index, VIRTUAL_MAC) == FRONT_PREFIX
    assert ipv6_link(BootIndex(table()), MacAddress.parse(MACS["n1"])) is None


def test_ranges_lend_nothing_beside_what_is_somebodys():
    here = with_ipv6(table())
    node = BootNode("n3", MacAddress(0x525400770003), IPv4Address("10.77.0.201"))
    index = BootIndex(msgspec.structs.replace(here, nodes=(*here.nodes, node)))
    assert IPv6Address("2001:db8:77::a4d:c9") in index.reserved_beside(PREFIX)
