"""Arm64 firmware, Debian's AAVMF on an emulated machine: it says what it is, and fetches the loader it is given."""

import subprocess

import pytest

from interop.test_ipxe import said
from support.boot_chassis import MACS, boot_services, table
from support.foreign import unpacked

pytestmark = [pytest.mark.machine, pytest.mark.long, pytest.mark.timeout(600)]
LOADER = "snponly-arm64.efi"
NOT_OF_X86 = b"MZ" + bytes(40 << 10)  # Debian has no iPXE for arm64; the firmware looks at it and goes on
SECONDS = 300.0


def test_arm64_firmware_is_given_its_own_loader_and_fetches_it(tmp_path):
    files, console = tmp_path / "files", tmp_path / "console"
    files.mkdir()
    (files / LOADER).write_bytes(NOT_OF_X86)
    with boot_services(tmp_path, table(), files=files) as services:
        control = services.chassis.control
        control.ip("tuntap add tap0 mode tap")
        control.ip("link set tap0 master br0 up")
        with console.open("wb") as output:
            control.start(
                *("qemu-system-aarch64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
                *("-M", "virt", "-accel", "tcg", "-cpu", "cortex-a57", "-m", "256"),
                *("-bios", unpacked("usr/share/AAVMF/AAVMF_CODE.fd")),
                *("-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"),
                *("-device", f"virtio-net-device,netdev=n0,mac={MACS['n1']}"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        services.wait_for("file", seconds=SECONDS)
        (asked,) = {event.mac for event in services.events if event.kind == "dhcp"}
    assert str(asked) == MACS["n1"]
    assert f"NBP filename is {LOADER}" in said(console)
