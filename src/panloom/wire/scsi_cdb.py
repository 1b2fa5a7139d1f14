"""SCSI command descriptor blocks, octets to values and back (SPC-4 r37, SBC-4 r22).

    READ(6)  │ op │ LBA, 21 bits      │ blocks │ control │              0 blocks mean 256
        (10) │ op │ flags │ LBA 4     │ group │ blocks 2 │ control │
        (12) │ op │ flags │ LBA 4     │ blocks 4 │ group │ control │
        (16) │ op │ flags │ LBA 8     │ blocks 4 │ group │ control │

WRITE, VERIFY, WRITE SAME, SYNCHRONIZE CACHE and PRE-FETCH share these forms, and are all one ``BlockCommand``.  Over
iSCSI a block is padded to 16 octets.  ``flags`` is octet 1 as it stands; the bits' names are constants.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from panloom.errors import MalformedError

CDB_OCTETS = 16


class Operation(IntEnum):
    """Operation codes, named as in SPC-4 and SBC-4."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    READ_6 = 0x08
    WRITE_6 = 0x0A
    INQUIRY = 0x12
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    VERIFY_10 = 0x2F
    PRE_FETCH_10 = 0x34
    SYNCHRONIZE_CACHE_10 = 0x35
    WRITE_SAME_10 = 0x41
    UNMAP = 0x42
    MODE_SENSE_10 = 0x5A
    READ_16 = 0x88
    WRITE_16 = 0x8A
    VERIFY_16 = 0x8F
    PRE_FETCH_16 = 0x90
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    READ_12 = 0xA8
    WRITE_12 = 0xAA
    VERIFY_12 = 0xAF


READ_CAPACITY_16 = 0x10  # a service action of SERVICE_ACTION_IN_16
REPORT_SUPPORTED_OPERATION_CODES = 0x0C  # a service action of MAINTENANCE_IN

PROTECT = 0xE0  # flags: RDPROTECT, WRPROTECT, VRPROTECT
DPO, FUA = 0x10, 0x08  # READ, WRITE
BYTE_CHECK = 0x06  # VERIFY
SAME_UNMAP, SAME_NO_DATA = 0x08, 0x01  # WRITE SAME; the last only in (16)
UNMAP_ANCHOR = 0x01
ENABLE_VITAL_PAGE = 0x01  # INQUIRY
DISABLE_BLOCK_DESCRIPTORS = 0x08  # MODE SENSE


class BlockCommand(msgspec.Struct, frozen=True, gc=False):
    """READ, WRITE, VERIFY, WRITE SAME, SYNCHRONIZE CACHE or PRE-FETCH."""

    operation: Operation
    flags: int
    lba: int
    blocks: int


class Inquiry(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.6."""

    flags: int
    page_code: int
    allocation_length: int


class RequestSense(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.39."""

    flags: int
    allocation_length: int


class ModeSense(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.11 and 6.12; ``page`` is page control, two bits, and page code."""

    operation: Operation
    flags: int
    page: int
    subpage_code: int
    allocation_length: int


class StartStopUnit(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.31; ``power`` is octet 4 (power condition, LOEJ, START)."""

    flags: int
    power: int


class ReportLuns(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.33."""

    select_report: int
    allocation_length: int


class ServiceActionIn16(msgspec.Struct, frozen=True, gc=False):
    """READ CAPACITY(16) and its relatives, SBC-4 r22 5.21."""

    service_action: int
    lba: int
    allocation_length: int


class MaintenanceIn(msgspec.Struct, frozen=True, gc=False):
    """REPORT SUPPORTED OPERATION CODES and its relatives, SPC-4 r37 6.35."""

    service_action: int
    options: int
    requested_operation: int
    requested_service_action: int
    allocation_length: int


class Unmap(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.35."""

    flags: int
    parameter_list_length: int


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A command with nothing to say but its name: TEST UNIT READY, READ CAPACITY(10)."""

    operation: Operation


Cdb = (
    BlockCommand
    | Inquiry
    | RequestSense
    | ModeSense
    | StartStopUnit
    | ReportLuns
    | ServiceActionIn16
    | MaintenanceIn
    | Unmap
    | Plain
)

# Behind the operation code, in the order of the value's fields.
_BLOCK_FORMS: Final = {
    1: struct.Struct(">BIxHx6x"),
    4: struct.Struct(">BQIxx"),
    5: struct.Struct(">BIIxx4x"),
}  # by group code, the top three bits of the operation code (SPC-4 r37 4.2.5.1); group 2 is as 1
_BLOCK_FORMS[2] = _BLOCK_FORMS[1]
_MODE_SENSE: Final = {
    Operation.MODE_SENSE_6: struct.Struct(">BBBBx10x"),
    Operation.MODE_SENSE_10: struct.Struct(">BBB3xHx6x"),
}
_FORMS: Final[dict[Operation, tuple[type[msgspec.Struct], struct.Struct]]] = {
    Operation.INQUIRY: (Inquiry, struct.Struct(">BBHx10x")),
    Operation.REQUEST_SENSE: (RequestSense, struct.Struct(">BxxBx10x")),
    Operation.START_STOP_UNIT: (StartStopUnit, struct.Struct(">BxxBx10x")),
    Operation.REPORT_LUNS: (ReportLuns, struct.Struct(">xB3xIxx4x")),
    Operation.SERVICE_ACTION_IN_16: (ServiceActionIn16, struct.Struct(">BQIxx")),
    Operation.MAINTENANCE_IN: (MaintenanceIn, struct.Struct(">BBBHIxx4x")),
    Operation.UNMAP: (Unmap, struct.Struct(">B5xHx6x")),
}
_BLOCK_OPERATIONS: Final = frozenset(
    operation
    for operation in Operation
    if operation.name.startswith(("READ_1", "WRITE_", "VERIFY_", "SYNCHRONIZE_CACHE_", "PRE_FETCH_"))
)
_SIX: Final = frozenset({Operation.READ_6, Operation.WRITE_6})
_OPERATIONS: Final = {int(operation): operation for operation in Operation}
_OPERATION_OF: Final = {kind: operation for operation, (kind, _) in _FORMS.items()}


def decode(octets: bytes) -> Cdb | None:
    """Return the command in a padded block of 16 octets; None for an operation code that is not in ``Operation``.

    MalformedError for another length.
    """
    if len(octets) != CDB_OCTETS:
        raise MalformedError(f"a command descriptor block of {len(octets)} octets")
    operation = _OPERATIONS.get(octets[0])
    if operation is None:
        return None
    if operation in _SIX:
        lba = int.from_bytes(octets[1:4], "big") & 0x1FFFFF
        return BlockCommand(operation, 0, lba, octets[4] or 256)
    if operation in _BLOCK_OPERATIONS:
        return BlockCommand(operation, *_BLOCK_FORMS[octets[0] >> 5].unpack_from(octets, 1))
    if operation in _MODE_SENSE:
        return ModeSense(operation, *_MODE_SENSE[operation].unpack_from(octets, 1))
    if operation in _FORMS:
        kind, form = _FORMS[operation]
        fields = form.unpack_from(octets, 1)
        if kind in (ServiceActionIn16, MaintenanceIn):
            fields = (fields[0] & 0x1F, *fields[1:])
        return kind(*fields)  # type: ignore[return-value]
    return Plain(operation)


def encode(cdb: Cdb) -> bytes:
    """Return the command's 16 octets."""
    match cdb:
        case BlockCommand(operation, flags, lba, blocks) if operation in _SIX:
            return struct.pack(">BBHBx10x", operation, flags | lba >> 16, lba & 0xFFFF, blocks & 0xFF)
        case BlockCommand(operation, flags, lba, blocks):
            rest = _BLOCK_FORMS[operation >> 5].pack(flags, lba, blocks)
        case ModeSense(operation):
            rest = _MODE_SENSE[operation].pack(*msgspec.structs.astuple(cdb)[1:])
        case Plain(operation):
            rest = bytes(15)
        case _:
            operation = _OPERATION_OF[type(cdb)]
            rest = _FORMS[operation][1].pack(*msgspec.structs.astuple(cdb))
    return bytes((operation,)) + rest


def cdb_octets(operation: int) -> int:
    """Return the length of a command descriptor block by its group code (SPC-4 r37 4.2.5.1)."""
    return (6, 10, 10, 6, 16, 12, 6, 6)[operation >> 5]


def decode_unmap_list(octets: bytes) -> tuple[tuple[int, int], ...]:
    """Return (LBA, blocks) of each descriptor in UNMAP's parameter list (SBC-4 r22 5.35.2).

    MalformedError when the list's own lengths leave it; fewer than 8 octets are an empty list.
    """
    if len(octets) < 8:
        return ()
    data_length, descriptors_length = struct.unpack_from(">HH", octets)
    if data_length + 2 > len(octets) or descriptors_length + 8 > len(octets):
        raise MalformedError("an UNMAP parameter list that is shorter than it says")
    return tuple(struct.iter_unpack(">QI4x", octets[8 : 8 + descriptors_length - descriptors_length % 16]))


def encode_unmap_list(ranges: tuple[tuple[int, int], ...]) -> bytes:
    """Return UNMAP's parameter list for ranges of (LBA, blocks)."""
    octets = 16 * len(ranges)
    return struct.pack(">HH4x", octets + 6, octets) + b"".join(struct.pack(">QI4x", *range_) for range_ in ranges)
