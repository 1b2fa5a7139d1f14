"""Logical units whose initiator has been told of all that is to be told."""

from panloom.protocol.scsi_disk import LogicalUnits
from panloom.wire.scsi_sense import Sense

TEST_UNIT_READY = bytes(16)


def tell(units: LogicalUnits) -> None:
    """Take every unit attention."""
    for lun in units.disks:
        while isinstance(sense := units.interpret(lun, TEST_UNIT_READY), Sense) and sense.key == 0x06:
            pass
