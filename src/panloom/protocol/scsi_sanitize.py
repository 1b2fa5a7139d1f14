"""SANITIZE: erase a whole unit so that nothing of it comes back (SBC-4 r22 4.11 and 5.30).

        ── SANITIZE, remembered ──▶ UNDER WAY ── all is erased ──▶ as new
                                        │  ▲
                         the disk fails │  │ SANITIZE anew; or EXIT FAILURE MODE, if AUSE allowed it ──▶ as it is
                                        ▼  │
                                      FAILED

It goes on whatever becomes of the session, and is taken up anew, from its begin, after a restart; meanwhile every
command that needs the medium is refused.  Overwriting writes through the store, block erase gives the space back to it:
what the file system or the disk below keeps of old blocks is beyond both.  There is no key, so no cryptographic erase.
"""

from functools import partial

import msgspec

from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import Erasing, LogicalUnit, Nexus
from panloom.protocol.scsi_verdicts import GOOD, Erase, Perform, Then, Verdict, Wants
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_sense import Sense

_HEADER_OCTETS = 4
_INVERT, _COUNT = 0x80, 0x1F


def interpret(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.Sanitize) -> Verdict:
    """Return what SANITIZE means."""
    action, octets = command.service_action, command.parameter_list_length
    if command.options & scsi_cdb.SANITIZE_RESERVED or any(command.reserved):
        return scsi_sense.INVALID_FIELD_IN_CDB
    if action == scsi_cdb.EXIT_FAILURE_MODE:
        return scsi_sense.INVALID_FIELD_IN_CDB if octets else _exit(unit)
    if action not in (scsi_cdb.OVERWRITE, scsi_cdb.BLOCK_ERASE):
        return scsi_sense.INVALID_FIELD_IN_CDB
    if action == scsi_cdb.BLOCK_ERASE and (octets or not disk.thin):
        return scsi_sense.INVALID_FIELD_IN_CDB
    if disk.read_only:
        return scsi_sense.WRITE_PROTECTED
    if refused := unit.cannot_write:
        return refused
    if action == scsi_cdb.BLOCK_ERASE:
        return _begin(unit, nexus, command, Erasing(block=None))
    if not _HEADER_OCTETS < octets <= disk.block_octets + _HEADER_OCTETS:
        return scsi_sense.INVALID_FIELD_IN_CDB

    def overwrite(parameters: bytes) -> Verdict:
        count, pattern = parameters[0] & _COUNT, parameters[_HEADER_OCTETS:]
        if not count or int.from_bytes(parameters[2:4], "big") != len(pattern):
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
        block = (pattern * -(-disk.block_octets // len(pattern)))[: disk.block_octets]
        return _begin(unit, nexus, command, Erasing(block, count, invert=bool(parameters[0] & _INVERT)))

    return Wants(octets, overwrite)


def _begin(unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.Sanitize, erasing: Erasing) -> Verdict:
    erase = unit.erase
    if erase is None:
        return scsi_sense.INVALID_FIELD_IN_CDB
    wanted = msgspec.structs.replace(erasing, unrestricted_exit=bool(command.options & scsi_cdb.UNRESTRICTED_EXIT))

    def remember() -> Sense | None:
        with unit.keeping:
            with unit.lock:
                if unit.erasing is not None and not unit.erasing.failed:
                    return scsi_sense.SANITIZE_UNDER_WAY
            try:
                unit.remember(erasing=wanted)
            except OSError:
                return scsi_sense.WRITE_FAILED
            with unit.lock:
                unit.erasing = wanted
                unit.recheck()
        return None

    def begin() -> Verdict:
        nexus.waits = not command.options & scsi_cdb.SANITIZE_IMMEDIATE
        return Erase(partial(erase, waiting=nexus))

    return Then(Perform(remember), begin)


def end(unit: LogicalUnit, *, failed: bool) -> None:
    """Take note, from the thread that erases, that it is over; OSError if that cannot be remembered."""
    with unit.keeping:
        with unit.lock:
            erasing = unit.erasing
        if erasing is None:
            return
        after = msgspec.structs.replace(erasing, failed=True) if failed else None
        try:
            unit.remember(erasing=after)
        except OSError:
            after = msgspec.structs.replace(erasing, failed=True)
            raise
        finally:
            with unit.lock:
                unit.erasing = after
                unit.recheck()


def _exit(unit: LogicalUnit) -> Verdict:
    if unit.erasing is None:
        return GOOD
    if not (unit.erasing.failed and unit.erasing.unrestricted_exit):
        return scsi_sense.INVALID_FIELD_IN_CDB

    def forget() -> Sense | None:
        with unit.keeping:
            try:
                unit.remember(erasing=None)
            except OSError:
                return scsi_sense.WRITE_FAILED
            with unit.lock:
                unit.erasing = None
                unit.recheck()
        return None

    return Perform(forget)
