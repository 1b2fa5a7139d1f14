"""SeaBIOS and iPXE boot from our target under CHAP: int13 reads and writes through the firmware's initiator.

The disk's first sector is 79 octets of machine code: read LBA 1 to 8000h, write it to LBA 2, say it on COM1.

    xor ax,ax;  ds=es=ss=ax;  sp=7c00h
    si=packet_r;  ah=42h;  int 13h;  jc hang
    si=packet_w;  ax=4300h;  int 13h;  jc hang
    si=8000h;  dx=3f8h;  1: lodsb;  test al,al;  jz hang;  out dx,al;  jmp 1
    hang: hlt;  jmp hang
    packet_r: 16, 0, 1, 0, 8000h, 0, 1, 0, 0, 0    packet_w: the same with LBA 2
"""

import subprocess

import pytest

from panloom.protocol.chap import Credentials
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.waiting import until

pytestmark = pytest.mark.machine

BOOT_SECTOR = bytes.fromhex(
    "31c08ed88ec08ed0bc007cbe2f7cb442cd137218be3f7cb80043cd13720ebe0080baf803ac84c07403eeebf8f4ebfd"
    "10000100008000000100000000000000"
    "10000100008000000200000000000000"
)
MESSAGE = b"panloom: this came from LBA 1\r\n"


def test_firmware_boots_from_the_target(tmp_path):
    wanted = Credentials("web1", "secret-of-web1")
    disk = FileDisk(tmp_path / "disk", 131072)
    disk.write(0, BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa")
    disk.write(512, MESSAGE.ljust(512, b"\0"))
    manager = FileManager({0: disk}, wanted=wanted, initiator=INITIATOR)
    console = tmp_path / "console"
    with serving(manager) as portal, console.open("wb") as output:
        secret = f"set username {wanted.user}\nset password {wanted.secret}\n"
        uri = f"iscsi:10.0.2.2:6:{portal.rsplit(':', 1)[1]}:0:{TARGET}"
        (tmp_path / "boot.ipxe").write_text(f"#!ipxe\nset initiator-iqn {INITIATOR}\n{secret}sanboot {uri}\n")
        machine = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
                *("-M", "pc,graphics=off,usb=off", "-accel", "tcg", "-cpu", "Nehalem", "-m", "32"),
                # QEMU's own network: the guest's 10.0.2.2 is the loopback here.
                *("-netdev", f"user,id=n0,ipv6=off,tftp={tmp_path},bootfile=boot.ipxe"),
                *("-device", "virtio-net-pci,netdev=n0,bootindex=1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: MESSAGE in console.read_bytes(), "the boot sector speaks", seconds=60)
            assert disk.content(1024, 512) == MESSAGE.ljust(512, b"\0")
            (connection,) = manager.connections.values()
            assert connection.facts.kind == "firmware"
            assert connection.facts.initiator == INITIATOR
            assert connection.facts.first_read_at is not None
            assert connection.facts.writes == 1
        finally:
            machine.kill()
            machine.wait()
