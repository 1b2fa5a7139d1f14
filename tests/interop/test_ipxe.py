"""iPXE in the ROM of QEMU's network card, from power-on, against the real boot services."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from panloom.values import Iqn
from support.boot_chassis import MACS, SECRET, RunningServices, boot_services, server, table
from support.foreign import unpacked
from support.waiting import until

pytestmark = pytest.mark.machine


def power_on(services: RunningServices, console: Path, mac: str, *more: str | Path, card: tuple[str, ...] = ()) -> None:
    """Start a diskless machine whose cable ends at br0."""
    control = services.chassis.control
    control.ip("tuntap add tap0 mode tap")
    control.ip("link set tap0 master br0 up")
    with console.open("wb") as output:
        control.start(
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            *("-M", "pc,graphics=off,usb=off", "-accel", "tcg", "-cpu", "Nehalem", "-m", "128"),
            *("-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"),
            *("-device", ",".join(("virtio-net-pci", "netdev=n0", f"mac={mac}", "bootindex=1", *card))),
            *more,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def said(console: Path) -> str:
    """Return what the machine's serial line has shown, without its escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[c=]", "", console.read_bytes().decode("latin-1"))


def test_a_spare_waits_in_a_loop_and_boots_by_itself_when_it_gets_a_server(tmp_path):
    console = tmp_path / "console"
    with boot_services(tmp_path, table()) as services:
        power_on(services, console, MACS["n1"])
        services.wait_for("waiting", seconds=60)
        once = len(services.events)
        services.wait_for("waiting", after=once, seconds=30)
        twice = len(services.events)
        services.wait_for("waiting", after=twice, seconds=30)
        assert "n1 carries no server; it waits for one" in said(console)
        services.replace(table(n1=server(epoch=7)))
        event = services.wait_for("script", seconds=30)
        assert (event.node, event.server, event.epoch) == ("n1", "shop/web1", 7)
        until(lambda: "n1 boots shop/web1, epoch 7" in said(console), "the server's script runs", seconds=30)
        # Nothing listens on port 3260: the script must not give up, and comes back by itself.
        count = len(services.events)
        services.wait_for("script", after=count, seconds=60)
        services.login_seen(Iqn("iqn.2026-11.dev.panloom:node.n1"), 7)
        services.replace(table())
        count = len(services.events)
        services.wait_for("waiting", after=count, seconds=60)
    text = said(console)
    assert "No more network devices" not in text
    assert SECRET not in text


def test_a_spare_without_credentials_leaves_its_loop_for_the_root_path(tmp_path):
    console = tmp_path / "console"
    with boot_services(tmp_path, table()) as services:
        power_on(services, console, MACS["n1"])
        services.wait_for("waiting", seconds=60)
        services.replace(table(n1=server(chap=False)))
        until(
            lambda: "Could not open SAN device" in said(console) or "SAN" in said(console),
            "sanboot of option 17",
            seconds=60,
        )
        services.replace(table())
        services.wait_for("waiting", after=len(services.events), seconds=60)
    assert "No more network devices" not in said(console)


def test_a_machine_that_nobody_named_is_discovered_and_told_to_wait(tmp_path):
    console = tmp_path / "console"
    with boot_services(tmp_path, table(n1=server())) as services:
        power_on(services, console, MACS["stranger"])
        discovered = services.wait_for("discovered", seconds=60)
        waiting = services.wait_for("waiting", seconds=30)
        assert str(discovered.mac) == str(waiting.mac) == MACS["stranger"]
        assert str(discovered.address).startswith("10.77.0.20")
        until(lambda: "this machine is not known here" in said(console), "the console says why")
        assert not any(event.server for event in services.events)


@pytest.mark.long
def test_firmware_without_ipxe_is_given_one_by_tftp_and_waits_too(tmp_path):
    """OVMF's own PXE, with no ROM on the card."""
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(unpacked("usr/lib/ipxe/snponly.efi"), files)
    firmware = tmp_path / "OVMF.fd"
    shutil.copy(unpacked("usr/share/ovmf/OVMF.fd"), firmware)
    console = tmp_path / "console"
    with boot_services(tmp_path, table(), files=files) as services:
        power_on(services, console, MACS["n1"], *("-bios", firmware), card=("romfile=",))
        assert services.wait_for("file", seconds=120).why == "snponly.efi"
        services.wait_for("waiting", seconds=60)
        until(lambda: "n1 carries no server" in said(console), "the console says why", seconds=30)
