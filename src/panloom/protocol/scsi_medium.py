"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL: where a medium is (SBC-4 r22 5.31 and 5.15).

       LOEJ, START 0: flushed first
LOADED ───────────────────────────▶ EJECTED         neither while anybody prevents removal
       ◀───────────────────────────
       LOEJ, START 1: others are told
"""

from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit, Medium, Nexus
from panloom.protocol.scsi_verdicts import GOOD, Flush, Then, Verdict
from panloom.wire import scsi_cdb, scsi_sense

_START, _LOEJ, _POWER_CONDITION = 0x01, 0x02, 0xF0


def start_stop(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.StartStopUnit) -> Verdict:
    """Return what START STOP UNIT means: nothing here sleeps, so only LOEJ changes anything."""
    start = bool(command.power & _START)
    if command.power & _POWER_CONDITION:  # START and LOEJ do not count then
        return GOOD
    if not command.power & _LOEJ:
        return GOOD if start else Flush()
    if not disk.removable:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if unit.prevented_by:
        return scsi_sense.REMOVAL_PREVENTED
    if start:
        return _load(unit, nexus)
    if unit.medium is Medium.EJECTED:
        return GOOD

    def eject() -> Verdict:
        if unit.prevented_by:  # since the flush began
            return scsi_sense.REMOVAL_PREVENTED
        unit.medium = Medium.EJECTED
        unit.recheck()
        return GOOD

    return Then(Flush(), eject)


def _load(unit: LogicalUnit, nexus: Nexus) -> Verdict:
    if unit.medium is Medium.EJECTED:
        unit.medium = Medium.LOADED
        unit.recheck()
        unit.tell_others(nexus, scsi_sense.MEDIUM_MAY_HAVE_CHANGED)
    return GOOD


def prevent_allow(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.PreventAllowMediumRemoval) -> Verdict:
    """Return what PREVENT ALLOW MEDIUM REMOVAL means; each nexus has its own say."""
    if not disk.removable:
        return scsi_sense.INVALID_OPERATION
    if command.prevent & 0x02:  # for medium changers, obsolete
        return scsi_sense.INVALID_FIELD_IN_CDB
    if command.prevent & 0x01:
        unit.prevented_by.add(nexus)
    else:
        unit.prevented_by.discard(nexus)
    return GOOD
