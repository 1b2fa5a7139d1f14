"""What a disk says of itself: INQUIRY, vital product data, mode pages, capacities, supported operation codes.

Everything here is a function from a ``Disk`` to octets, before they are cut to the initiator's allocation length.

    INQUIRY                 SPC-4 r37 6.6        MODE SENSE pages 08h, 0Ah        SBC-4 r22 6.5.5, SPC-4 r37 7.5.8
    VPD 00h 80h 83h         SPC-4 r37 7.8        READ CAPACITY(10), (16)          SBC-4 r22 5.20, 5.21
    VPD B0h B1h B2h         SBC-4 r22 6.6        SUPPORTED OPERATION CODES        SPC-4 r37 6.35
"""

import struct
from collections.abc import Callable

import msgspec

from panloom.wire import scsi_cdb
from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_cdb import BlockCommand, Operation

VENDOR = "PANLOOM"
REVISION = "1"

MAX_UNMAP_BLOCKS = 1 << 20  # 512 MiB in one UNMAP
MAX_UNMAP_DESCRIPTORS = 256
MAX_WRITE_SAME_BLOCKS = 0xFFFF  # as many as WRITE SAME(10) can ask for
UNMAP_GRANULARITY_BLOCKS = 8  # what volumes give back at once: 4 KiB

NO_SUCH_UNIT = 0x7F  # INQUIRY octet 0: there could be no unit at this LUN
_SPC_4 = 0x06
_VERSION_DESCRIPTORS = (0x00A0, 0x0960, 0x0460, 0x04C0)  # SAM-5, iSCSI, SPC-4, SBC-3; annex of SPC-4


class Disk(msgspec.Struct, frozen=True, gc=False):
    """One logical unit as the SCSI commands need to know it; the fields are those of the Descriptor."""

    blocks: int
    read_only: bool
    identity: bytes
    serial: str
    product: str
    block_octets: int = 512
    thin: bool = True  # UNMAP gives space back

    @property
    def provisions(self) -> bool:
        """Whether its initiator may give space back."""
        return self.thin and not self.read_only


def _text(text: str, octets: int) -> bytes:
    """Return ASCII, left-aligned and padded with blanks (SPC-4 r37 4.3.1)."""
    return text.encode("ascii", "replace")[:octets].ljust(octets)


def inquiry(disk: Disk | None) -> bytes:
    """Return standard INQUIRY data; None for a LUN without a unit."""
    kind = 0x00 if disk else NO_SUCH_UNIT
    flags = bytes((kind, 0x00, _SPC_4, 0x12, 0x5B, 0x00, 0x00, 0x02))  # HISUP, format 2, 96 octets, CMDQUE
    names = _text(VENDOR, 8) + _text(disk.product if disk else "", 16) + _text(REVISION, 4)
    versions = struct.pack(">4H", *_VERSION_DESCRIPTORS)
    return (flags + names + bytes(22) + versions).ljust(96, b"\0")


def vital_product_data(disk: Disk, page: int) -> bytes | None:
    """Return a vital product data page; None for one that does not exist."""
    build = _VITAL_PAGES.get(page)
    if build is None:
        return None
    body = build(disk)
    return struct.pack(">BBH", 0x00, page, len(body)) + body


def _device_identification(disk: Disk) -> bytes:
    naa = struct.pack(">BBxB", 0x01, 0x03, len(disk.identity)) + disk.identity  # binary, NAA, of the unit
    name = _text(VENDOR, 8) + disk.serial.encode("ascii", "replace")
    return naa + struct.pack(">BBxB", 0x02, 0x01, len(name)) + name  # ASCII, T10 vendor, of the unit


def _block_limits(disk: Disk) -> bytes:
    unmap = (MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS) if disk.provisions else (0, 0)
    return struct.pack(
        ">BBHIIIIIIIQ20x",
        *(0x01, 0, UNMAP_GRANULARITY_BLOCKS),  # WSNZ; no COMPARE AND WRITE; optimal transfer granularity
        *(0, 0, 0),  # no limit on, no optimum for a transfer; prefetch likewise
        *unmap,
        UNMAP_GRANULARITY_BLOCKS,
        0x8000_0000,  # UGAVALID, aligned at LBA 0
        MAX_WRITE_SAME_BLOCKS,
    )


def _block_device_characteristics(_: Disk) -> bytes:
    return struct.pack(">H", 1).ljust(60, b"\0")  # does not rotate


def _logical_block_provisioning(disk: Disk) -> bytes:
    thin = 0xE4 if disk.provisions else 0x00  # LBPU, LBPWS, LBPWS10; LBPRZ: unmapped blocks read as zeroes
    return bytes((0, thin, 0x02 if disk.provisions else 0x00, 0))


def _supported_pages(_: Disk) -> bytes:
    return bytes(sorted(_VITAL_PAGES))


_VITAL_PAGES: dict[int, Callable[[Disk], bytes]] = {
    0x00: _supported_pages,
    0x80: lambda disk: disk.serial.encode("ascii", "replace"),
    0x83: _device_identification,
    0xB0: _block_limits,
    0xB1: _block_device_characteristics,
    0xB2: _logical_block_provisioning,
}

# Page code → parameters.  WCE is honest: a write may stay in a cache until SYNCHRONIZE CACHE or FUA.
_MODE_PAGES = {
    0x08: b"\x04".ljust(18, b"\0"),  # caching: WCE
    0x0A: b"\0\x10".ljust(10, b"\0"),  # control: QAM 1, since a write waits for its data and others go before it
}
_ALL_PAGES = 0x3F
_CHANGEABLE = 1  # page control


def mode_sense(disk: Disk, command: scsi_cdb.ModeSense) -> bytes | None:
    """Return mode parameters; None for a page that does not exist."""
    control, code = command.page >> 6, command.page & 0x3F
    codes = sorted(_MODE_PAGES) if code == _ALL_PAGES else [code]
    if not _MODE_PAGES.keys() >= set(codes) or command.subpage_code not in (0x00, 0xFF):
        return None
    pages = b""
    for each in codes:
        parameters = _MODE_PAGES[each]
        pages += bytes((each, len(parameters))) + (bytes(len(parameters)) if control == _CHANGEABLE else parameters)
    if command.flags & scsi_cdb.DISABLE_BLOCK_DESCRIPTORS:
        descriptor = b""
    else:
        descriptor = struct.pack(">II", min(disk.blocks, 0xFFFF_FFFF), disk.block_octets)
    specific = (0x80 if disk.read_only else 0) | 0x10  # WP; DPOFUA: FUA is obeyed
    rest = descriptor + pages
    if command.operation is Operation.MODE_SENSE_6:
        return struct.pack(">BBBB", 3 + len(rest), 0, specific, len(descriptor)) + rest
    return struct.pack(">HBBxxH", 6 + len(rest), 0, specific, len(descriptor)) + rest


def read_capacity_10(disk: Disk) -> bytes:
    """Return the last LBA, FFFFFFFFh where it has more bits, and the block length."""
    return struct.pack(">II", min(disk.blocks - 1, 0xFFFF_FFFF), disk.block_octets)


def read_capacity_16(disk: Disk) -> bytes:
    """Return the last LBA, the block length and whether the unit is thin."""
    provisioning = 0xC000 if disk.provisions else 0x0000  # LBPME, LBPRZ
    return struct.pack(">QIBBH16x", disk.blocks - 1, disk.block_octets, 0, 0, provisioning)


def report_luns(luns: tuple[int, ...], select: int) -> bytes | None:
    """Return the LUN list; None for a selection that does not exist.  There are no well-known units to list."""
    if select not in (0x00, 0x01, 0x02):
        return None
    listed = () if select == 0x01 else sorted(luns)
    return struct.pack(">I4x", 8 * len(listed)) + b"".join(struct.pack(">Q", lun_field(lun)) for lun in listed)


# The commands, each with every bit set that is looked at: its encoding is the CDB usage data (SPC-4 r37 6.35.3).
_ONES_16, _ONES_32, _ONES_64 = 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_MEDIUM = {
    scsi_cdb.DPO | scsi_cdb.FUA: ("READ_10", "READ_12", "READ_16", "WRITE_10", "WRITE_12", "WRITE_16"),
    scsi_cdb.DPO | scsi_cdb.BYTE_CHECK: ("VERIFY_10", "VERIFY_12", "VERIFY_16"),
    0: ("READ_6", "WRITE_6", "PRE_FETCH_10", "PRE_FETCH_16"),
    0x02: ("SYNCHRONIZE_CACHE_10", "SYNCHRONIZE_CACHE_16"),
    scsi_cdb.SAME_UNMAP: ("WRITE_SAME_10",),
    scsi_cdb.SAME_UNMAP | scsi_cdb.SAME_NO_DATA: ("WRITE_SAME_16",),
}


def _every_bit(name: str, flags: int) -> BlockCommand:
    operation = Operation[name]
    lba = {6: 0x1FFFFF, 16: _ONES_64}.get(scsi_cdb.cdb_octets(operation), _ONES_32)
    return BlockCommand(operation, flags, lba, {10: _ONES_16, 6: 0xFF}.get(scsi_cdb.cdb_octets(operation), _ONES_32))


_SUPPORTED: tuple[scsi_cdb.Cdb, ...] = (
    *(_every_bit(name, flags) for flags, names in _MEDIUM.items() for name in names),
    scsi_cdb.Plain(Operation.TEST_UNIT_READY),
    scsi_cdb.Plain(Operation.READ_CAPACITY_10),
    scsi_cdb.RequestSense(0x01, 0xFF),
    scsi_cdb.Inquiry(0x01, 0xFF, _ONES_16),
    scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, 0xFF, 0xFF, 0xFF),
    scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0x08, 0xFF, 0xFF, _ONES_16),
    scsi_cdb.StartStopUnit(0x01, 0x01),
    scsi_cdb.Unmap(0x00, _ONES_16),
    scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, _ONES_32),
    scsi_cdb.ReportLuns(0xFF, _ONES_32),
    scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, 0x87, 0xFF, _ONES_16, _ONES_32),
)


def _usage() -> dict[tuple[int, int | None], bytes]:
    usage = {}
    for command in _SUPPORTED:
        octets = scsi_cdb.encode(command)
        action = getattr(command, "service_action", None)
        usage[octets[0], action] = octets[: scsi_cdb.cdb_octets(octets[0])]
    return dict(sorted(usage.items(), key=lambda item: item[0][0]))


_USAGE = _usage()
_TIMEOUTS = struct.pack(">H10x", 10)  # "no time-out is named"


def supported_operation_codes(disk: Disk, command: scsi_cdb.MaintenanceIn) -> bytes | None:
    """Return all commands, or one; None when the request contradicts itself (SPC-4 r37 table 313)."""
    supported = {key: usage for key, usage in _USAGE.items() if disk.thin or key[0] != Operation.UNMAP}
    timeouts = _TIMEOUTS if command.options & 0x80 else b""
    option = command.options & 0x07
    operation, action = command.requested_operation, command.requested_service_action
    if option == 0:
        listed = b"".join(
            struct.pack(">BxHxBH", code, service or 0, (service is not None) | bool(timeouts) << 1, len(usage))
            + timeouts
            for (code, service), usage in supported.items()
        )
        return struct.pack(">I", len(listed)) + listed
    has_actions = any(code == operation and service is not None for code, service in supported)
    known = any(code == operation for code, _ in supported)
    if option > 3 or (option == 1 and has_actions) or (option == 2 and known and not has_actions):
        return None
    usage = supported.get((operation, action if has_actions else None))
    if usage is None:
        return bytes((0, 0x01, 0, 0))
    return struct.pack(">BBH", 0, 0x03 | bool(timeouts) << 7, len(usage)) + usage + timeouts
