"""What a disk says of itself: INQUIRY, vital product data, capacities, target port groups.

Everything here is a function from a ``Disk`` to octets, before they are cut to the initiator's allocation length.

    INQUIRY                    SPC-4 r37 6.6         READ CAPACITY(10), (16)     SBC-4 r22 5.20, 5.21
    VPD 00h 80h 83h 86h 8Fh    SPC-4 r37 7.8         REPORT LUNS                 SPC-4 r37 6.33
    VPD B0h B1h B2h            SBC-4 r22 6.6         TARGET PORT GROUPS          SPC-4 r37 6.36
"""

import struct
from collections.abc import Callable

import msgspec

from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_copy import encode_third_party_page
from panloom.wire.scsi_reserve import TARGET_PORT

VENDOR = "PANLOOM"
REVISION = "1"

MAX_UNMAP_BLOCKS = 1 << 20  # 512 MiB in one UNMAP
MAX_UNMAP_DESCRIPTORS = 256
MAX_WRITE_SAME_BLOCKS = 0xFFFF  # as many as WRITE SAME(10) can ask for
MAX_TRANSFER_BLOCKS = 1 << 20  # 512 MiB in one command
MAX_COMPARE_BLOCKS = 128  # in one COMPARE AND WRITE
MAX_ATOMIC_BLOCKS = 256  # in one WRITE ATOMIC
ATOMIC_BLOCKS = 8  # of which a WRITE ATOMIC has a multiple, from a multiple on: a page
DIRECT_ACCESS, OPTICAL = 0x00, 0x05  # device types
UNMAP_GRANULARITY_BLOCKS = 8  # what volumes give back at once: 4 KiB

TARGET_PORT_GROUP = 1  # the tag that every portal has
NO_SUCH_UNIT = 0x7F  # INQUIRY octet 0: there could be no unit at this LUN
_SPC_4 = 0x06
_VERSION_DESCRIPTORS = (0x00A0, 0x0960, 0x0460)  # SAM-5, iSCSI, SPC-4; annex of SPC-4
_SBC_3, _MMC_6 = 0x04C0, 0x04E0


class Disk(msgspec.Struct, frozen=True, gc=False):
    """One logical unit as the SCSI commands need to know it; the fields are those of the Descriptor."""

    blocks: int
    read_only: bool
    identity: bytes
    serial: str
    product: str
    block_octets: int = 512
    thin: bool = True  # UNMAP gives space back
    removable: bool = False
    atomic: bool = False  # there is somewhere to remember a write that must not be torn
    physical_octets: int = 512  # what the medium writes at once, a power of two
    device_type: int = DIRECT_ACCESS
    target: str = ""  # the iSCSI name of the target that it is seen by

    @property
    def provisions(self) -> bool:
        """Whether its initiator may give space back."""
        return self.thin and not self.read_only


def _text(text: str, octets: int) -> bytes:
    """Return ASCII, left-aligned and padded with blanks (SPC-4 r37 4.3.1)."""
    return text.encode("ascii", "replace")[:octets].ljust(octets)


def inquiry(disk: Disk | None) -> bytes:
    """Return standard INQUIRY data; None for a LUN without a unit."""
    kind = disk.device_type if disk else NO_SUCH_UNIT
    removable = 0x80 if disk and disk.removable else 0x00
    # HISUP, format 2, 96 octets, 3PC, TPGS 01b: the target tells of its port groups and nobody sets them, CMDQUE
    flags = bytes((kind, removable, _SPC_4, 0x12, 0x5B, 0x18 if disk else 0x00, 0x00, 0x02))
    names = _text(VENDOR, 8) + _text(disk.product if disk else "", 16) + _text(REVISION, 4)
    commands = _MMC_6 if disk and disk.device_type == OPTICAL else _SBC_3
    versions = struct.pack(">4H", *_VERSION_DESCRIPTORS, commands)
    return (flags + names + bytes(22) + versions).ljust(96, b"\0")


def vital_product_data(disk: Disk, page: int) -> bytes | None:
    """Return a vital product data page; None for one that does not exist."""
    build = _VITAL_PAGES.get(page)
    if build is None:
        return None
    body = build(disk)
    return struct.pack(">BBH", disk.device_type, page, len(body)) + body


def designators(disk: Disk) -> tuple[bytes, ...]:
    """Return the names of the unit itself, each with its header (SPC-4 r37 7.8.6)."""
    naa = struct.pack(">BBxB", 0x01, 0x03, len(disk.identity)) + disk.identity  # binary, NAA
    name = _text(VENDOR, 8) + disk.serial.encode("ascii", "replace")
    return naa, struct.pack(">BBxB", 0x02, 0x01, len(name)) + name  # ASCII, T10 vendor


def _device_identification(disk: Disk) -> bytes:
    port = struct.pack(">BBxBxxH", 0x51, 0x94, 4, TARGET_PORT)  # iSCSI, binary, relative target port
    group = struct.pack(">BBxBxxH", 0x51, 0x95, 4, TARGET_PORT_GROUP)
    name = f"{disk.target},t,0x{TARGET_PORT:04x}".encode() + b"\0"
    name = name.ljust(-(-len(name) // 4) * 4, b"\0")
    string = struct.pack(">BBxB", 0x53, 0x98, len(name)) + name  # UTF-8, SCSI name string, of the port
    return b"".join(designators(disk)) + port + group + (string if disk.target else b"")


def _block_limits(disk: Disk) -> bytes:
    unmap = (MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS) if disk.provisions else (0, 0)
    return struct.pack(
        ">BBHIIIIIIIQIIIII",
        # WSNZ: "all blocks that follow" only where that takes no space; COMPARE AND WRITE; optimal transfer granularity
        *(disk.thin, MAX_COMPARE_BLOCKS, UNMAP_GRANULARITY_BLOCKS),
        *(MAX_TRANSFER_BLOCKS, 0, 0),  # no optimum for a transfer; no limit for prefetch
        *unmap,
        UNMAP_GRANULARITY_BLOCKS,
        0x8000_0000,  # UGAVALID, aligned at LBA 0
        MAX_WRITE_SAME_BLOCKS,
        *((MAX_ATOMIC_BLOCKS, ATOMIC_BLOCKS, ATOMIC_BLOCKS) if disk.atomic else (0, 0, 0)),
        *(0, 0),  # no boundaries
    )


def _block_device_characteristics(disk: Disk) -> bytes:
    # Does not rotate; WABEREQ 01b: what a block erase has erased can be read
    return struct.pack(">HBB", 1, 0, 0x40 if disk.thin else 0).ljust(60, b"\0")


def _logical_block_provisioning(disk: Disk) -> bytes:
    thin = 0xE4 if disk.provisions else 0x00  # LBPU, LBPWS, LBPWS10; LBPRZ: unmapped blocks read as zeroes
    return bytes((0, thin, 0x02 if disk.provisions else 0x00, 0))


def _extended_inquiry(_: Disk) -> bytes:
    # HEADSUP, ORDSUP, SIMPSUP: all task attributes; no volatile cache that a reset would lose; LUICLR: what is told of
    # the LUNs at one unit is told
    return bytes((0, 0x07, 0, 0x01)).ljust(60, b"\0")


def _third_party_copy(disk: Disk) -> bytes:
    return encode_third_party_page(disk.block_octets)


def report_target_port_groups(extended: bool) -> bytes:
    """Return the one group with its one port, active and optimized (SPC-4 r37 6.36)."""
    group = struct.pack(">BBHxBBBxxH", 0x80, 0x01, TARGET_PORT_GROUP, 0x00, 0x00, 1, TARGET_PORT)  # PREF, AO_SUP
    header = struct.pack(">IBB2x", 4 + len(group), 0x10, 0) if extended else struct.pack(">I", len(group))
    return header + group


def _supported_pages(_: Disk) -> bytes:
    return bytes(sorted(_VITAL_PAGES))


_VITAL_PAGES: dict[int, Callable[[Disk], bytes]] = {
    0x00: _supported_pages,
    0x80: lambda disk: disk.serial.encode("ascii", "replace"),
    0x83: _device_identification,
    0x86: _extended_inquiry,
    0x8F: _third_party_copy,
    0xB0: _block_limits,
    0xB1: _block_device_characteristics,
    0xB2: _logical_block_provisioning,
}


def read_capacity_10(disk: Disk) -> bytes:
    """Return the last LBA, FFFFFFFFh where it has more bits, and the block length."""
    return struct.pack(">II", min(disk.blocks - 1, 0xFFFF_FFFF), disk.block_octets)


def read_capacity_16(disk: Disk) -> bytes:
    """Return the last LBA, the block length, how many are a physical block, and whether the unit is thin."""
    provisioning = 0xC000 if disk.provisions else 0x0000  # LBPME, LBPRZ
    exponent = max(1, disk.physical_octets // disk.block_octets).bit_length() - 1
    return struct.pack(">QIBBH16x", disk.blocks - 1, disk.block_octets, 0, exponent, provisioning)


def report_luns(luns: tuple[int, ...], select: int) -> bytes | None:
    """Return the LUN list; None for a selection that does not exist.  There are no well-known units to list."""
    if select not in (0x00, 0x01, 0x02):
        return None
    listed = () if select == 0x01 else sorted(luns)
    return struct.pack(">I4x", 8 * len(listed)) + b"".join(struct.pack(">Q", lun_field(lun)) for lun in listed)
