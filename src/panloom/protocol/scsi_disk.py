"""A disk's SCSI commands, decided but not carried out (SPC-4 r37, SBC-4 r22).

``LogicalUnits.interpret`` reads a command descriptor block and returns a verdict.  Who holds the medium carries it out:

    Data        GOOD, with these octets for the initiator
    Sense       CHECK CONDITION
    Read        send these octets of the medium
    Store       take so many octets from the initiator, write them (or compare them) as they arrive
    Wants       take so many octets from the initiator, then ``then(octets)`` is the verdict
    Flush       make what was written durable
    Deallocate  make these ranges read as zeroes
    Fill        write a block again and again

Every range in a verdict is inside the unit, and none of them changes a read-only unit.

A unit attention is pending for each unit when a session begins (29h/00h): firmware and kernels expect to be told once
that the disk may be another than before.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from panloom.errors import MalformedError
from panloom.protocol import scsi_pages
from panloom.protocol.scsi_pages import Disk
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense


class Data(msgspec.Struct, frozen=True, gc=False):
    """GOOD, with these octets, none included."""

    octets: bytes = b""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Send octets of the medium; ``flush`` first, so that they come from stable storage (FUA)."""

    offset: int
    octets: int
    flush: bool


class Store(msgspec.Struct, frozen=True, gc=False):
    """Take octets for the medium; ``flush`` once all are written (FUA).  ``compare``: write nothing, compare them."""

    offset: int
    octets: int
    flush: bool = False
    compare: bool = False


class Flush(msgspec.Struct, frozen=True, gc=False):
    """Make all earlier writes durable."""


class Deallocate(msgspec.Struct, frozen=True, gc=False):
    """Make each range, offset and octets, read as zeroes."""

    ranges: tuple[tuple[int, int], ...]


class Fill(msgspec.Struct, frozen=True, gc=False):
    """Write ``block`` from an offset on, over so many octets."""

    offset: int
    octets: int
    block: bytes


class Wants(msgspec.Struct, frozen=True, gc=False):
    """Take octets from the initiator (at most 64 KiB); the verdict on them is ``then(octets)``."""

    octets: int
    then: "Callable[[bytes], Verdict]"


Verdict: TypeAlias = Data | Sense | Read | Store | Flush | Deallocate | Fill | Wants

_GOOD = Data()
_READS = frozenset({Operation.READ_6, Operation.READ_10, Operation.READ_12, Operation.READ_16})
_WRITES = frozenset({Operation.WRITE_6, Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16})
_VERIFIES = frozenset({Operation.VERIFY_10, Operation.VERIFY_12, Operation.VERIFY_16})
_SYNCHRONIZES = frozenset({Operation.SYNCHRONIZE_CACHE_10, Operation.SYNCHRONIZE_CACHE_16})
_SAMES = frozenset({Operation.WRITE_SAME_10, Operation.WRITE_SAME_16})


class LogicalUnits:
    """The units of one target as one session sees them: their descriptions, and what it has not been told yet."""

    def __init__(self, disks: Mapping[int, Disk]) -> None:
        self.disks = dict(disks)
        self.attentions: dict[int, deque[Sense]] = {}
        for lun in self.disks:
            self.raise_attention(lun, scsi_sense.POWER_ON)

    def raise_attention(self, lun: int, sense: Sense) -> None:
        """Tell the initiator of an event with its next command to the unit; the same one is told once."""
        pending = self.attentions.setdefault(lun, deque())
        if sense not in pending:
            pending.append(sense)

    def resize(self, lun: int, blocks: int) -> None:
        """Let a unit have that many blocks, and tell the initiator so (SBC-4 r22 4.7)."""
        self.disks[lun] = msgspec.structs.replace(self.disks[lun], blocks=blocks)
        self.raise_attention(lun, scsi_sense.CAPACITY_CHANGED)

    def _take_attention(self, lun: int) -> Sense | None:
        pending = self.attentions.get(lun)
        if not pending:
            return None
        sense = pending.popleft()
        if not pending:
            del self.attentions[lun]
        return sense

    def interpret(self, lun: int | None, octets: bytes) -> Verdict:
        """Return what a command of 16 octets means for a LUN; None is a LUN in a form that names no unit."""
        command = scsi_cdb.decode(octets)
        disk = None if lun is None else self.disks.get(lun)
        match command:
            case scsi_cdb.ReportLuns(select, allocation) if lun == 0 or disk:
                return _cut(scsi_pages.report_luns(tuple(self.disks), select), allocation)
            case scsi_cdb.Inquiry() if disk is None:
                return _inquiry(None, command)
            case scsi_cdb.RequestSense(_, allocation) if disk is None:
                return _cut(scsi_sense.encode(scsi_sense.NO_SUCH_UNIT), allocation)
        if disk is None or lun is None:
            return scsi_sense.NO_SUCH_UNIT
        match command:
            case scsi_cdb.Inquiry():
                return _inquiry(disk, command)
            case scsi_cdb.RequestSense(flags, allocation):
                if flags & 0x01:  # DESC: descriptor format, which no unit here speaks
                    return scsi_sense.INVALID_FIELD_IN_CDB
                return _cut(scsi_sense.encode(self._take_attention(lun) or scsi_sense.NOTHING), allocation)
        attention = self._take_attention(lun)
        return attention or _interpret_ready(disk, command)


def _interpret_ready(disk: Disk, command: scsi_cdb.Cdb | None) -> Verdict:
    match command:
        case BlockCommand():
            return _interpret_block(disk, command)
        case scsi_cdb.Plain(Operation.TEST_UNIT_READY):
            return _GOOD
        case scsi_cdb.Plain(Operation.READ_CAPACITY_10):
            return Data(scsi_pages.read_capacity_10(disk))
        case scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, _, allocation):
            return _cut(scsi_pages.read_capacity_16(disk), allocation)
        case scsi_cdb.ModeSense(_, _, page, _, allocation):
            if page >> 6 == 3:  # saved values
                return scsi_sense.SAVING_NOT_SUPPORTED
            return _cut(scsi_pages.mode_sense(disk, command), allocation)
        case scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES, _, _, _, allocation):
            return _cut(scsi_pages.supported_operation_codes(disk, command), allocation)
        case scsi_cdb.ServiceActionIn16() | scsi_cdb.MaintenanceIn():
            return scsi_sense.INVALID_FIELD_IN_CDB
        case scsi_cdb.StartStopUnit(_, power):
            if power & 0xF2:  # a power condition, or LOEJ: nothing here sleeps or can be taken out
                return scsi_sense.INVALID_FIELD_IN_CDB
            return _GOOD if power & 0x01 else Flush()
        case scsi_cdb.Unmap(flags, octets):
            return _unmap(disk, flags, octets)
        case _:
            return scsi_sense.INVALID_OPERATION


def _cut(octets: bytes | None, allocation_length: int) -> Verdict:
    return scsi_sense.INVALID_FIELD_IN_CDB if octets is None else Data(octets[:allocation_length])


def _inquiry(disk: Disk | None, command: scsi_cdb.Inquiry) -> Verdict:
    if not command.flags & scsi_cdb.ENABLE_VITAL_PAGE:
        octets = scsi_pages.inquiry(disk) if command.page_code == 0 else None
    else:
        octets = scsi_pages.vital_product_data(disk, command.page_code) if disk else None
    return _cut(octets, command.allocation_length)


def _interpret_block(disk: Disk, command: BlockCommand) -> Verdict:
    operation, flags = command.operation, command.flags
    changes = operation in _WRITES or operation in _SAMES
    protected = not (operation in _SYNCHRONIZES or operation in (Operation.PRE_FETCH_10, Operation.PRE_FETCH_16))
    if protected and flags & scsi_cdb.PROTECT:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not _inside(disk, command.lba, command.blocks):
        return scsi_sense.LBA_OUT_OF_RANGE
    if changes and disk.read_only:
        return scsi_sense.WRITE_PROTECTED
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets
    if operation in _READS:
        return Read(offset, octets, bool(flags & scsi_cdb.FUA))
    if operation in _WRITES:
        return Store(offset, octets, flush=bool(flags & scsi_cdb.FUA))
    if operation in _SAMES:
        return _write_same(disk, command)
    if operation in _SYNCHRONIZES:
        return Flush()  # of everything: a volume knows no finer
    if operation in _VERIFIES and flags & scsi_cdb.BYTE_CHECK:
        if flags & scsi_cdb.BYTE_CHECK != 0x02:
            return scsi_sense.INVALID_FIELD_IN_CDB
        return Store(offset, octets, compare=True)
    return _GOOD  # VERIFY without data, PRE-FETCH: the range is there


def _inside(disk: Disk, lba: int, blocks: int) -> bool:
    return lba + blocks <= disk.blocks


def _write_same(disk: Disk, command: BlockCommand) -> Verdict:
    no_data = command.operation is Operation.WRITE_SAME_16 and command.flags & scsi_cdb.SAME_NO_DATA
    allowed = (scsi_cdb.SAME_UNMAP if disk.thin else 0) | (scsi_cdb.SAME_NO_DATA if no_data else 0)
    if command.flags & ~allowed or not 0 < command.blocks <= scsi_pages.MAX_WRITE_SAME_BLOCKS:
        return scsi_sense.INVALID_FIELD_IN_CDB
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets

    def fill(block: bytes) -> Verdict:
        if command.flags & scsi_cdb.SAME_UNMAP and not any(block):
            return Deallocate(((offset, octets),))
        return Fill(offset, octets, block)

    return fill(bytes(disk.block_octets)) if no_data else Wants(disk.block_octets, fill)


def _unmap(disk: Disk, flags: int, parameter_list_length: int) -> Verdict:
    if not disk.thin:
        return scsi_sense.INVALID_OPERATION
    if flags & scsi_cdb.UNMAP_ANCHOR:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if disk.read_only:
        return scsi_sense.WRITE_PROTECTED

    def deallocate(parameters: bytes) -> Verdict:
        try:
            ranges = scsi_cdb.decode_unmap_list(parameters)
        except MalformedError:
            return scsi_sense.PARAMETER_LIST_LENGTH
        if len(ranges) > scsi_pages.MAX_UNMAP_DESCRIPTORS:
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
        if sum(blocks for _, blocks in ranges) > scsi_pages.MAX_UNMAP_BLOCKS:
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
        if not all(_inside(disk, lba, blocks) for lba, blocks in ranges if blocks):
            return scsi_sense.LBA_OUT_OF_RANGE
        octets = disk.block_octets
        return Deallocate(tuple((lba * octets, blocks * octets) for lba, blocks in ranges if blocks))

    if parameter_list_length == 0:
        return _GOOD
    if parameter_list_length < 8:
        return scsi_sense.PARAMETER_LIST_LENGTH
    return Wants(parameter_list_length, deallocate)
