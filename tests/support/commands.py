"""SCSI commands given to units, and done at once on a descriptor, as a session would have it."""

from panloom.protocol.scsi_verdicts import Busy, Conflict, Data, Then, Wants
from panloom.storage.medium import carry_out
from panloom.wire import scsi_cdb
from panloom.wire.scsi_sense import Sense


def do(units, command, data=b"", *, lun=0, descriptors=None):
    """Return the octets of GOOD, a Sense, a Conflict or Busy."""
    verdict = units.interpret(lun, scsi_cdb.encode(command))
    while not isinstance(verdict, Data | Sense | Conflict | Busy):
        match verdict:
            case Wants(octets, then):
                assert octets == len(data)
                verdict = then(data)
            case Then(deed, then):
                verdict = _done(deed, lun, descriptors) or then()
            case _:
                verdict = _done(verdict, lun, descriptors) or Data()
    return verdict.octets if isinstance(verdict, Data) else verdict


def _done(deed, lun, descriptors):
    return carry_out(descriptors[lun] if descriptors else None, deed, descriptors)
