"""Beside dnsmasq, which gives the addresses: iPXE and OVMF boot what we say, and all others as they did.

existing 10.77.0.2, dnsmasq ═══ control 10.77.0.1, ours ═══ n1 10.77.0.51
"""

import shutil
import subprocess
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest

from interop.test_ipxe import power_on, said
from interop.test_udhcpc import udhcpc
from interop.test_uefi_http import ONLY_HTTP
from panloom.decide.boot_answer import BootTable
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType, Option
from support.boot_chassis import MACS, boot_services, server, table
from support.dhcp_client import IPXE, PXE_BIOS, DhcpClient
from support.dhcp_wire import DhcpWire
from support.foreign import unpacked
from support.waiting import until

OURS, THEIRS, N1 = (IPv4Address(f"10.77.0.{host}") for host in (1, 2, 51))
HOSTS = {"existing": "52:54:00:77:00:02", "n1": MACS["n1"], "other": MACS["stranger"]}


def beside(**nodes) -> BootTable:
    """Return a table for the way beside another server."""
    return msgspec.structs.replace(table(**nodes), is_proxy=True, discovery=None)


@contextmanager
def beside_dnsmasq(directory: Path, start: BootTable, files: Path | None = None):
    """Run our services and dnsmasq on one wire; it knows n1's address, and has some for others."""
    with boot_services(directory, start, macs=HOSTS, files=files) as services:
        existing = services.chassis["existing"]
        existing.ip(f"address add {THEIRS}/24 dev eth0")
        configuration = directory / "dnsmasq.conf"
        configuration.write_text(
            "port=0\ninterface=eth0\nbind-interfaces\nno-ping\nuser=root\nlog-dhcp\n"
            f"dhcp-leasefile={directory}/leases\ndhcp-range=10.77.0.100,10.77.0.120,1h\n"
            f"dhcp-host={MACS['n1']},{N1}\n"
        )
        said_by_it = directory / "dnsmasq.log"
        with said_by_it.open("wb") as log:
            existing.start(
                *("dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={configuration}"),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            until(lambda: b"sockets bound" in said_by_it.read_bytes(), "dnsmasq listens")
            yield services


@pytest.fixture
def files(tmp_path):
    made = tmp_path / "files"
    made.mkdir()
    shutil.copy(unpacked("usr/lib/ipxe/snponly.efi"), made)
    return made


def dnsmasq_said(directory: Path, what: str) -> None:
    """Wait for a line of dnsmasq's; the checksums of what it sends are left to a card, so a wire cannot read them."""
    log = directory / "dnsmasq.log"
    until(lambda: what in log.read_text(), f"dnsmasq says {what}")


def test_a_node_hears_both_servers_and_ours_gives_no_address(tmp_path):
    with beside_dnsmasq(tmp_path, beside(n1=server())) as services, DhcpWire(services.chassis["n1"]) as wire:
        client = DhcpClient(MACS["n1"], IPXE)
        offer = wire.ask(client.discover())
        assert (offer.yiaddr, offer.address(Option.SERVER_IDENTIFIER)) == (dhcp.UNSPECIFIED, OURS)
        assert offer.file.startswith(b"http://10.77.0.1:8080/boot/")
        dnsmasq_said(tmp_path, f"DHCPOFFER(eth0) {N1} {MACS['n1']}")
        # The lease is the other server's affair, and a machine that boots nothing hears nothing from us.
        theirs = {Option.SERVER_IDENTIFIER: THEIRS.packed, Option.REQUESTED_ADDRESS: N1.packed}
        assert wire.is_unanswered(client.message(MessageType.REQUEST, theirs), client)
        dnsmasq_said(tmp_path, f"DHCPACK(eth0) {N1} {MACS['n1']}")
        stranger, system = DhcpClient(MACS["stranger"], PXE_BIOS), DhcpClient(MACS["n1"])
        system.xid = 0x5EED
        assert wire.is_unanswered(stranger.discover(), client)
        assert wire.is_unanswered(system.discover(), client)
        dnsmasq_said(tmp_path, f" {MACS['stranger']} ")


def test_the_script_is_for_the_address_that_the_document_says(tmp_path):
    with beside_dnsmasq(tmp_path, beside(n1=server())) as services, DhcpWire(services.chassis["n1"]) as wire:
        url = wire.ask(DhcpClient(MACS["n1"], IPXE).discover()).file.decode()
        assert udhcpc(services.chassis["n1"], tmp_path)["ip"] == str(N1)
        services.chassis["other"].ip("address add 10.77.0.100/24 dev eth0")
        elsewhere = services.chassis["other"].run("curl", "-s", "-m", "10", url).stdout
        assert elsewhere == b"this boot token is another machine's\n"
        assert b"n1 boots shop/web1" in services.chassis["n1"].run("curl", "-s", "-m", "10", url).stdout


@pytest.mark.machine
@pytest.mark.parametrize("chap", [True, False])
def test_ipxe_has_its_address_from_one_and_its_script_from_the_other(tmp_path, chap):
    console = tmp_path / "console"
    with beside_dnsmasq(tmp_path, beside(n1=server(chap=chap))) as services:
        power_on(services, console, MACS["n1"])
        assert services.wait_for("script", seconds=90).server == "shop/web1"
        until(lambda: "n1 boots shop/web1, epoch 1" in said(console), "its script runs", seconds=60)


@pytest.mark.machine
@pytest.mark.long
@pytest.mark.parametrize("way", ["pxe", "http"])
def test_uefi_has_its_address_from_one_and_ipxe_from_the_other(tmp_path, files, way):
    console, firmware = tmp_path / "console", tmp_path / "OVMF.fd"
    shutil.copy(unpacked("usr/share/ovmf/OVMF.fd"), firmware)
    with beside_dnsmasq(tmp_path, beside(), files) as services:
        more = ONLY_HTTP if way == "http" else ()
        power_on(services, console, MACS["n1"], "-bios", firmware, *more, card=("romfile=",))
        services.wait_for("waiting", seconds=180)
        until(lambda: "n1 carries no server" in said(console), "the console says why", seconds=60)
        assert bool([event for event in services.events if event.kind == "file"]) == (way == "pxe")
