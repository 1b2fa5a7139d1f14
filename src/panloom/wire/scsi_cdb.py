"""SCSI command descriptor blocks, octets to values and back (SPC-4 r37, SBC-4 r22, MMC-6 r02g).

    READ(6)  │ op │ LBA, 21 bits      │ blocks │ control │              0 blocks mean 256
        (10) │ op │ flags │ LBA 4     │ group │ blocks 2 │ control │
        (12) │ op │ flags │ LBA 4     │ blocks 4 │ group │ control │
        (16) │ op │ flags │ LBA 8     │ blocks 4 │ group │ control │

WRITE, VERIFY, WRITE AND VERIFY, WRITE SAME, ORWRITE, SYNCHRONIZE CACHE and PRE-FETCH share these forms, and are all one
``BlockCommand``.  Over iSCSI a block is padded to 16 octets.  ``flags`` is octet 1 as it stands; the bits' names are
constants.
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
    MODE_SELECT_6 = 0x15
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    WRITE_AND_VERIFY_10 = 0x2E
    VERIFY_10 = 0x2F
    PRE_FETCH_10 = 0x34
    SYNCHRONIZE_CACHE_10 = 0x35
    READ_DEFECT_DATA_10 = 0x37
    WRITE_SAME_10 = 0x41
    UNMAP = 0x42
    SANITIZE = 0x48
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    READ_TOC = 0x43
    GET_CONFIGURATION = 0x46
    GET_EVENT_STATUS_NOTIFICATION = 0x4A
    READ_DISC_INFORMATION = 0x51
    READ_TRACK_INFORMATION = 0x52
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    EXTENDED_COPY = 0x83
    RECEIVE_COPY_RESULTS = 0x84
    READ_16 = 0x88
    COMPARE_AND_WRITE = 0x89
    WRITE_16 = 0x8A
    ORWRITE_16 = 0x8B
    WRITE_AND_VERIFY_16 = 0x8E
    VERIFY_16 = 0x8F
    PRE_FETCH_16 = 0x90
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    WRITE_ATOMIC_16 = 0x9C
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    READ_12 = 0xA8
    WRITE_12 = 0xAA
    WRITE_AND_VERIFY_12 = 0xAE
    VERIFY_12 = 0xAF
    READ_DEFECT_DATA_12 = 0xB7
    MECHANISM_STATUS = 0xBD


READ_CAPACITY_16, GET_LBA_STATUS = 0x10, 0x12  # service actions of SERVICE_ACTION_IN_16
REPORT_TARGET_PORT_GROUPS = 0x0A  # service actions of MAINTENANCE_IN
REPORT_SUPPORTED_OPERATION_CODES, REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS = 0x0C, 0x0D
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)  # of PERSISTENT_RESERVE_IN
(
    REGISTER,
    RESERVE,
    RELEASE,
    CLEAR,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER_AND_IGNORE_EXISTING_KEY,
    REGISTER_AND_MOVE,
) = range(8)  # of PERSISTENT_RESERVE_OUT
COPY_STATUS, RECEIVE_DATA, OPERATING_PARAMETERS, FAILED_SEGMENT_DETAILS = 0, 1, 3, 4  # of RECEIVE_COPY_RESULTS
OVERWRITE, BLOCK_ERASE, CRYPTOGRAPHIC_ERASE, EXIT_FAILURE_MODE = 0x01, 0x02, 0x03, 0x1F  # of SANITIZE

PROTECT = 0xE0  # flags: RDPROTECT, WRPROTECT, VRPROTECT
DPO, FUA = 0x10, 0x08  # READ, WRITE
BYTE_CHECK = 0x06  # VERIFY
SAME_ANCHOR, SAME_UNMAP, SAME_NO_DATA = 0x10, 0x08, 0x01  # WRITE SAME; the last only in (16)
UNMAP_ANCHOR = 0x01
ENABLE_VITAL_PAGE = 0x01  # INQUIRY
DISABLE_BLOCK_DESCRIPTORS = 0x08  # MODE SENSE
PAGE_FORMAT, SAVE_PAGES = 0x10, 0x01  # MODE SELECT
SANITIZE_IMMEDIATE, SANITIZE_RESERVED, UNRESTRICTED_EXIT = 0x80, 0x40, 0x20  # SANITIZE


class BlockCommand(msgspec.Struct, frozen=True, gc=False):
    """READ, WRITE, WRITE AND VERIFY, VERIFY, WRITE SAME, ORWRITE, SYNCHRONIZE CACHE or PRE-FETCH."""

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
    data_format: int = 0  # of REPORT TARGET PORT GROUPS; 1: with an extended header


class Unmap(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.35."""

    flags: int
    parameter_list_length: int


class CompareAndWrite(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.3."""

    flags: int
    lba: int
    blocks: int


class WriteAtomic(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.48; ``boundary``: blocks between the places where the write may tear, 0 for none."""

    flags: int
    lba: int
    boundary: int
    blocks: int


class ModeSelect(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.9 and 6.10."""

    operation: Operation
    flags: int
    parameter_list_length: int


class PreventAllowMediumRemoval(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.15."""

    prevent: int


class ReadDefectData(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.22 and 5.23; ``flags``: lists and format."""

    operation: Operation
    flags: int
    allocation_length: int


class LogSense(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.8; ``page`` is page control, two bits, and page code."""

    flags: int
    page: int
    subpage_code: int
    pointer: int
    allocation_length: int


class Sanitize(msgspec.Struct, frozen=True, gc=False):
    """SBC-4 r22 5.30; ``options`` is octet 1: IMMED, AUSE, service action; ``reserved`` the five octets behind it."""

    options: int
    reserved: bytes
    parameter_list_length: int

    @property
    def service_action(self) -> int:
        """Return what is to be done."""
        return self.options & 0x1F


class PersistentReserveIn(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.15."""

    service_action: int
    allocation_length: int


class PersistentReserveOut(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.16; ``scope_type`` is both of them, four bits each."""

    service_action: int
    scope_type: int
    parameter_list_length: int


class ExtendedCopy(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.4: LID1 with service action 0."""

    service_action: int
    parameter_list_length: int


class ReceiveCopyResults(msgspec.Struct, frozen=True, gc=False):
    """SPC-4 r37 6.20 to 6.23."""

    service_action: int
    list_identifier: int
    allocation_length: int


class ReadToc(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6); ``track``: the first that is wanted, or a session's number."""

    flags: int
    format: int
    track: int
    allocation_length: int


class GetConfiguration(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6); ``option``: all features from the starting one on, the current ones of them, or that one."""

    option: int
    starting_feature: int
    allocation_length: int


class GetEventStatusNotification(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6)."""

    flags: int
    classes: int
    allocation_length: int


class ReadDiscInformation(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6)."""

    kind: int
    allocation_length: int


class ReadTrackInformation(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6); ``address`` is an LBA, a track's number or a session's, by ``kind``."""

    kind: int
    address: int
    allocation_length: int


class MechanismStatus(msgspec.Struct, frozen=True, gc=False):
    """Of a disc (MMC-6)."""

    allocation_length: int


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A command with nothing to say but its name: TEST UNIT READY, READ CAPACITY(10), RESERVE(6), RELEASE(6)."""

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
    | CompareAndWrite
    | WriteAtomic
    | ModeSelect
    | PreventAllowMediumRemoval
    | ReadDefectData
    | LogSense
    | Sanitize
    | PersistentReserveIn
    | PersistentReserveOut
    | ExtendedCopy
    | ReceiveCopyResults
    | ReadToc
    | GetConfiguration
    | GetEventStatusNotification
    | ReadDiscInformation
    | ReadTrackInformation
    | MechanismStatus
    | Plain
)

# Behind the operation code, in the order of the value's fields.
_BLOCK_FORMS: Final = {
    1: struct.Struct(">BIxHx6x"),
    4: struct.Struct(">BQIxx"),
    5: struct.Struct(">BIIxx4x"),
}  # by group code, the top three bits of the operation code (SPC-4 r37 4.2.5.1); group 2 is as 1
_BLOCK_FORMS[2] = _BLOCK_FORMS[1]
_VARIANTS: Final[dict[Operation, tuple[type[msgspec.Struct], struct.Struct]]] = {
    Operation.MODE_SENSE_6: (ModeSense, struct.Struct(">BBBBx10x")),
    Operation.MODE_SENSE_10: (ModeSense, struct.Struct(">BBB3xHx6x")),
    Operation.MODE_SELECT_6: (ModeSelect, struct.Struct(">BxxBx10x")),
    Operation.MODE_SELECT_10: (ModeSelect, struct.Struct(">B5xHx6x")),
    Operation.READ_DEFECT_DATA_10: (ReadDefectData, struct.Struct(">xB4xHx6x")),
    Operation.READ_DEFECT_DATA_12: (ReadDefectData, struct.Struct(">B4xIxx4x")),
}  # values that say their operation
_FORMS: Final[dict[Operation, tuple[type[msgspec.Struct], struct.Struct]]] = {
    Operation.INQUIRY: (Inquiry, struct.Struct(">BBHx10x")),
    Operation.REQUEST_SENSE: (RequestSense, struct.Struct(">BxxBx10x")),
    Operation.START_STOP_UNIT: (StartStopUnit, struct.Struct(">BxxBx10x")),
    Operation.REPORT_LUNS: (ReportLuns, struct.Struct(">xB3xIxx4x")),
    Operation.SERVICE_ACTION_IN_16: (ServiceActionIn16, struct.Struct(">BQIxx")),
    Operation.MAINTENANCE_IN: (MaintenanceIn, struct.Struct(">BBBHIxx4x")),
    Operation.UNMAP: (Unmap, struct.Struct(">B5xHx6x")),
    Operation.COMPARE_AND_WRITE: (CompareAndWrite, struct.Struct(">BQ3xBxx")),
    Operation.WRITE_ATOMIC_16: (WriteAtomic, struct.Struct(">BQHHxx")),
    Operation.PREVENT_ALLOW_MEDIUM_REMOVAL: (PreventAllowMediumRemoval, struct.Struct(">3xBx10x")),
    Operation.LOG_SENSE: (LogSense, struct.Struct(">BBBxHHx6x")),
    Operation.SANITIZE: (Sanitize, struct.Struct(">B5sHx6x")),
    Operation.PERSISTENT_RESERVE_IN: (PersistentReserveIn, struct.Struct(">B5xHx6x")),
    Operation.PERSISTENT_RESERVE_OUT: (PersistentReserveOut, struct.Struct(">BBxxIx6x")),
    Operation.EXTENDED_COPY: (ExtendedCopy, struct.Struct(">B8xIxx")),
    Operation.RECEIVE_COPY_RESULTS: (ReceiveCopyResults, struct.Struct(">BB7xIxx")),
    Operation.READ_TOC: (ReadToc, struct.Struct(">BB3xBHx6x")),
    Operation.GET_CONFIGURATION: (GetConfiguration, struct.Struct(">BH3xHx6x")),
    Operation.GET_EVENT_STATUS_NOTIFICATION: (GetEventStatusNotification, struct.Struct(">BxxBxxHx6x")),
    Operation.READ_DISC_INFORMATION: (ReadDiscInformation, struct.Struct(">B5xHx6x")),
    Operation.READ_TRACK_INFORMATION: (ReadTrackInformation, struct.Struct(">BIxHx6x")),
    Operation.MECHANISM_STATUS: (MechanismStatus, struct.Struct(">7xHxx4x")),
}
_BLOCK_OPERATIONS: Final = frozenset(
    operation
    for operation in Operation
    if operation.name.startswith(("READ_1", "WRITE_", "VERIFY_", "SYNCHRONIZE_CACHE_", "PRE_FETCH_", "ORWRITE_"))
    and operation is not Operation.WRITE_ATOMIC_16
)
_SIX: Final = frozenset({Operation.READ_6, Operation.WRITE_6})
_OPERATIONS: Final = {int(operation): operation for operation in Operation}
_WITH_SERVICE_ACTION: Final = (
    ServiceActionIn16,
    PersistentReserveIn,
    PersistentReserveOut,
    ExtendedCopy,
    ReceiveCopyResults,
)  # in the lower five bits of octet 1
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
    if operation in _VARIANTS:
        kind, form = _VARIANTS[operation]
        return kind(operation, *form.unpack_from(octets, 1))  # type: ignore[return-value]
    if operation in _FORMS:
        kind, form = _FORMS[operation]
        fields = form.unpack_from(octets, 1)
        if kind is MaintenanceIn:
            fields = (fields[0] & 0x1F, *fields[1:], fields[0] >> 5)
        elif kind in _WITH_SERVICE_ACTION:
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
        case ModeSense(operation) | ModeSelect(operation) | ReadDefectData(operation):
            rest = _VARIANTS[operation][1].pack(*msgspec.structs.astuple(cdb)[1:])
        case Plain(operation):
            rest = bytes(15)
        case MaintenanceIn():
            operation = Operation.MAINTENANCE_IN
            action, *fields, data_format = msgspec.structs.astuple(cdb)
            rest = _FORMS[operation][1].pack(data_format << 5 | action, *fields)
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
