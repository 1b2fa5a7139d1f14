"""The commands that read, write, compare or give back blocks of a direct access device (SBC-4 r22 section 5).

Each function returns a verdict whose every range is inside the unit; what cannot be done whole is refused before any
octet moves.  Where the unit has no write cache, or FUA is set, the verdict ends with a flush.
"""

from panloom.errors import MalformedError
from panloom.protocol import scsi_pages
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit
from panloom.protocol.scsi_verdicts import (
    GOOD,
    Check,
    CompareAndWrite,
    Data,
    Deallocate,
    Deed,
    Fill,
    Flush,
    LookUp,
    Read,
    Store,
    Then,
    Use,
    Verdict,
    Wants,
    WriteAtomic,
)
from panloom.wire import scsi_answers, scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense

_READS = frozenset({Operation.READ_6, Operation.READ_10, Operation.READ_12, Operation.READ_16})
_WRITES = frozenset({Operation.WRITE_6, Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16})
_VERIFIES = frozenset({Operation.VERIFY_10, Operation.VERIFY_12, Operation.VERIFY_16})
_WRITE_VERIFIES = frozenset(
    {Operation.WRITE_AND_VERIFY_10, Operation.WRITE_AND_VERIFY_12, Operation.WRITE_AND_VERIFY_16}
)
_SYNCHRONIZES = frozenset({Operation.SYNCHRONIZE_CACHE_10, Operation.SYNCHRONIZE_CACHE_16})
_PREFETCHES = frozenset({Operation.PRE_FETCH_10, Operation.PRE_FETCH_16})
_SAMES = frozenset({Operation.WRITE_SAME_10, Operation.WRITE_SAME_16})
_CHANGES = _WRITES | _WRITE_VERIFIES | _SAMES | {Operation.ORWRITE_16}
_COMPARE_ALL, _COMPARE_ONE = 0x02, 0x06  # BYTCHK 01b and 11b
_MOST_RUNS = 64  # of a GET LBA STATUS


def interpret(disk: Disk, unit: LogicalUnit, command: BlockCommand) -> Verdict:
    """Return what a command of the common form means."""
    operation, flags = command.operation, command.flags
    if not (operation in _SYNCHRONIZES or operation in _PREFETCHES) and flags & scsi_cdb.PROTECT:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not _inside(disk, command.lba, command.blocks):
        return scsi_sense.LBA_OUT_OF_RANGE
    if operation in _CHANGES and (refused := _protected(disk, unit)):
        return refused
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets
    if operation in _SYNCHRONIZES:
        return Flush()  # of everything: a volume knows no finer
    if operation in _PREFETCHES:
        return GOOD
    if operation in _SAMES:
        return _write_same(disk, unit, command)
    if command.blocks > scsi_pages.MAX_TRANSFER_BLOCKS:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if operation in _VERIFIES:
        return _verify(disk, command)
    if operation in _WRITE_VERIFIES:
        if flags & _COMPARE_ONE not in (0, _COMPARE_ALL):
            return scsi_sense.INVALID_FIELD_IN_CDB
        return Store(offset, octets, flush=True, use=Use.VERIFY)
    flush = bool(flags & scsi_cdb.FUA)
    if operation in _READS:
        return Read(offset, octets, flush)
    use = Use.COMBINE if operation is Operation.ORWRITE_16 else Use.WRITE
    return Store(offset, octets, flush or not unit.write_cache, use)


def _inside(disk: Disk, lba: int, blocks: int) -> bool:
    return lba + blocks <= disk.blocks


def _protected(disk: Disk, unit: LogicalUnit) -> Sense | None:
    return scsi_sense.WRITE_PROTECTED if disk.read_only else unit.cannot_write


def _durably(unit: LogicalUnit, deed: Deed, *, fua: bool = False) -> Verdict:
    return Then(deed, Flush) if fua or not unit.write_cache else deed


def _verify(disk: Disk, command: BlockCommand) -> Verdict:
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets
    match command.flags & _COMPARE_ONE:
        case 0:
            return Check(offset, octets) if octets else GOOD
        case 0x02:
            return Store(offset, octets, use=Use.COMPARE)
        case 0x06:
            return Wants(disk.block_octets, lambda block: Check(offset, octets, block)) if octets else GOOD
        case _:
            return scsi_sense.INVALID_FIELD_IN_CDB


def _write_same(disk: Disk, unit: LogicalUnit, command: BlockCommand) -> Verdict:
    no_data = command.operation is Operation.WRITE_SAME_16 and command.flags & scsi_cdb.SAME_NO_DATA
    # ANCHOR is refused, as the logical block provisioning page says (ANC_SUP 0).
    allowed = (scsi_cdb.SAME_UNMAP if disk.thin else 0) | (scsi_cdb.SAME_NO_DATA if no_data else 0)
    blocks = (
        command.blocks if command.blocks or disk.thin else disk.blocks - command.lba
    )  # 0: all that follow, but WSNZ
    if command.flags & ~allowed or blocks > scsi_pages.MAX_WRITE_SAME_BLOCKS or (disk.thin and not blocks):
        return scsi_sense.INVALID_FIELD_IN_CDB
    offset, octets = command.lba * disk.block_octets, blocks * disk.block_octets

    def fill(block: bytes) -> Verdict:
        if not octets:
            return GOOD
        if command.flags & scsi_cdb.SAME_UNMAP and not any(block):
            return _durably(unit, Deallocate(((offset, octets),)))
        return _durably(unit, Fill(offset, octets, block))

    return fill(bytes(disk.block_octets)) if no_data else Wants(disk.block_octets, fill, exact=True)


def unmap(disk: Disk, unit: LogicalUnit, command: scsi_cdb.Unmap) -> Verdict:
    """Return what UNMAP means (SBC-4 r22 5.35)."""
    if not (disk.thin or disk.read_only):
        return scsi_sense.INVALID_OPERATION
    if command.flags & scsi_cdb.UNMAP_ANCHOR:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if refused := _protected(disk, unit):
        return refused

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
        gone = tuple((lba * octets, blocks * octets) for lba, blocks in ranges if blocks)
        return _durably(unit, Deallocate(gone))

    if command.parameter_list_length == 0:
        return GOOD
    if command.parameter_list_length < 8:
        return scsi_sense.PARAMETER_LIST_LENGTH
    return Wants(command.parameter_list_length, deallocate)


def compare_and_write(disk: Disk, unit: LogicalUnit, command: scsi_cdb.CompareAndWrite) -> Verdict:
    """Return what COMPARE AND WRITE means (SBC-4 r22 5.3): nothing is compared before all of its data is here."""
    if command.flags & scsi_cdb.PROTECT:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not _inside(disk, command.lba, command.blocks):
        return scsi_sense.LBA_OUT_OF_RANGE
    if refused := _protected(disk, unit):
        return refused
    if command.blocks > scsi_pages.MAX_COMPARE_BLOCKS:
        return scsi_sense.INVALID_FIELD_IN_CDB
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets

    def swap(data: bytes) -> Verdict:
        if not data:
            return GOOD
        deed = CompareAndWrite(offset, data[:octets], data[octets:])
        return _durably(unit, deed, fua=bool(command.flags & scsi_cdb.FUA))

    return Wants(2 * octets, swap, exact=True)


def write_atomic(disk: Disk, unit: LogicalUnit, command: scsi_cdb.WriteAtomic) -> Verdict:
    """Return what WRITE ATOMIC(16) means (SBC-4 r22 5.48): durable with GOOD; no boundaries are supported."""
    if not disk.atomic:
        return scsi_sense.INVALID_OPERATION
    if command.flags & scsi_cdb.PROTECT:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not _inside(disk, command.lba, command.blocks):
        return scsi_sense.LBA_OUT_OF_RANGE
    if refused := _protected(disk, unit):
        return refused
    whole = not (command.lba % scsi_pages.ATOMIC_BLOCKS or command.blocks % scsi_pages.ATOMIC_BLOCKS)
    if command.boundary or not whole or command.blocks > scsi_pages.MAX_ATOMIC_BLOCKS:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not command.blocks:
        return GOOD
    offset, octets = command.lba * disk.block_octets, command.blocks * disk.block_octets

    def write(data: bytes) -> Verdict:
        return WriteAtomic(offset, data, unit.intend)

    return Wants(octets, write)


def lba_status(disk: Disk, command: scsi_cdb.ServiceActionIn16) -> Verdict:
    """Return what GET LBA STATUS means (SBC-4 r22 5.6): the first descriptor begins at the very block asked for."""
    if command.lba >= disk.blocks:
        return scsi_sense.LBA_OUT_OF_RANGE
    start, octets = command.lba * disk.block_octets, (disk.blocks - command.lba) * disk.block_octets
    runs: list[tuple[int, bool]] = []

    def tell() -> Verdict:
        found = tuple((octets // disk.block_octets, mapped) for octets, mapped in runs)
        return Data(scsi_answers.encode_lba_status(command.lba, found)[: command.allocation_length])

    if not disk.thin:
        runs.append((octets, True))
        return tell()
    most = max(1, min((command.allocation_length - 8) // 16, _MOST_RUNS))
    return Then(LookUp(start, octets, most, lambda octets, mapped: runs.append((octets, mapped))), tell)
