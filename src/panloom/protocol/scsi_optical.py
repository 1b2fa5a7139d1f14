"""An optical disc's own commands: a finished disc of one session and one data track (MMC-6 r02g clauses 5 and 6).

    READ TOC/PMA/ATIP           where the track begins and ends: LBA, or minutes, seconds, frames
    READ DISC, TRACK INFORMATION    all is finished
    GET CONFIGURATION           profile and features: a CD-ROM, or a DVD-ROM if it is larger than any CD
    GET EVENT STATUS NOTIFICATION   whether there is a disc; it is polled
    MECHANISM STATUS            no changer
    MODE SENSE page 2Ah         of MMC-3, which drivers still ask for

Everything else is as with a disk that is write-protected: READ and READ CAPACITY, and every WRITE is DATA PROTECT.
A minute has 60 seconds of 75 frames, and LBA 0 is two seconds after the start.
"""

import struct
from collections.abc import Callable

from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit, Medium
from panloom.protocol.scsi_verdicts import Data, Verdict
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import Operation

_LARGEST_CD_BLOCKS = 405_000  # 90 minutes; a larger image calls itself a DVD
_CD_ROM, _DVD_ROM = 0x0008, 0x0010  # profiles
_FRAMES_A_SECOND, _LEAD_IN_FRAMES = 75, 150
_LEAD_OUT = 0xAA  # a track's number
_DATA_TRACK = 0x14  # ADR 1, a data track that may not be copied
_MSF = 0x02  # READ TOC: addresses as minutes, seconds, frames
_MEDIA_EVENTS = 0x10  # class 4 of GET EVENT STATUS NOTIFICATION
_CAPABILITIES, _ALL_PAGES, _CHANGEABLE = 0x2A, 0x3F, 1
_MECHANISM = 0x29  # a tray; it ejects, and can be locked


def interpret(disk: Disk, unit: LogicalUnit, command: scsi_cdb.Cdb) -> Verdict | None:
    """Return what a command of this device type means; None for one that other types have, too."""
    match command:
        case scsi_cdb.ReadToc():
            return _cut(_toc(disk, command), command.allocation_length)
        case scsi_cdb.GetConfiguration(option, feature, allocation):
            return _cut(_configuration(disk, option & 0x03, feature), allocation)
        case scsi_cdb.GetEventStatusNotification(flags, classes, allocation):
            return _cut(_events(unit, classes) if flags & 0x01 else None, allocation)  # polled; nothing is sent unasked
        case scsi_cdb.ReadDiscInformation(kind, allocation):
            return _cut(None if kind & 0x07 else _disc(), allocation)
        case scsi_cdb.ReadTrackInformation():
            return _cut(_track(disk, command), command.allocation_length)
        case scsi_cdb.MechanismStatus(allocation):
            return _cut(bytes(8), allocation)  # idle, no changer
        case scsi_cdb.ModeSense():
            return _mode(disk, command)
        case scsi_cdb.ModeSelect() | scsi_cdb.ReadDefectData() | scsi_cdb.Sanitize() | scsi_cdb.Unmap():
            return scsi_sense.INVALID_OPERATION
        case scsi_cdb.CompareAndWrite() | scsi_cdb.WriteAtomic():
            return scsi_sense.INVALID_OPERATION
        case _:
            return None


def _cut(octets: bytes | None, allocation_length: int) -> Verdict:
    return scsi_sense.INVALID_FIELD_IN_CDB if octets is None else Data(octets[:allocation_length])


def _toc(disk: Disk, command: scsi_cdb.ReadToc) -> bytes | None:
    address = _msf if command.flags & _MSF else _lba
    match command.format & 0x0F:
        case 0 if command.track <= 1 or command.track == _LEAD_OUT:
            tracks = ((1, 0), (_LEAD_OUT, disk.blocks))
            listed = b"".join(
                struct.pack(">xBBx", _DATA_TRACK, number) + address(lba)
                for number, lba in tracks
                if number >= command.track
            )
        case 1:
            listed = struct.pack(">xBBx", _DATA_TRACK, 1) + address(0)  # the first track of the last session
        case 2 if command.track <= 1:  # a session's number here
            points = ((0xA0, b"\x01\0\0"), (0xA1, b"\x01\0\0"), (0xA2, _msf(disk.blocks)[1:]), (0x01, _msf(0)[1:]))
            listed = b"".join(struct.pack(">BBxB4x", 1, _DATA_TRACK, point) + at for point, at in points)
        case _:
            return None
    return struct.pack(">HBB", 2 + len(listed), 1, 1) + listed


def _lba(lba: int) -> bytes:
    return struct.pack(">I", lba)


def _msf(lba: int) -> bytes:
    seconds, frames = divmod(lba + _LEAD_IN_FRAMES, _FRAMES_A_SECOND)
    return bytes((0, min(seconds // 60, 0xFF), seconds % 60, frames))


def _profile(disk: Disk) -> int:
    return _DVD_ROM if disk.blocks > _LARGEST_CD_BLOCKS else _CD_ROM


def _features(disk: Disk) -> dict[int, tuple[int, bytes]]:
    """Return each feature's version, persistence and currency, and its own octets."""
    dvd = _profile(disk) == _DVD_ROM
    profiles = b"".join(struct.pack(">HBx", profile, _profile(disk) == profile) for profile in (_DVD_ROM, _CD_ROM))
    return {
        0x0000: (0x03, profiles),
        0x0001: (0x0B, struct.pack(">IB3x", 1, 0x00)),  # core: of the SCSI family
        0x0002: (0x07, bytes(4)),  # morphing: events are polled
        0x0003: (0x03, bytes((_MECHANISM, 0, 0, 0))),  # removable medium
        0x0010: (0x01, struct.pack(">IHxx", disk.block_octets, 16 if dvd else 1)),  # random readable
        0x001E: (0x08 if dvd else 0x09, bytes(4)),  # CD read
        0x001F: (0x01 if dvd else 0x00, b""),  # DVD read
    }


def _configuration(disk: Disk, option: int, start: int) -> bytes | None:
    wanted: dict[int, Callable[[int, int], bool]] = {
        0: lambda code, _: code >= start,
        1: lambda code, flags: code >= start and bool(flags & 0x01),
        2: lambda code, _: code == start,
    }
    if option not in wanted:
        return None
    listed = b"".join(
        struct.pack(">HBB", code, flags, len(octets)) + octets
        for code, (flags, octets) in _features(disk).items()
        if wanted[option](code, flags)
    )
    return struct.pack(">IxxH", 4 + len(listed), _profile(disk)) + listed


def _events(unit: LogicalUnit, classes: int) -> bytes:
    if not classes & _MEDIA_EVENTS:
        return struct.pack(">HBB", 2, 0x80, _MEDIA_EVENTS)  # none of these are told of
    present = 0x02 if unit.medium is Medium.LOADED else 0x01  # or the tray is open
    return struct.pack(">HBBBBxx", 6, 0x04, _MEDIA_EVENTS, 0x00, present)


def _disc() -> bytes:
    status = 0x0E  # finished, as its last session is
    start = struct.pack(">HBBBBBBB", 32, status, 1, 1, 1, 1, 0x20, 0x00)  # one session, one track; unrestricted use
    return start.ljust(16, b"\0") + b"\xff" * 8 + bytes(10)


def _track(disk: Disk, command: scsi_cdb.ReadTrackInformation) -> bytes | None:
    inside = command.address < disk.blocks if command.kind & 0x03 == 0 else command.address == 1
    if not inside or command.kind & 0x03 == 3:
        return None
    numbers = struct.pack(">HBBxBBB", 34, 1, 1, 0x04, 0x01, 0x00)  # track 1 of session 1: data, mode 1
    return (numbers + struct.pack(">III", 0, 0, 0)).ljust(24, b"\0") + struct.pack(">I8x", disk.blocks)


def _mode(disk: Disk, command: scsi_cdb.ModeSense) -> Verdict:
    control, code = command.page >> 6, command.page & 0x3F
    if code not in (_CAPABILITIES, _ALL_PAGES) or command.subpage_code not in (0x00, 0xFF):
        return scsi_sense.INVALID_FIELD_IN_CDB
    if control == 3:
        return scsi_sense.SAVING_NOT_SUPPORTED
    reads = 0x0B if _profile(disk) == _DVD_ROM else 0x03  # CD-R, CD-RW, DVD-ROM
    parameters = bytes((reads, 0x00, 0x00, 0x00, _MECHANISM)).ljust(20, b"\0")
    page = bytes((_CAPABILITIES, len(parameters))) + (bytes(20) if control == _CHANGEABLE else parameters)
    if command.operation is Operation.MODE_SENSE_6:
        octets = struct.pack(">BBBB", 3 + len(page), 0, 0x80, 0) + page  # write-protected
    else:
        octets = struct.pack(">HBBxxH", 6 + len(page), 0, 0x80, 0) + page
    return Data(octets[: command.allocation_length])
