"""EXTENDED COPY(LID1) between the units that its initiator may see, and RECEIVE COPY RESULTS (SPC-4 r37 6.4, 6.20).

    parameter list ──▶ targets: designators ──▶ LUNs of this session, no others
                   └─▶ segments, each inside its units ──▶ Copy

All descriptors are checked before the first octet is copied.
"""

from collections.abc import Mapping

import msgspec

from panloom.protocol.scsi_pages import Disk, designators
from panloom.protocol.scsi_reservations import Access
from panloom.protocol.scsi_unit import LogicalUnit, Medium, Nexus
from panloom.protocol.scsi_verdicts import GOOD, Copy, CopySegment, Data, Flush, Then, Verdict, Wants
from panloom.wire import scsi_cdb, scsi_copy, scsi_sense
from panloom.wire.scsi_sense import Sense

_KEPT = 64  # copies whose status is kept


class CopyUnit(msgspec.Struct, frozen=True, gc=False):
    """A unit as a copy sees it."""

    disk: Disk
    unit: LogicalUnit
    nexus: Nexus


class CopyStatus(msgspec.Struct, gc=False):
    """What became of a copy."""

    segments: int = 0
    octets: int = 0
    failed: bool = True


class Copies:
    """One session's copies: their status by list identifier."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], CopyStatus] = {}  # by LUN and list identifier

    def copy(self, lun: int, command: scsi_cdb.ExtendedCopy, units: Mapping[int, CopyUnit]) -> Verdict:
        """Return what EXTENDED COPY means."""
        octets = command.parameter_list_length
        if command.service_action:
            return scsi_sense.INVALID_FIELD_IN_CDB
        if not octets:
            return GOOD
        if not scsi_copy.HEADER_OCTETS <= octets <= scsi_copy.HEADER_OCTETS + (1 << 14):
            return scsi_sense.PARAMETER_LIST_LENGTH
        return Wants(octets, lambda parameters: self._follow(lun, parameters, units))

    def _follow(self, lun: int, parameters: bytes, units: Mapping[int, CopyUnit]) -> Verdict:
        header = scsi_copy.decode_header(parameters)
        segments = plan(header, parameters, units)
        status = CopyStatus()
        if header.keeps_status:
            self._kept.pop((lun, header.list_identifier), None)
            self._kept[lun, header.list_identifier] = status
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        if isinstance(segments, Sense):
            return segments

        def copied(octets: int) -> None:
            status.segments += 1
            status.octets += octets

        def done() -> Verdict:
            status.failed = False
            return Flush() if any(not units[each.destination_lun].unit.write_cache for each in segments) else GOOD

        return Then(Copy(segments, copied), done)

    def results(self, lun: int, disk: Disk, command: scsi_cdb.ReceiveCopyResults) -> Verdict:
        """Return what RECEIVE COPY RESULTS means; a status is told once."""
        if command.service_action == scsi_cdb.OPERATING_PARAMETERS:
            return Data(scsi_copy.encode_parameters(disk.block_octets)[: command.allocation_length])
        if command.service_action != scsi_cdb.COPY_STATUS:
            return scsi_sense.INVALID_FIELD_IN_CDB
        status = self._kept.pop((lun, command.list_identifier), None)
        if status is None:
            return scsi_sense.INVALID_FIELD_IN_CDB
        octets = scsi_copy.encode_status(failed=status.failed, segments=status.segments, octets=status.octets)
        return Data(octets[: command.allocation_length])


def plan(
    header: scsi_copy.CopyHeader, parameters: bytes, units: Mapping[int, CopyUnit]
) -> tuple[CopySegment, ...] | Sense:
    """Return the segments of a parameter list; a sense says what is wrong with it, or with a unit."""
    length = header.targets_octets + header.segments_octets
    if length > scsi_copy.MAX_DESCRIPTORS_OCTETS or len(parameters) < scsi_copy.HEADER_OCTETS + length:
        return scsi_sense.PARAMETER_LIST_LENGTH
    if header.targets_octets % scsi_copy.TARGET_OCTETS or header.inline_octets:
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    if header.targets_octets > scsi_copy.MAX_TARGETS * scsi_copy.TARGET_OCTETS:
        return scsi_sense.TOO_MANY_TARGET_DESCRIPTORS
    behind = scsi_copy.HEADER_OCTETS + header.targets_octets
    luns: list[int | None] = []
    for at in range(scsi_copy.HEADER_OCTETS, behind, scsi_copy.TARGET_OCTETS):
        target = scsi_copy.decode_target(parameters[at : at + scsi_copy.TARGET_OCTETS])
        if target.kind != scsi_copy.IDENTIFICATION:
            return scsi_sense.UNSUPPORTED_TARGET_DESCRIPTOR
        luns.append(_find(target, units))
    if header.segments_octets > scsi_copy.MAX_SEGMENTS * scsi_copy.SEGMENT_OCTETS:
        return scsi_sense.TOO_MANY_SEGMENT_DESCRIPTORS
    planned = []
    for at in range(behind, behind + header.segments_octets, scsi_copy.SEGMENT_OCTETS):
        segment = parameters[at : min(at + scsi_copy.SEGMENT_OCTETS, behind + header.segments_octets)]
        if segment[0] != scsi_copy.BLOCK_TO_BLOCK:
            return scsi_sense.UNSUPPORTED_SEGMENT_DESCRIPTOR
        if len(segment) < scsi_copy.SEGMENT_OCTETS or segment[3] != scsi_copy.SEGMENT_OCTETS - 4:
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
        one = _plan(scsi_copy.decode_segment(segment), luns, units)
        if isinstance(one, Sense):
            return one
        planned.append(one)
    return tuple(planned)


def _find(target: scsi_copy.Target, units: Mapping[int, CopyUnit]) -> int | None:
    """Return the LUN by which this initiator sees the unit that a descriptor names; None if it does not."""
    for lun, each in units.items():
        if target.designator in designators(each.disk) and target.block_octets in (0, each.disk.block_octets):
            return lun
    return None


def _plan(segment: scsi_copy.Segment, luns: list[int | None], units: Mapping[int, CopyUnit]) -> CopySegment | Sense:
    ends = []
    for number, lba, access in (
        (segment.source, segment.source_lba, Access.READ),
        (segment.destination, segment.destination_lba, Access.WRITE),
    ):
        lun = luns[number] if number < len(luns) else None
        if lun is None:
            return scsi_sense.UNREACHABLE_COPY_TARGET
        disk, unit, nexus = msgspec.structs.astuple(units[lun])
        ready = unit.medium is Medium.LOADED and unit.erasing is None and unit.permits(nexus, access)
        if not ready or (access is Access.WRITE and (disk.read_only or unit.cannot_write)):
            return scsi_sense.COPY_TARGET_NOT_REACHABLE
        if lba + segment.blocks > disk.blocks:
            return scsi_sense.COPY_ABORTED
        ends.append((lun, lba * disk.block_octets, disk.block_octets))
    (source, source_offset, octets), (destination, destination_offset, other_octets) = ends
    if octets != other_octets:
        return scsi_sense.COPY_ABORTED
    return CopySegment(source, source_offset, destination, destination_offset, segment.blocks * octets)
