"""A session's SCSI commands, decided but not carried out (SPC-4 r37, SBC-4 r22, SAM-5).

``LogicalUnits.interpret`` reads a command descriptor block and returns a verdict (``scsi_verdicts``).  What it asks, in
this order, and answers where the answer is no:

    is there such a unit?            INQUIRY, REPORT LUNS and REQUEST SENSE are answered all the same, and
    has the nexus been told          … of everything?  a unit attention, once
    is the unit reserved?            RESERVATION CONFLICT, by the command's class (scsi_rules)
    is it being sanitized?           02/041B
    is the medium in?                02/3A00
    then the command                 by device type: one function for each

A unit attention is pending for each unit when a session begins (29h/00h): firmware and kernels expect to be told once
that the disk may be another than before.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import msgspec

from panloom.protocol import (
    scsi_block,
    scsi_medium,
    scsi_modes,
    scsi_optical,
    scsi_pages,
    scsi_persistent,
    scsi_sanitize,
    scsi_supported,
)
from panloom.protocol.scsi_copy import Copies, CopyUnit
from panloom.protocol.scsi_pages import DIRECT_ACCESS, OPTICAL, Disk
from panloom.protocol.scsi_reservations import Access, NexusName
from panloom.protocol.scsi_rules import is_open_under_reserve, rule_of
from panloom.protocol.scsi_unit import LogicalUnit, Medium, Nexus
from panloom.protocol.scsi_verdicts import (
    GOOD,
    Busy,
    Conflict,
    Data,
    Deallocate,
    Fill,
    Flush,
    Read,
    Store,
    Then,
    Verdict,
    Wants,
)
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.iscsi import lun_field
from panloom.wire.scsi_cdb import BlockCommand, Operation
from panloom.wire.scsi_sense import Sense

__all__ = [
    "Busy",
    "Conflict",
    "Data",
    "Deallocate",
    "Fill",
    "Flush",
    "LogicalUnits",
    "Read",
    "Store",
    "Then",
    "Verdict",
    "Wants",
]

NOBODY = NexusName("", "")


class LogicalUnits:
    """The units of one target as one session sees them: their descriptions, and its end of each.

    ``units`` are those that sessions share; without them the session has its own.  They have one lock, which is held
    while a verdict is found.  ``unusual`` holds the LUN fields of units whose READs and WRITEs may not be answered
    without asking here; it changes under the reader.
    """

    def __init__(
        self, disks: Mapping[int, Disk], *, units: Mapping[int, LogicalUnit] | None = None, name: NexusName = NOBODY
    ) -> None:
        self.disks = dict(disks)
        self.unusual: set[int] = set()
        self._units = {lun: units[lun] if units else LogicalUnit() for lun in self.disks}
        self._lock = self._units[next(iter(self._units))].lock if self._units else nullcontext()
        self._copies = Copies()
        self._name = name
        self._left = False
        self.entered: Callable[[int, Nexus], None] = _unheard  # called with each end of a unit that is added
        self.nexuses: dict[int, Nexus] = {}
        with self._lock:
            for lun in self.disks:
                self._enter(lun)

    def _enter(self, lun: int) -> None:
        """Have an end of a unit."""
        self.nexuses[lun] = nexus = Nexus(self._name)
        nexus.noticed = partial(self._notice, lun_field(lun), nexus)
        self._units[lun].join(nexus)
        nexus.raise_attention(scsi_sense.POWER_ON)

    def add(self, lun: int, disk: Disk, unit: LogicalUnit) -> None:
        """Let the session see one unit more; its initiator is told at all others (SPC-4 r37 6.33)."""
        with unit.lock:
            if self._left or lun in self.disks:
                return
            self._lock = unit.lock  # where this is the first: all have the same
            for nexus in self.nexuses.values():
                nexus.raise_attention(scsi_sense.REPORTED_LUNS_CHANGED)
            self.disks[lun], self._units[lun] = disk, unit
            self._enter(lun)
            self.entered(lun, self.nexuses[lun])

    def remove(self, lun: int) -> None:
        """Let a unit go, as at the session's end; the initiator is told at all others."""
        with self._lock:
            nexus = self.nexuses.pop(lun, None)
            if nexus is None or self._left:
                return
            del self.disks[lun]
            self._units.pop(lun).leave(nexus)
            self.unusual.discard(lun_field(lun))
            for other in self.nexuses.values():
                other.raise_attention(scsi_sense.REPORTED_LUNS_CHANGED)

    def _notice(self, field: int, nexus: Nexus) -> None:
        if nexus.attentions or nexus.restricted:
            self.unusual.add(field)
        else:
            self.unusual.discard(field)

    def leave(self) -> None:
        """End the session: its reservations by RESERVE(6) and its say against removal go with it."""
        with self._lock:
            if not self._left:
                self._left = True
                for lun, nexus in self.nexuses.items():
                    self._units[lun].leave(nexus)

    def aborted(self, lun: int) -> None:
        """Take note that a task is: nobody waits for the end of a SANITIZE any more, which goes on."""
        if lun in self.nexuses:
            self.nexuses[lun].waits = False

    def raise_attention(self, lun: int, sense: Sense) -> None:
        """Tell the initiator of an event with its next command to the unit; the same one is told once."""
        with self._lock:
            if lun in self.nexuses:
                self.nexuses[lun].raise_attention(sense)

    def others(self, lun: int) -> tuple[Nexus, ...]:
        """Return the other sessions' ends of a unit."""
        with self._lock:
            return tuple(nexus for nexus in self._units[lun].nexuses if nexus is not self.nexuses[lun])

    def reset(self, lun: int) -> None:
        """Reset a unit: every initiator is told."""
        with self._lock:
            self._units[lun].reset(scsi_sense.UNIT_RESET)

    def resize(self, lun: int, blocks: int) -> None:
        """Let a unit have that many blocks, and tell the initiator so (SBC-4 r22 4.7)."""
        self.disks[lun] = msgspec.structs.replace(self.disks[lun], blocks=blocks)
        self.raise_attention(lun, scsi_sense.CAPACITY_CHANGED)

    def _take_attention(self, nexus: Nexus) -> Sense | None:
        if not nexus.attentions:
            return None
        sense = nexus.attentions.popleft()
        nexus.noticed()
        if sense == scsi_sense.REPORTED_LUNS_CHANGED:
            self._forget_luns_changed()
        return sense

    def _forget_luns_changed(self) -> None:
        """Take note, for all units, that the initiator knows that their list has changed (SPC-4 r37 6.33, LUICLR)."""
        for nexus in self.nexuses.values():
            if scsi_sense.REPORTED_LUNS_CHANGED in nexus.attentions:
                nexus.attentions.remove(scsi_sense.REPORTED_LUNS_CHANGED)
                nexus.noticed()

    def interpret(self, lun: int | None, octets: bytes) -> Verdict:
        """Return what a command of 16 octets means for a LUN; None is a LUN in a form that names no unit.

        A session that its initiator has closed ends first where it is in the way, however late its thread is.
        """
        copies = octets[0] == Operation.EXTENDED_COPY  # which may meet another's reservation later
        verdict = None if copies else self._judge(lun, octets)
        if verdict is None or isinstance(verdict, Conflict) or verdict == scsi_sense.REMOVAL_PREVENTED:
            for nexus in self._in_the_way(lun, octets):
                nexus.settle()  # without the lock, which it takes to end
            verdict = self._judge(lun, octets)
        return verdict

    def _judge(self, lun: int | None, octets: bytes) -> Verdict:
        with self._lock:
            return _under(self._lock, self._interpret(lun, octets))

    def _in_the_way(self, lun: int | None, octets: bytes) -> tuple[Nexus, ...]:
        copies = octets[0] == Operation.EXTENDED_COPY  # which may name every unit
        asked = tuple(self._units) if copies else (lun,) if lun in self._units else ()
        units = [(self._units[each], self.nexuses[each]) for each in asked]
        if not any(unit.reserved_by or unit.prevented_by for unit, _ in units):
            return ()
        with self._lock:
            return tuple(other for unit, nexus in units for other in unit.in_the_way(nexus))

    def _interpret(self, lun: int | None, octets: bytes) -> Verdict:
        command = scsi_cdb.decode(octets)
        disk = None if lun is None else self.disks.get(lun)
        match command:
            case scsi_cdb.ReportLuns(select, allocation) if lun == 0 or disk:
                self._forget_luns_changed()
                return _cut(scsi_pages.report_luns(tuple(self.disks), select), allocation)
            case scsi_cdb.Inquiry() if disk is None:
                return _inquiry(None, command)
            case scsi_cdb.RequestSense(_, allocation) if disk is None:
                return _cut(scsi_sense.encode(scsi_sense.NO_SUCH_UNIT), allocation)
        if disk is None or lun is None:
            return scsi_sense.NO_SUCH_UNIT
        unit, nexus = self._units[lun], self.nexuses[lun]
        match command:
            case scsi_cdb.Inquiry():
                return _inquiry(disk, command)
            case scsi_cdb.RequestSense(flags, allocation):
                if flags & 0x01:  # DESC: descriptor format, which no unit here speaks
                    return scsi_sense.INVALID_FIELD_IN_CDB
                pending = self._take_attention(nexus) or _not_ready(unit) or scsi_sense.NOTHING
                return _cut(scsi_sense.encode(pending), allocation)
        if attention := self._take_attention(nexus):
            return attention
        return self._interpret_told(lun, disk, command)

    def _interpret_told(self, lun: int, disk: Disk, command: scsi_cdb.Cdb | None) -> Verdict:
        unit, nexus = self._units[lun], self.nexuses[lun]
        if command is None:
            return scsi_sense.INVALID_OPERATION
        rule = rule_of(command)
        shut_out = unit.reserved_by not in (None, nexus) and not is_open_under_reserve(command)
        if shut_out or not unit.permits(nexus, rule.access):
            return Conflict()
        if unit.intent is not None and rule.access is Access.WRITE:
            return Busy()  # for as long as a WRITE ATOMIC takes
        if unit.erasing is not None and not rule.while_sanitizing:
            return scsi_sense.SANITIZE_FAILED if unit.erasing.failed else scsi_sense.SANITIZE_UNDER_WAY
        if unit.medium is Medium.EJECTED and rule.needs_medium:
            return scsi_sense.NO_MEDIUM
        match command:
            case scsi_cdb.ExtendedCopy():
                return self._copies.copy(lun, command, self._copy_units())
            case scsi_cdb.ReceiveCopyResults():
                return self._copies.results(lun, disk, command)
        return _BY_DEVICE_TYPE.get(disk.device_type, _direct_access)(disk, unit, nexus, command)

    def _copy_units(self) -> Mapping[int, CopyUnit]:
        return {lun: CopyUnit(disk, self._units[lun], self.nexuses[lun]) for lun, disk in self.disks.items()}


def _unheard(lun: int, nexus: Nexus) -> None:
    """Nobody listens."""


def _under(lock: AbstractContextManager[object], verdict: Verdict) -> Verdict:
    """Let what a verdict calls later hold the lock, too."""
    match verdict:
        case Wants(octets, then, exact):

            def then_with(data: bytes) -> Verdict:
                with lock:
                    return _under(lock, then(data))

            return Wants(octets, then_with, exact)
        case Then(deed, then_after):

            def then_locked() -> Verdict:
                with lock:
                    return _under(lock, then_after())

            return Then(deed, then_locked)
        case _:
            return verdict


def _not_ready(unit: LogicalUnit) -> Sense | None:
    if unit.erasing is not None:
        return scsi_sense.SANITIZE_FAILED if unit.erasing.failed else scsi_sense.SANITIZE_UNDER_WAY
    return scsi_sense.NO_MEDIUM if unit.medium is Medium.EJECTED else None


def _cut(octets: bytes | None, allocation_length: int) -> Verdict:
    return scsi_sense.INVALID_FIELD_IN_CDB if octets is None else Data(octets[:allocation_length])


def _inquiry(disk: Disk | None, command: scsi_cdb.Inquiry) -> Verdict:
    if not command.flags & scsi_cdb.ENABLE_VITAL_PAGE:
        octets = scsi_pages.inquiry(disk) if command.page_code == 0 else None
    else:
        octets = scsi_pages.vital_product_data(disk, command.page_code) if disk else None
    return _cut(octets, command.allocation_length)


def _direct_access(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.Cdb) -> Verdict:
    """Return what a command means to a disk (SBC-4 r22 table 33)."""
    match command:
        case BlockCommand():
            return scsi_block.interpret(disk, unit, command)
        case scsi_cdb.CompareAndWrite():
            return scsi_block.compare_and_write(disk, unit, command)
        case scsi_cdb.WriteAtomic():
            return scsi_block.write_atomic(disk, unit, command)
        case scsi_cdb.Unmap():
            return scsi_block.unmap(disk, unit, command)
        case scsi_cdb.Plain(Operation.READ_CAPACITY_10):
            return Data(scsi_pages.read_capacity_10(disk))
        case scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16, _, allocation):
            return _cut(scsi_pages.read_capacity_16(disk), allocation)
        case scsi_cdb.ServiceActionIn16(scsi_cdb.GET_LBA_STATUS):
            return scsi_block.lba_status(disk, command)
        case scsi_cdb.ServiceActionIn16():
            return scsi_sense.INVALID_FIELD_IN_CDB
        case scsi_cdb.Sanitize():
            return scsi_sanitize.interpret(disk, unit, nexus, command)
        case scsi_cdb.ReadDefectData():
            return _defects(command)
        case _:
            return _primary(disk, unit, nexus, command)


def _primary(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.Cdb) -> Verdict:
    """Return what a command means that devices of every type have (SPC-4 r37 table 164)."""
    match command:
        case scsi_cdb.Plain(Operation.TEST_UNIT_READY):
            return GOOD
        case scsi_cdb.Plain(Operation.RESERVE_6):
            return scsi_persistent.reserve(unit, nexus)
        case scsi_cdb.Plain(Operation.RELEASE_6):
            return scsi_persistent.release(unit, nexus)
        case scsi_cdb.PersistentReserveIn():
            return scsi_persistent.tell(unit, command)
        case scsi_cdb.PersistentReserveOut():
            return scsi_persistent.change(unit, nexus, command)
        case scsi_cdb.ModeSense():
            return scsi_modes.sense(disk, unit, command)
        case scsi_cdb.ModeSelect():
            return scsi_modes.select(disk, unit, nexus, command)
        case scsi_cdb.StartStopUnit():
            return scsi_medium.start_stop(disk, unit, nexus, command)
        case scsi_cdb.PreventAllowMediumRemoval():
            return scsi_medium.prevent_allow(disk, unit, nexus, command)
        case scsi_cdb.LogSense():
            return _log(command)
        case scsi_cdb.MaintenanceIn():
            return _maintenance(disk, command)
        case _:
            return scsi_sense.INVALID_OPERATION


def _optical(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.Cdb) -> Verdict:
    return scsi_optical.interpret(disk, unit, command) or _direct_access(disk, unit, nexus, command)


_BY_DEVICE_TYPE: dict[int, Callable[[Disk, LogicalUnit, Nexus, scsi_cdb.Cdb], Verdict]] = {
    DIRECT_ACCESS: _direct_access,
    OPTICAL: _optical,
}


def _maintenance(disk: Disk, command: scsi_cdb.MaintenanceIn) -> Verdict:
    match command.service_action:
        case scsi_cdb.REPORT_TARGET_PORT_GROUPS:
            if command.data_format > 1:
                return msgspec.structs.replace(scsi_sense.INVALID_FIELD_IN_CDB, field=1)
            octets = scsi_pages.report_target_port_groups(extended=command.data_format == 1)
        case scsi_cdb.REPORT_SUPPORTED_OPERATION_CODES:
            codes = scsi_supported.operation_codes(disk, command)
            if codes is None:
                return msgspec.structs.replace(scsi_sense.INVALID_FIELD_IN_CDB, field=2)  # the reporting options
            octets = codes
        case scsi_cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS:
            octets = scsi_supported.task_management_functions(command)
        case _:
            return scsi_sense.INVALID_FIELD_IN_CDB
    return _cut(octets, command.allocation_length)


def _defects(command: scsi_cdb.ReadDefectData) -> Verdict:
    """Return empty lists: what is below replaces its defects by itself (SBC-4 r22 5.22)."""
    header = bytes((0, command.flags & 0x1F))
    ten = command.operation is Operation.READ_DEFECT_DATA_10
    return _cut(header.ljust(4 if ten else 8, b"\0"), command.allocation_length)


def _log(command: scsi_cdb.LogSense) -> Verdict:
    """Return the list of log pages, which has only itself (SPC-4 r37 6.8 and 7.3.19)."""
    if command.page & 0x3F or command.subpage_code or command.flags & 0x01 or command.pointer:
        return scsi_sense.INVALID_FIELD_IN_CDB
    return _cut(bytes((0x00, 0x00, 0x00, 0x01, 0x00)), command.allocation_length)
