"""Firmware in QEMU that boots by IPv6 alone: OVMF's own PXE and HTTP boot, and iPXE in the card's ROM."""

import shutil

import pytest

from interop.test_ipxe import power_on, said
from interop.test_uefi_http import ONLY_HTTP
from support.boot_chassis import IPV6, MACS, SECRET, boot_services, server, table, with_ipv6
from support.command_line import PANLOOM
from support.foreign import unpacked
from support.lab import image
from support.loss import losing
from support.waiting import until

pytestmark = pytest.mark.machine
ONLY_IPV6 = ("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no")


@pytest.fixture
def files(tmp_path):
    made = tmp_path / "files"
    made.mkdir()
    shutil.copy(unpacked("usr/lib/ipxe/snponly.efi"), made)
    return made


def ovmf(tmp_path):
    firmware = tmp_path / "OVMF.fd"
    shutil.copy(unpacked("usr/share/ovmf/OVMF.fd"), firmware)
    return firmware


@pytest.mark.long
def test_ovmf_boots_by_pxe_over_ipv6_and_waits_for_a_server(tmp_path, files):
    console = tmp_path / "console"
    with (
        boot_services(tmp_path, with_ipv6(table()), files=files) as services,
        losing(services.chassis.control, percent=100),  # of IPv4
    ):
        power_on(services, console, MACS["n1"], "-bios", ovmf(tmp_path), *ONLY_IPV6, card=("romfile=",))
        file = services.wait_for("file", seconds=180)
        assert (file.why, file.address) == ("snponly.efi", IPV6["n1"])
        waiting = services.wait_for("waiting", seconds=120)
        assert waiting.address == IPV6["n1"]
        until(lambda: "n1 carries no server" in said(console), "the console says why", seconds=60)


@pytest.mark.long
def test_ovmf_boots_by_http_over_ipv6_and_waits_for_a_server(tmp_path, files):
    console = tmp_path / "console"
    with (
        boot_services(tmp_path, with_ipv6(table()), files=files) as services,
        losing(services.chassis.control, percent=100),  # of IPv4
    ):
        power_on(services, console, MACS["n1"], "-bios", ovmf(tmp_path), *ONLY_HTTP, card=("romfile=",))
        waiting = services.wait_for("waiting", seconds=240)
        assert waiting.address == IPV6["n1"]
        assert not [event for event in services.events if event.kind == "file"], "nothing came by TFTP"


def test_ipxe_in_the_cards_rom_boots_a_kernel_from_its_disk_by_ipv6_under_chap(tmp_path):
    console, disk, secret, told = (tmp_path / name for name in ("console", "disk", "secret", "target.out"))
    shutil.copy(image(writer=False), disk)
    web1 = server()
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    with (
        boot_services(tmp_path, with_ipv6(table(n1=web1))) as services,
        losing(services.chassis.control, percent=100),  # of IPv4
    ):
        options = ("--portal", "[2001:db8:77::a4d:1]:3260", "--iqn", str(web1.target), "--lun", f"0={disk}")
        proof = ("--chap", f"{web1.user}:{secret}")
        with told.open("wb") as out:
            services.chassis.control.start(*PANLOOM, "target", *options, *proof, stdout=out)
        until(lambda: "listening " in told.read_text(), "the target listens", seconds=60)
        power_on(services, console, MACS["n1"])
        script = services.wait_for("script", seconds=120)
        assert (script.server, script.address) == ("shop/web1", IPV6["n1"])
        until(lambda: "PANLOOM stage=kernel" in said(console), "the kernel runs", seconds=120)
    assert SECRET not in said(console)
