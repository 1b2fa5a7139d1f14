from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.boot_answer import (
    BootIndex,
    BootNode,
    BootRelay,
    BootServer,
    Scope,
    boot_answer,
    boot_script,
    pause_seconds,
    root_path,
    wait_script,
    why_waiting,
)
from panloom.values import Iqn, MacAddress
from panloom.wire.dhcp import UNSPECIFIED, MessageType, Option
from support.boot_chassis import ADDRESS, MACS, SECRET, VIRTUAL_MAC, server, table, with_ipv6
from support.dhcp_client import HTTP_EFI, IPXE, PXE_BIOS, PXE_EFI, DhcpClient

LOADERS = ("snponly.efi", "undionly.kpxe")
FIRMWARES = {"ipxe": IPXE, "bios": PXE_BIOS, "efi": PXE_EFI, "http": HTTP_EFI, "none": {}}
NO_PROXY = bytes((176, 1, 1))


def answer(mac, options, the_table, loaders=LOADERS):
    request = DhcpClient(mac, options).message(MessageType.DISCOVER)
    return boot_answer(BootIndex(the_table), request, loaders)


def test_a_node_under_chap_is_given_a_file_name_and_no_root_path():
    given = answer(MACS["n1"], IPXE, table(n1=server()))
    assert given.scope is Scope.NODE
    assert given.addresses == (IPv4Address("10.77.0.51"),) * 2
    assert (given.file, given.wants_token) == ("http://10.77.0.1:8080/boot/", True)
    assert Option.ROOT_PATH not in given.options
    assert given.options[Option.IPXE] == NO_PROXY


def test_a_node_without_credentials_is_given_a_root_path_and_no_file_name():
    given = answer(MACS["n1"], IPXE, table(n1=server(chap=False)))
    assert (given.file, given.wants_token) == ("", False)
    assert given.options[Option.ROOT_PATH] == b"iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1"
    assert given.options[Option.IPXE_INITIATOR] == b"iqn.2026-11.dev.panloom:node.n1"
    assert given.options[Option.IPXE] == NO_PROXY


@pytest.mark.parametrize("mac", ["n1", "stranger"])
@pytest.mark.parametrize(("options", "loader"), [(PXE_BIOS, "undionly.kpxe"), (PXE_EFI, "snponly.efi")])
def test_firmware_that_is_not_ipxe_is_given_a_loader(mac, options, loader):
    given = answer(MACS[mac], options, table(n1=server(chap=False)))
    assert (given.file, given.wants_token) == (loader, False)
    assert given.options[Option.TFTP_SERVER_NAME] == b"10.77.0.1"
    assert not {Option.ROOT_PATH, Option.IPXE_INITIATOR} & given.options.keys()
    missing = answer(MACS[mac], options, table(n1=server()), loaders=())
    assert (missing.file, missing.why_no_file) == ("", f"{loader} is not among the files")


@pytest.mark.parametrize("mac", ["n1", "stranger"])
def test_firmware_that_boots_by_http_is_given_an_address_and_told_that_it_is_one(mac):
    given = answer(MACS[mac], HTTP_EFI, table(n1=server(chap=False)))
    assert (given.file, given.wants_token) == ("http://10.77.0.1:8080/files/snponly.efi", False)
    assert given.options[Option.VENDOR_CLASS] == b"HTTPClient"
    assert not {Option.ROOT_PATH, Option.IPXE_INITIATOR, Option.TFTP_SERVER_NAME} & given.options.keys()
    missing = answer(MACS[mac], HTTP_EFI, table(n1=server()), loaders=())
    assert (missing.file, missing.why_no_file) == ("", "snponly.efi is not among the files")
    assert Option.VENDOR_CLASS not in missing.options


@pytest.mark.parametrize(
    ("options", "file"), [(PXE_EFI, "shimx64.efi"), (HTTP_EFI, "http://10.77.0.1:8080/files/shimx64.efi")]
)
def test_uefi_is_given_a_shim_where_it_and_its_second_stage_lie_among_the_files(options, file):
    files = (*LOADERS, "shimx64.efi", "grubx64.efi")
    assert answer(MACS["n1"], options, table(n1=server()), loaders=files).file == file
    assert answer(MACS["n1"], PXE_BIOS, table(n1=server()), loaders=files).file == "undionly.kpxe"


def test_firmware_of_another_architecture_is_told_apart():
    options = {**PXE_EFI, Option.CLIENT_ARCHITECTURE: b"\0\x0a"}
    why = answer(MACS["n1"], options, table(n1=server())).why_no_file
    assert why == "no loader for PXE of architecture 10 (option 93)"
    options = {**PXE_EFI, Option.CLIENT_ARCHITECTURE: b"\0\x0b"}
    assert answer(MACS["n1"], options, table(n1=server())).why_no_file == "snponly-arm64.efi is not among the files"


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_virtual_mac_is_given_its_lan_and_nothing_to_boot(firmware):
    given = answer(VIRTUAL_MAC, FIRMWARES[firmware], table(n1=server(chap=False)))
    assert given.scope is Scope.NIC
    assert given.addresses == (IPv4Address("10.99.0.10"), IPv4Address("10.99.0.19"))
    assert given.options[Option.ROUTER] == IPv4Address("10.99.0.1").packed
    assert given.options[Option.DOMAIN_NAME_SERVER] == bytes((10, 99, 0, 2, 10, 99, 0, 3))
    assert given.options[Option.DOMAIN_NAME] == b"front.example"
    assert (given.file, given.wants_token, given.server) == ("", False, None)
    assert not {Option.ROOT_PATH, Option.IPXE_INITIATOR} & given.options.keys()


def test_a_virtual_mac_with_an_address_of_its_own_has_only_that():
    nic = msgspec.structs.replace(table().nics[0], address=IPv4Address("10.99.0.80"))
    given = answer(VIRTUAL_MAC, {}, msgspec.structs.replace(table(), nics=(nic,)))
    assert given.addresses == (IPv4Address("10.99.0.80"),) * 2


def test_a_virtual_mac_without_address_or_range_hears_nothing():
    nic = msgspec.structs.replace(table().nics[0], range=None)
    assert answer(VIRTUAL_MAC, {}, msgspec.structs.replace(table(), nics=(nic,))) is None


def test_a_hardware_mac_listed_as_virtual_too_stays_in_scope_1():
    nic = msgspec.structs.replace(table().nics[0], mac=MacAddress.parse(MACS["n1"]))
    given = answer(MACS["n1"], IPXE, msgspec.structs.replace(table(), nics=(nic,)))
    assert given.scope is Scope.NODE


@given(st.integers(1, 2**48 - 1), st.sampled_from(sorted(FIRMWARES)))
def test_whoever_is_not_named_is_given_nobodys_disk(number, firmware):
    the_table = table(n1=server(chap=False), n2=server(chap=False, node="n2"))
    if MacAddress(number) in {VIRTUAL_MAC, *(node.mac for node in the_table.nodes)}:
        return
    given = answer(MacAddress(number), FIRMWARES[firmware], the_table)
    if firmware == "none":
        assert given is None
    else:
        assert (given.scope, given.server) == (Scope.DISCOVERY, None)
        assert not {Option.ROOT_PATH, Option.IPXE_INITIATOR} & given.options.keys()


def test_without_a_discovery_range_strangers_hear_nothing():
    assert answer(MACS["stranger"], IPXE, msgspec.structs.replace(table(), discovery=None)) is None


def test_the_script_names_initiator_and_credentials_and_never_ends():
    the_table = table(n1=server(epoch=3))
    node = the_table.nodes[0]
    assert boot_script(the_table, node, node.server, the_table.address).splitlines() == [
        "#!ipxe",
        "echo Panloom: n1 boots shop/web1, epoch 3",
        "set initiator-iqn iqn.2026-11.dev.panloom:node.n1",
        "set username shop.web1.3",
        f"set password {SECRET}",
        "sanboot iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1 ||",
        "echo Panloom: no disk of shop/web1 from 10.77.0.1; asking again in 2 s",
        "clear username ||",
        "clear password ||",
        ":again",
        "sleep 2 ||",
        "dhcp netX || goto again",
        "isset ${filename} && chain --replace --autofree ${filename} ||",
        "isset ${root-path} && sanboot ${root-path} ||",
        "goto again",
    ]


def test_by_ipv6_the_script_leaves_address_and_portal_for_the_system():
    the_table = with_ipv6(table(n1=server(epoch=3)))
    node = the_table.nodes[0]
    lines = boot_script(the_table, node, node.server, the_table.ipv6_address).splitlines()
    boot = next(number for number, line in enumerate(lines) if line.startswith("sanboot iscsi:[2001:db8:77::a4d:1]:6:"))
    assert lines[boot - 1] == "set hostname 2001:db8:77::a4d:33/64,2001:db8:77::a4d:1"
    assert not [line for line in boot_script(the_table, node, node.server, ADDRESS).splitlines() if "hostname" in line]


def test_an_installer_is_asked_for_with_the_disk_hooked_where_nothing_boots_from_it():
    the_table = table(n1=server(epoch=3))
    node = the_table.nodes[0]
    without, lines = (
        boot_script(the_table, node, node.server, the_table.address, has_installer=has).splitlines()
        for has in (False, True)
    )
    line, unhook = [line for line in lines if line not in without]
    assert line == (
        "sanhook iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1"
        " && chain --autofree http://10.77.0.1:8080/files/install.ipxe ||"
    )
    assert lines[lines.index(line) - 1].startswith("sanboot ")
    assert unhook == "sanunhook ||"  # where the installer fails, the next sanboot finds its drive free
    assert lines[lines.index(line) + 1] == unhook


def test_the_wait_script_says_why_and_never_ends():
    lines = wait_script(why_waiting(None), 5).splitlines()
    assert lines[:2] == ["#!ipxe", "echo Panloom: this machine is not known here; it waits to be approved"]
    assert lines[2:4] == [":again", "sleep 5 ||"]
    assert lines[-1] == "goto again"


def test_a_spare_asks_often_and_a_stranger_ever_less():
    node = table().nodes[0]
    assert [pause_seconds(node, times) for times in (0, 5, 1000)] == [2, 2, 2]
    assert [pause_seconds(None, times) for times in (0, 5, 1000)] == [1, 6, 10]


@pytest.mark.parametrize("secret", ["two words", "a'b", "${x}", "", "line\nbreak", 'q"', "a;b|c", "x" * 8 + "\n"])
def test_credentials_that_a_script_cannot_say_are_refused(secret):
    with pytest.raises(ValueError, match="letters, digits"):
        BootServer("shop/web1", 1, Iqn("iqn.2026-11.dev.panloom:a"), Iqn("iqn.2026-11.dev.panloom:b"), "user", secret)


def test_half_a_pair_of_credentials_is_refused():
    with pytest.raises(ValueError, match="together"):
        BootServer("shop/web1", 1, Iqn("iqn.2026-11.dev.panloom:a"), Iqn("iqn.2026-11.dev.panloom:b"), "user")


def test_the_root_path_is_that_of_rfc_4173():
    assert root_path(table(), server(), table().address) == "iscsi:10.77.0.1:6:3260:0:iqn.2026-11.dev.panloom:shop.web1"


# ── behind a relay ───────────────────────────────────────────────────────────────────────────────────────────────────

RELAY = BootRelay(IPv4Address("10.88.0.1"), IPv4Network("10.88.0.0/24"), IPv4Address("10.88.0.254"))
FAR = "52:54:00:88:00:01"


OTHER_RELAY = BootRelay(IPv4Address("10.89.0.1"), IPv4Network("10.89.0.0/24"), IPv4Address("10.89.0.254"))


def relayed(mac, options=IPXE, *, giaddr=RELAY.address, ciaddr="0.0.0.0"):
    """Return what a machine is given through a relay; ``FAR`` is known there, the others here."""
    far = BootNode("far", MacAddress.parse(FAR), IPv4Address("10.88.0.51"), server())
    here = table(n1=server())
    request = DhcpClient(mac, options).message(MessageType.REQUEST, giaddr=giaddr, ciaddr=IPv4Address(ciaddr))
    the_table = msgspec.structs.replace(here, relays=(RELAY, OTHER_RELAY), nodes=(*here.nodes, far))
    return boot_answer(BootIndex(the_table), request, LOADERS)


@pytest.mark.parametrize("through", [{}, {"giaddr": UNSPECIFIED, "ciaddr": "10.88.0.51"}])
def test_a_node_behind_a_relay_is_given_its_networks_mask_and_router(through):
    given = relayed(FAR, **through)
    assert given.addresses == (IPv4Address("10.88.0.51"),) * 2
    assert given.options[Option.SUBNET_MASK] == b"\xff\xff\xff\0"
    assert given.options[Option.ROUTER] == RELAY.router.packed
    assert given.wants_token


@pytest.mark.parametrize("mac", [MACS["n1"], MACS["stranger"], VIRTUAL_MAC])
def test_a_relay_brings_nothing_to_who_is_not_of_its_network(mac):
    assert relayed(mac) is None


def test_a_node_of_a_relays_network_is_given_nothing_on_another():
    assert relayed(FAR, giaddr=UNSPECIFIED) is None


def test_firmware_behind_a_relay_is_given_a_loader_from_here():
    given = relayed(FAR, PXE_EFI)
    assert given.file == "snponly.efi"
    assert given.options[Option.TFTP_SERVER_NAME] == b"10.77.0.1"


def selecting(link):
    """Return iPXE's options, and those by which a relay says the client's subnet."""
    return {**IPXE, Option.RELAY_AGENT: b"\5\4" + IPv4Address(link).packed}


def test_a_relay_of_several_networks_may_ask_by_one_address_and_select_the_link():
    """RFC 3527: giaddr is where the answer goes, and the sub-option says which subnet the client is in."""
    given = relayed(FAR, selecting("10.88.0.0"), giaddr=OTHER_RELAY.address)
    assert given.addresses == (IPv4Address("10.88.0.51"),) * 2
    assert given.options[Option.ROUTER] == RELAY.router.packed
    assert relayed(FAR, giaddr=OTHER_RELAY.address) is None


@pytest.mark.parametrize(("mac", "link"), [(FAR, "10.89.0.0"), (FAR, "192.0.2.0"), (MACS["n1"], "10.77.0.0")])
def test_a_link_that_is_selected_and_not_the_machines_gives_it_nothing(mac, link):
    """Nor has a machine of the storage network anything through a relay, whatever that one selects."""
    assert relayed(mac, selecting(link)) is None


def test_what_a_machine_itself_writes_as_a_relays_option_selects_nothing():
    assert relayed(FAR, selecting("10.88.0.0"), giaddr=UNSPECIFIED) is None
