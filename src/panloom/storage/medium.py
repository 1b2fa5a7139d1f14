"""What a command decided to do, done on a Descriptor; what the medium answers, as sense data.

ENOSPC, EDQUOT                        07/2707  space allocation failed
EROFS                                 07/2700  write protected
any other error of a read             03/1100  unrecovered read error
any other error of a write or flush   03/0C00  write error
StaleEpochError                       goes on to the caller: nothing may be answered any more
"""

import errno

from panloom.protocol.iscsi_task import Compare, Deed, Write
from panloom.protocol.scsi_disk import Deallocate, Fill, Flush, Read
from panloom.storage.descriptor import Descriptor
from panloom.wire import scsi_sense
from panloom.wire.scsi_sense import Sense

PIECE_OCTETS = 1 << 20  # of a fill


def carry_out(descriptor: Descriptor, deed: Deed) -> Sense | None:
    """Do a deed; return why it failed, None when it is done.  ``Read`` is the business of who owns the socket."""
    try:
        match deed:
            case Write(offset, data):
                descriptor.write(descriptor.context, offset, memoryview(data))
            case Flush():
                descriptor.flush(descriptor.context)
            case Deallocate(ranges):
                for offset, octets in ranges:
                    descriptor.unmap(descriptor.context, offset, octets)
            case Fill(offset, octets, block):
                _fill(descriptor, offset, octets, block)
            case Compare(offset, data):
                return _compare(descriptor, offset, memoryview(data))
            case Read():
                raise TypeError("a read needs somewhere to go")
    except OSError as error:
        return write_sense(error)
    return None


def write_sense(error: OSError) -> Sense:
    """Return the sense data for an error of a write, a flush or an unmap."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return scsi_sense.NO_SPACE
    return scsi_sense.WRITE_PROTECTED if error.errno == errno.EROFS else scsi_sense.WRITE_FAILED


def _fill(descriptor: Descriptor, offset: int, octets: int, block: bytes) -> None:
    piece = memoryview(block * (min(PIECE_OCTETS, octets) // len(block)))
    for done in range(0, octets, len(piece)):
        descriptor.write(descriptor.context, offset + done, piece[: octets - done])


def _compare(descriptor: Descriptor, offset: int, data: memoryview) -> Sense | None:
    found = bytearray(len(data))
    try:
        descriptor.read(descriptor.context, offset, memoryview(found))
    except OSError:
        return scsi_sense.UNRECOVERED_READ
    return None if found == data else scsi_sense.MISCOMPARE
