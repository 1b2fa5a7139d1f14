"""Mode pages: what MODE SENSE says and MODE SELECT may change (SPC-4 r37 6.9 to 6.12 and 7.5, SBC-4 r22 6.5).

    header (6)   │ length │ medium type │ WP DPOFUA │ descriptors' length │
           (10)  │ length 2 │ medium type │ WP DPOFUA │ 2 │ descriptors' length 2 │
    page         │ code │ length │ …

Caching, 08h: WCE may be changed; without it every write is flushed before GOOD.  Control, 0Ah: SWP may be changed.
Nothing is saved: a reset brings the defaults back.
"""

import struct

from panloom.errors import MalformedError
from panloom.protocol.scsi_pages import Disk
from panloom.protocol.scsi_unit import LogicalUnit, Nexus
from panloom.protocol.scsi_verdicts import GOOD, Data, Flush, Then, Verdict, Wants
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import Operation

_CACHING, _CONTROL, _ALL_PAGES = 0x08, 0x0A, 0x3F
_WCE, _SWP = 0x04, 0x08
_CHANGEABLE, _DEFAULT, _SAVED = 1, 2, 3  # page control
_QAM = 0x10  # control: a write waits for its data, and others go before it
_PAGE_OCTETS = {_CACHING: 18, _CONTROL: 10}
_PARAMETERS_SAVEABLE = 0x80


def _page(code: int, *, write_cache: bool, write_protected: bool) -> bytes:
    if code == _CACHING:
        return bytes((_WCE if write_cache else 0,)).ljust(_PAGE_OCTETS[_CACHING], b"\0")
    return bytes((0, _QAM, _SWP if write_protected else 0)).ljust(_PAGE_OCTETS[_CONTROL], b"\0")


def _changeable(code: int) -> bytes:
    return (bytes((_WCE,)) if code == _CACHING else bytes((0, 0, _SWP))).ljust(_PAGE_OCTETS[code], b"\0")


def sense(disk: Disk, unit: LogicalUnit, command: scsi_cdb.ModeSense) -> Verdict:
    """Return what MODE SENSE means."""
    control, code = command.page >> 6, command.page & 0x3F
    if control == _SAVED:
        return scsi_sense.SAVING_NOT_SUPPORTED
    codes = sorted(_PAGE_OCTETS) if code == _ALL_PAGES else [code]
    if not _PAGE_OCTETS.keys() >= set(codes) or command.subpage_code not in (0x00, 0xFF):
        return scsi_sense.INVALID_FIELD_IN_CDB
    pages = b""
    for each in codes:
        if control == _CHANGEABLE:
            parameters = _changeable(each)
        elif control == _DEFAULT:
            parameters = _page(each, write_cache=True, write_protected=False)
        else:
            parameters = _page(each, write_cache=unit.write_cache, write_protected=unit.write_protected)
        pages += bytes((each, len(parameters))) + parameters
    if command.flags & scsi_cdb.DISABLE_BLOCK_DESCRIPTORS:
        descriptor = b""
    else:
        descriptor = struct.pack(">II", min(disk.blocks, 0xFFFF_FFFF), disk.block_octets)
    protected = disk.read_only or unit.write_protected
    specific = (0x80 if protected else 0) | 0x10  # WP; DPOFUA: FUA is obeyed
    rest = descriptor + pages
    if command.operation is Operation.MODE_SENSE_6:
        octets = struct.pack(">BBBB", 3 + len(rest), 0, specific, len(descriptor)) + rest
    else:
        octets = struct.pack(">HBBxxH", 6 + len(rest), 0, specific, len(descriptor)) + rest
    return Data(octets[: command.allocation_length])


def select(disk: Disk, unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.ModeSelect) -> Verdict:
    """Return what MODE SELECT means; a write cache is emptied before it is switched off."""
    if command.flags & scsi_cdb.SAVE_PAGES:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not command.parameter_list_length:
        return GOOD
    if not command.flags & scsi_cdb.PAGE_FORMAT:
        return scsi_sense.INVALID_FIELD_IN_CDB
    six = command.operation is Operation.MODE_SELECT_6

    def follow(octets: bytes) -> Verdict:
        try:
            pages = _split(octets, disk, six=six)
        except MalformedError:
            return scsi_sense.PARAMETER_LIST_LENGTH
        current = {
            code: _page(code, write_cache=unit.write_cache, write_protected=unit.write_protected)
            for code in _PAGE_OCTETS
        }
        if pages is None or not all(_may_be(code, parameters, current) for code, parameters in pages):
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
        wanted = current | dict(pages)

        def change() -> Verdict:
            unit.write_cache = bool(wanted[_CACHING][0] & _WCE)
            unit.write_protected = bool(wanted[_CONTROL][2] & _SWP)
            unit.recheck()
            if wanted != current:
                unit.tell_others(nexus, scsi_sense.MODE_PARAMETERS_CHANGED)
            return GOOD

        if unit.write_cache and not wanted[_CACHING][0] & _WCE:
            unit.write_cache = False  # what comes from now on is flushed; GOOD once all before it is
            unit.recheck()
            return Then(Flush(), change)
        return change()

    return Wants(command.parameter_list_length, follow)


def _may_be(code: int, parameters: bytes, current: dict[int, bytes]) -> bool:
    """Whether a page differs only where it may."""
    if len(parameters) != _PAGE_OCTETS.get(code):
        return False
    return all(
        not (new ^ old) & ~mask for new, old, mask in zip(parameters, current[code], _changeable(code), strict=True)
    )


def _split(octets: bytes, disk: Disk, *, six: bool) -> list[tuple[int, bytes]] | None:
    """Return the pages of a parameter list; None for a descriptor that would change the unit.

    MalformedError when it ends in the middle of something.
    """
    header = 4 if six else 8
    if len(octets) < header:
        raise MalformedError("a mode parameter list without a header")
    descriptors = octets[3] if six else int.from_bytes(octets[6:8], "big")
    rest = octets[header:]
    if len(rest) < descriptors:
        raise MalformedError("a mode parameter list that is shorter than it says")
    if descriptors not in (0, 8):
        return None
    if descriptors:
        blocks, block_octets = struct.unpack(">II", rest[:8])
        if block_octets & 0xFFFFFF != disk.block_octets or blocks not in (0, min(disk.blocks, 0xFFFF_FFFF)):
            return None
    rest, pages = rest[descriptors:], []
    while rest:
        if len(rest) < 2 or len(rest) < 2 + rest[1]:
            raise MalformedError("a mode page that is shorter than it says")
        if rest[0] & 0x40:  # SPF: no subpages here
            return None
        pages.append((rest[0] & ~_PARAMETERS_SAVEABLE, rest[2 : 2 + rest[1]]))
        rest = rest[2 + rest[1] :]
    return pages
