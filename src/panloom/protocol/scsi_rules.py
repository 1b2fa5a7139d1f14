"""What each command may meet: a reservation, a missing medium, a SANITIZE under way.

Reservations: SPC-4 r37 tables 65 and 66, SBC-4 r22 table 13 (persistent), SPC-2 r20 tables 9 and 10 (RESERVE).
SANITIZE: SBC-4 r22 4.11.3.
"""

import msgspec

from panloom.protocol.scsi_reservations import Access
from panloom.wire import scsi_cdb
from panloom.wire.scsi_cdb import Operation


class Rule(msgspec.Struct, frozen=True, gc=False):
    """What a command needs of its unit."""

    access: Access
    needs_medium: bool = True
    while_sanitizing: bool = False


_SAYS = Rule(Access.FREE, needs_medium=False, while_sanitizing=True)  # tells of the unit
_ASKS = Rule(Access.READ, needs_medium=False, while_sanitizing=True)
_READS = Rule(Access.READ)
_WRITES = Rule(Access.WRITE)
_RULES: dict[Operation, Rule] = {
    Operation.TEST_UNIT_READY: Rule(Access.FREE),
    Operation.READ_CAPACITY_10: Rule(Access.FREE, while_sanitizing=True),
    Operation.PERSISTENT_RESERVE_IN: _SAYS,
    Operation.PERSISTENT_RESERVE_OUT: Rule(Access.FREE, needs_medium=False),  # has rules of its own
    Operation.RESERVE_6: Rule(Access.FREE, needs_medium=False),
    Operation.RELEASE_6: Rule(Access.FREE, needs_medium=False),
    Operation.LOG_SENSE: _SAYS,
    Operation.REPORT_LUNS: _SAYS,
    Operation.MODE_SENSE_6: Rule(Access.WRITE, needs_medium=False, while_sanitizing=True),
    Operation.MODE_SENSE_10: Rule(Access.WRITE, needs_medium=False, while_sanitizing=True),
    Operation.MODE_SELECT_6: Rule(Access.WRITE, needs_medium=False),
    Operation.MODE_SELECT_10: Rule(Access.WRITE, needs_medium=False),
    Operation.MAINTENANCE_IN: _ASKS,
    Operation.RECEIVE_COPY_RESULTS: Rule(Access.WRITE, needs_medium=False),
    **dict.fromkeys(
        (operation for operation in Operation if operation.name.startswith(("READ_1", "READ_6", "VERIFY_", "PRE_F"))),
        _READS,
    ),
    Operation.READ_TOC: _READS,
    Operation.READ_DISC_INFORMATION: _READS,
    Operation.READ_TRACK_INFORMATION: _READS,
    Operation.GET_CONFIGURATION: _SAYS,
    Operation.GET_EVENT_STATUS_NOTIFICATION: _SAYS,
    Operation.MECHANISM_STATUS: _SAYS,
    Operation.READ_DEFECT_DATA_10: _READS,
    Operation.READ_DEFECT_DATA_12: _READS,
}


def rule_of(command: scsi_cdb.Cdb) -> Rule:
    """Return a command's rule; what is not known to be harmless needs to write."""
    match command:
        case scsi_cdb.ServiceActionIn16(scsi_cdb.READ_CAPACITY_16):
            return _RULES[Operation.READ_CAPACITY_10]
        case scsi_cdb.ServiceActionIn16():
            return _READS
        case scsi_cdb.MaintenanceIn(scsi_cdb.REPORT_TARGET_PORT_GROUPS):
            return _SAYS
        case scsi_cdb.PreventAllowMediumRemoval(prevent):
            return Rule(Access.WRITE if prevent else Access.FREE, needs_medium=False)
        case scsi_cdb.StartStopUnit(_, power):
            return Rule(Access.FREE if power == 0x01 else Access.WRITE, needs_medium=False)
        case scsi_cdb.Sanitize(_):
            exits = command.service_action == scsi_cdb.EXIT_FAILURE_MODE
            return Rule(Access.WRITE, while_sanitizing=exits)
        case _:
            return _RULES.get(operation_of(command), _WRITES)


def operation_of(command: scsi_cdb.Cdb) -> Operation:
    """Return a command's operation code."""
    return Operation(scsi_cdb.encode(command)[0])


def is_open_under_reserve(command: scsi_cdb.Cdb) -> bool:
    """Whether a command of another initiator is obeyed while a unit is held by RESERVE(6)."""
    match command:
        case scsi_cdb.PreventAllowMediumRemoval(prevent):
            return not prevent
        case scsi_cdb.StartStopUnit(_, power):
            return power == 0x01
        case scsi_cdb.ServiceActionIn16(action):
            return action == scsi_cdb.READ_CAPACITY_16
        case scsi_cdb.Plain(operation):
            return operation in (Operation.RELEASE_6, Operation.READ_CAPACITY_10)
        case _:
            return isinstance(command, scsi_cdb.LogSense | scsi_cdb.ReportLuns)
