"""OVMF's own HTTP boot, without a ROM on the card and without TFTP: iPXE comes by HTTP, then the machine's script."""

import shutil

import pytest

from interop.test_ipxe import power_on, said
from support.boot_chassis import MACS, boot_services, table
from support.foreign import unpacked
from support.waiting import until

pytestmark = pytest.mark.machine
# OVMF tries PXE first, and for minutes where nobody answers that.
ONLY_HTTP = [
    word
    for version in ("IPv4", "IPv6")
    for word in ("-fw_cfg", f"name=opt/org.tianocore/{version}PXESupport,string=no")
]


def test_firmware_that_boots_by_http_is_given_ipxe_and_waits_for_a_server(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(unpacked("usr/lib/ipxe/snponly.efi"), files)
    firmware = tmp_path / "OVMF.fd"
    shutil.copy(unpacked("usr/share/ovmf/OVMF.fd"), firmware)
    console = tmp_path / "console"
    with boot_services(tmp_path, table(), files=files) as services:
        power_on(services, console, MACS["n1"], "-bios", firmware, *ONLY_HTTP, card=("romfile=",))
        services.wait_for("waiting", seconds=180)
        until(lambda: "n1 carries no server" in said(console), "the console says why", seconds=60)
        assert not [event for event in services.events if event.kind == "file"], "nothing came by TFTP"
    assert "HTTP" in said(console)
