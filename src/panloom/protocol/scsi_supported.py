"""Which commands a unit has: REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS (SPC-4 r37 6.35, 6.37).

The commands are listed as values with every bit set that is looked at: such a value's encoding is its usage data.
"""

import struct
from collections.abc import Callable

from panloom.protocol.scsi_pages import DIRECT_ACCESS, OPTICAL, Disk
from panloom.wire import scsi_cdb
from panloom.wire.scsi_cdb import BlockCommand, Operation

_ONES_16, _ONES_32, _ONES_64 = 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_VERIFY_BITS = scsi_cdb.DPO | scsi_cdb.BYTE_CHECK
_DPO_FUA = scsi_cdb.DPO | scsi_cdb.FUA
_MEDIUM = {
    _DPO_FUA: ("READ_10", "READ_12", "READ_16", "WRITE_10", "WRITE_12", "WRITE_16", "ORWRITE_16"),
    _VERIFY_BITS: ("VERIFY_10", "VERIFY_12", "VERIFY_16"),
    scsi_cdb.DPO | 0x02: ("WRITE_AND_VERIFY_10", "WRITE_AND_VERIFY_12", "WRITE_AND_VERIFY_16"),
    0: ("READ_6", "WRITE_6", "PRE_FETCH_10", "PRE_FETCH_16"),
    0x02: ("SYNCHRONIZE_CACHE_10", "SYNCHRONIZE_CACHE_16"),
    scsi_cdb.SAME_UNMAP: ("WRITE_SAME_10",),
    scsi_cdb.SAME_UNMAP | scsi_cdb.SAME_NO_DATA: ("WRITE_SAME_16",),
}


def _every_bit(name: str, flags: int) -> BlockCommand:
    operation = Operation[name]
    lba = {6: 0x1FFFFF, 16: _ONES_64}.get(scsi_cdb.cdb_octets(operation), _ONES_32)
    return BlockCommand(operation, flags, lba, {10: _ONES_16, 6: 0xFF}.get(scsi_cdb.cdb_octets(operation), _ONES_32))


_DIRECT_ACCESS: tuple[scsi_cdb.Cdb, ...] = (
    *(_every_bit(name, flags) for flags, names in _MEDIUM.items() for name in names),
    scsi_cdb.Plain(Operation.TEST_UNIT_READY),
    scsi_cdb.Plain(Operation.READ_CAPACITY_10),
    scsi_cdb.Plain(Operation.RESERVE_6),
    scsi_cdb.Plain(Operation.RELEASE_6),
    scsi_cdb.RequestSense(0x01, 0xFF),
    scsi_cdb.Inquiry(0x01, 0xFF, _ONES_16),
    scsi_cdb.ModeSense(Operation.MODE_SENSE_6, 0x08, 0xFF, 0xFF, 0xFF),
    scsi_cdb.ModeSense(Operation.MODE_SENSE_10, 0x08, 0xFF, 0xFF, _ONES_16),
    scsi_cdb.ModeSelect(Operation.MODE_SELECT_6, 0x11, 0xFF),
    scsi_cdb.ModeSelect(Operation.MODE_SELECT_10, 0x11, _ONES_16),
    scsi_cdb.LogSense(0x01, 0xFF, 0xFF, _ONES_16, _ONES_16),
    scsi_cdb.StartStopUnit(0x01, 0xF3),
    scsi_cdb.PreventAllowMediumRemoval(0x03),
    scsi_cdb.ReadDefectData(Operation.READ_DEFECT_DATA_10, 0x1F, _ONES_16),
    scsi_cdb.ReadDefectData(Operation.READ_DEFECT_DATA_12, 0x1F, _ONES_32),
    scsi_cdb.Unmap(0x01, _ONES_16),
    scsi_cdb.CompareAndWrite(_DPO_FUA, _ONES_64, 0xFF),
    scsi_cdb.WriteAtomic(_DPO_FUA, _ONES_64, _ONES_16, _ONES_16),
    *(
        scsi_cdb.Sanitize(scsi_cdb.SANITIZE_IMMEDIATE | scsi_cdb.UNRESTRICTED_EXIT | action, bytes(5), _ONES_16)
        for action in (scsi_cdb.OVERWRITE, scsi_cdb.BLOCK_ERASE, scsi_cdb.EXIT_FAILURE_MODE)
    ),
    *(scsi_cdb.PersistentReserveIn(action, _ONES_16) for action in range(4)),
    *(scsi_cdb.PersistentReserveOut(action, 0xFF, _ONES_32) for action in range(8)),
    scsi_cdb.ExtendedCopy(0, _ONES_32),
    scsi_cdb.ReceiveCopyResults(scsi_cdb.COPY_STATUS, 0xFF, _ONES_32),
    scsi_cdb.ReceiveCopyResults(scsi_cdb.OPERATING_PARAMETERS, 0xFF, _ONES_32),
    scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, 0, _ONES_32),
    scsi_cdb.ServiceActionIn16(scsi_cdb.GET_LBA_STATUS, _ONES_64, _ONES_32),
    scsi_cdb.ReportLuns(0xFF, _ONES_32),
    scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_TARGET_PORT_GROUPS, 0, 0, 0, _ONES_32, 0x07),
    scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, 0x87, 0xFF, _ONES_16, _ONES_32),
    scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS, 0x80, 0, 0, _ONES_32),
)
_DISC = (
    scsi_cdb.ReadToc(0x02, 0x0F, 0xFF, _ONES_16),
    scsi_cdb.GetConfiguration(0x03, _ONES_16, _ONES_16),
    scsi_cdb.GetEventStatusNotification(0x01, 0xFF, _ONES_16),
    scsi_cdb.ReadDiscInformation(0x07, _ONES_16),
    scsi_cdb.ReadTrackInformation(0x03, _ONES_32, _ONES_16),
    scsi_cdb.MechanismStatus(_ONES_16),
)
_NOT_OF_A_DISC = (
    scsi_cdb.ModeSelect,
    scsi_cdb.ReadDefectData,
    scsi_cdb.Sanitize,
    scsi_cdb.Unmap,
    scsi_cdb.CompareAndWrite,
    scsi_cdb.WriteAtomic,
)
_OPTICAL = (*(each for each in _DIRECT_ACCESS if not isinstance(each, _NOT_OF_A_DISC)), *_DISC)
_NEEDS: dict[tuple[int, int | None], Callable[[Disk], bool]] = {
    (Operation.UNMAP, None): lambda disk: disk.thin or disk.read_only,  # there it is refused
    (Operation.SANITIZE, scsi_cdb.BLOCK_ERASE): lambda disk: disk.thin,
    (Operation.WRITE_ATOMIC_16, None): lambda disk: disk.atomic,
    (Operation.PREVENT_ALLOW_MEDIUM_REMOVAL, None): lambda disk: disk.removable,
}
_TIMEOUTS = struct.pack(">H10x", 10)  # "no time-out is named"


def _usage(commands: tuple[scsi_cdb.Cdb, ...]) -> dict[tuple[int, int | None], bytes]:
    usage = {}
    for command in commands:
        octets = scsi_cdb.encode(command)
        action = getattr(command, "service_action", None)
        usage[octets[0], action] = octets[: scsi_cdb.cdb_octets(octets[0])]
    return dict(sorted(usage.items(), key=lambda item: (item[0][0], item[0][1] or 0)))


_USAGES = {DIRECT_ACCESS: _usage(_DIRECT_ACCESS), OPTICAL: _usage(_OPTICAL)}


def operation_codes(disk: Disk, command: scsi_cdb.MaintenanceIn) -> bytes | None:
    """Return all commands, or one; None when the request contradicts itself (SPC-4 r37 table 313)."""
    usages = _USAGES.get(disk.device_type, {})
    supported = {key: usage for key, usage in usages.items() if key not in _NEEDS or _NEEDS[key](disk)}
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


def task_management_functions(command: scsi_cdb.MaintenanceIn) -> bytes:
    """Return ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET and TARGET RESET."""
    functions = bytes((0x80 | 0x40 | 0x10 | 0x08 | 0x02, 0, 0))
    if command.options & 0x80:  # REPD: the extended form, without time-outs
        return (functions + bytes((0x0C,))).ljust(16, b"\0")
    return functions + b"\0"
