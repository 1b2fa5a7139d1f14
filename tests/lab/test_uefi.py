"""One disk under four kinds of firmware in turn, each a spare of the one before.

n1   BIOS, iPXE in the card's ROM        syslinux ▶ kernel
n2   UEFI, iPXE in the card's ROM        BOOTX64.EFI, read by one command
n3   UEFI, PXE of its own, no ROM        iPXE by TFTP ▶ BOOTX64.EFI
n4   UEFI, HTTP boot of its own, no ROM  iPXE by HTTP ▶ BOOTX64.EFI
"""

import re
import struct
from dataclasses import dataclass

import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.firmware_files import LOADER
from panloom.lab.image import SECTOR_OCTETS
from panloom.lab.running import RunningLab
from support.foreign import unpacked
from support.lab import ONE, LabInTest, Sniffer, image, pan
from support.namespaces import LoopInside, namespace

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]
FIRMWARE = {"n1": "bios", "n2": "uefi", "n3": "uefi-pxe", "n4": "uefi-http"}
UEFI_SECONDS = 120.0


def blocks_read(frame: bytes) -> int:
    """Return how many blocks a READ(10) in an Ethernet frame asks for, 0 for any other frame; RFC 7143 section 11.3."""
    ip = frame[14:]
    if frame[12:14] != b"\x08\x00" or len(ip) < 40 or ip[9] != 6:
        return 0
    tcp = ip[(ip[0] & 15) * 4 :]
    (port,) = struct.unpack_from("!H", tcp, 2)
    pdu = tcp[(tcp[12] >> 4) * 4 :]
    if port != 3260 or len(pdu) < 48 or pdu[0] & 0x3F != 1 or pdu[32] != 0x28:
        return 0
    return int.from_bytes(pdu[39:41], "big")


@dataclass(frozen=True)
class Boot:
    """One machine's turn."""

    node: str
    page: dict[str, str]
    console: str
    largest_read: int  # blocks
    log: list[str]  # of the control process, since the turn before
    fetched_at: list[float]  # monotonic seconds: when a loader was sent whole
    stages: dict[str, float]  # of the boot, monotonic seconds


def take_turn(lab: LabInTest, epoch: int, seen_log: list[str]) -> Boot:
    sniffer = Sniffer(lab.inside, "lab0", lambda frame, _direction: blocks_read(frame) > 0)
    try:
        page = lab.until_answers("shop/web1", epoch=epoch, seconds=UEFI_SECONDS)
    finally:
        reads = sniffer.close()
    log = (lab.lab.directory / "control.log").read_text().splitlines()[len(seen_log) :]
    seen_log += log
    console = "\n".join(lab.lab.console_tail(page["node"], 1 << 20))
    fetched_at = [event["monotonic"] for event in lab.events("file", text=LOADER)]
    stages = {event["text"]: event["data"]["reached"] for event in lab.events("boot", node=page["node"], epoch=epoch)}
    largest_read = max(blocks_read(frame) for _, frame in reads)
    return Boot(page["node"], dict(page), console, largest_read, log, fetched_at, stages)


@pytest.fixture(scope="module")
def boots(tmp_path_factory):
    """Boot the server on each machine, by the death of the one before."""
    directory = tmp_path_factory.mktemp("uefi")
    chassis = Chassis.of(nodes=len(FIRMWARE), firmware=tuple(FIRMWARE.values()))
    golden = image(writer=False)
    with namespace("lab") as inside, LoopInside(inside) as loop:
        lab = LabInTest(RunningLab(directory, chassis=chassis), inside, loop, golden)
        seen_log: list[str] = []
        try:
            lab.call(lab.lab.start(golden))
            lab.apply(ONE)
            found = [take_turn(lab, 1, seen_log)]
            for epoch, spare in ((2, "n2"), (3, "n3"), (4, "n4")):
                lab.until_up("shop/web1")
                lab.apply(pan(servers="web1", address="10.1.0.11", more=f"node: {spare}"))
                lab.power(found[-1].node, "kill")
                found.append(take_turn(lab, epoch, seen_log))
        finally:
            lab.call(lab.lab.stop())
    return {boot.node: boot for boot in found}


def test_each_firmware_boots_the_disk_as_the_one_before_left_it(boots):
    assert list(boots) == list(FIRMWARE)
    assert [boot.page["boots"] for boot in boots.values()] == ["1", "2", "3", "4"]
    assert [boot.page["epoch"] for boot in boots.values()] == ["1", "2", "3", "4"]
    assert len({(boot.page["server"], boot.page["mac"], boot.page["address"]) for boot in boots.values()}) == 1


def test_uefi_reads_kernel_and_initramfs_by_one_command(boots):
    kernel = max(path.stat().st_size for path in unpacked("boot").glob("vmlinuz-*"))
    assert boots["n1"].largest_read < 2048  # syslinux's are of 127 at most, Linux's of hundreds
    for node in ("n2", "n3", "n4"):
        assert boots[node].largest_read > kernel // SECTOR_OCTETS


def test_cap_013_the_driver_of_the_storage_network_comes_over_the_network(boots):
    """No ROM in the card: TFTP has delivered iPXE before the first login."""
    log = boots["n3"].log
    (sent,) = [number for number, line in enumerate(log) if "tftp=sent" in line and f"name='{LOADER}'" in line]
    script = next(number for number, line in enumerate(log) if "boot=script" in line and "node=n3" in line)
    assert sent < script
    assert boots["n3"].fetched_at[-1] < boots["n3"].stages["script"] < boots["n3"].stages["login"]
    assert re.search(r"panloom.*n3 boots shop/web1, epoch 3", boots["n3"].console, re.IGNORECASE)


def test_http_alone_leads_from_firmware_to_userland(boots):
    """No TFTP and no ROM: the firmware fetches iPXE by the address that DHCP gives it, then as any other."""
    assert f"/files/{LOADER}" in boots["n4"].console
    assert not any("tftp=sent" in line for line in boots["n4"].log)
    assert any("boot=script" in line and "node=n4" in line for line in boots["n4"].log)
    assert "n4 boots shop/web1, epoch 4" in boots["n4"].console


def test_cap_017_the_first_initiator_is_in_the_cards_rom_or_is_delivered(boots):
    for node, boot in boots.items():
        assert f"{node} boots shop/web1" in boot.console
        assert "PANLOOM stage=userland" in boot.console
        assert any("tftp=sent" in line for line in boot.log) == (node == "n3")
