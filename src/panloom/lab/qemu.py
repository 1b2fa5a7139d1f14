"""The command line of one diskless machine: a NIC with its boot ROM, memory, a serial line, and nothing else.

    bios       power on → SeaBIOS → iPXE in the ROM of the virtio NIC → DHCP …         (no disk, no CD, no screen)
    uefi       power on → OVMF → the same ROM's iPXE, as a UEFI driver → DHCP …
    uefi-pxe   power on → OVMF → its own PXE, the NIC has no ROM → DHCP, TFTP → the iPXE that is served → DHCP …
    uefi-http  power on → OVMF → its own HTTP boot, likewise → DHCP, HTTP → the iPXE that is served → DHCP …

The serial line is standard input and output; ``graphics=off`` sends firmware and syslinux there as well.
"""

import fcntl
import os
import subprocess
from functools import cache
from typing import Literal
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from panloom.lab.firmware_files import ovmf
from panloom.values import MacAddress

WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")  # no machine outlives the thread that switched it on
_PROGRAM = "qemu-system-x86_64"
_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-M", "pc,graphics=off,usb=off")
_ACCELERATORS = {
    True: ("-accel", "kvm", "-cpu", "host"),
    False: ("-accel", "tcg,thread=multi,tb-size=128", "-cpu", "Nehalem"),
}
_KVM_CREATE_VM = 0xAE01  # linux/kvm.h: _IO(KVMIO, 0x01)

# OVMF tries PXE first, and for minutes where nobody answers that.
_NO_PXE = tuple(
    word
    for version in ("IPv4", "IPv6")
    for word in ("-fw_cfg", f"name=opt/org.tianocore/{version}PXESupport,string=no")
)

FirmwareKind = Literal["bios", "uefi", "uefi-pxe", "uefi-http"]

FETCHES_LOADER: frozenset[FirmwareKind] = frozenset(("uefi-pxe", "uefi-http"))
"""Kinds that have no iPXE in the card, and ask for one."""


class Machine(msgspec.Struct, frozen=True):
    """The hardware of a node: what a rack would hold."""

    name: str
    mac: str  # the NIC's own address, for ever
    tap: str  # the network interface that is the far end of its cable
    memory_octets: int = 192 << 20
    kind: Literal["qemu", "shared", "lone"] = "qemu"  # emulated ones share the supervisor's process, or have their own
    load_seconds: float = 0.0  # emulated: the pause between two marks that it writes on its disk; 0: it writes none
    firmware: FirmwareKind = "bios"  # of QEMU's machines
    is_declared: bool = True  # a document of the chassis names it; else it is a stranger until it is taken in
    initiator: str = ""  # emulated: the iSCSI name that its firmware is set to
    initiators: Literal[1, 2] = 2  # emulated: firmware's session is the system's too, or each logs in by itself

    @property
    def uuid(self) -> UUID:
        """What its SMBIOS tables call it."""
        return uuid_of(self.name)


def uuid_of(name: str) -> UUID:
    """Return the UUID of the machine of a name."""
    return uuid5(NAMESPACE_OID, name)


@cache
def kvm_is_usable() -> bool:
    """Whether QEMU can start a machine under KVM here; ``/dev/kvm`` may be there and refuse, or make broken processors.

    ``PANLOOM_ACCELERATOR=kvm`` or ``tcg`` decides without a trial.
    """
    chosen = os.environ.get("PANLOOM_ACCELERATOR")
    if chosen:
        return chosen == "kvm"
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(device)
    # A processor is set up before the first instruction; hosts that cannot run firmware fail here (QEMU aborts).
    trial = (_PROGRAM, *_BARE, *_ACCELERATORS[True], "-S", "-monitor", "stdio")
    return subprocess.run(trial, input=b"quit\n", capture_output=True, check=False, timeout=20).returncode == 0


def command_line(machine: Machine, *, kvm: bool) -> tuple[str, ...]:
    """Return the command that switches the machine on; it ends when the machine switches itself off.

    UnavailableError if its firmware is not there.
    """
    card = ["virtio-net-pci", "netdev=cable", f"mac={MacAddress.parse(machine.mac)}", "bootindex=1"]
    if machine.firmware in FETCHES_LOADER:
        card.append("romfile=")
    return (
        *(*WITH_PARENT, _PROGRAM, *_BARE, *_ACCELERATORS[kvm]),
        *("-name", f"{machine.name},process=panloom-{machine.name}"),
        *("-uuid", str(machine.uuid)),
        *(() if machine.firmware == "bios" else ("-bios", str(ovmf()))),
        *(_NO_PXE if machine.firmware == "uefi-http" else ()),
        *("-monitor", "none", "-serial", "stdio", "-smp", "1", "-m", f"{machine.memory_octets >> 20}M"),
        *("-netdev", f"tap,id=cable,ifname={machine.tap},script=no,downscript=no"),
        *("-device", ",".join(card)),
    )
