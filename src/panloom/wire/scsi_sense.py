"""SCSI sense data: fixed format is written, descriptor format is read as well (SPC-4 r37 sections 4.5.3 and 4.5.2).

    octet   0     1   2            3-6          7    8-11  12   13    14   15-17
          │ 70h │ . │ . sense key │ INFORMATION │ 0Ah │  0  │ ASC │ ASCQ │ 0 │ sense key specific │

          │ 72h │ . sense key │ ASC │ ASCQ │ 0 0 0 │ length │ descriptor: type, length, … │ …
                                                             00h 0Ah: INFORMATION in its octets 4-11

Bit 7 of octet 0, or of a descriptor's octet 2, says that INFORMATION is valid.
"""

import struct

import msgspec

from panloom.errors import MalformedError

_FIXED = struct.Struct(">BxBIB4xBBxBH")
FIXED_OCTETS = 18
_IN_CDB = 0xC0  # sense key specific data of ILLEGAL REQUEST: valid, and of the CDB (SPC-4 r37 4.5.2.4.2)
SHORTEST_FIXED_OCTETS = 8  # up to the length of what follows
_FIXED_FORMATS, _DESCRIPTORS = (0x70, 0x71), (0x72, 0x73)  # of a current error, and of one that is told late


class Sense(msgspec.Struct, frozen=True, gc=False):
    """Why a command ended in CHECK CONDITION.

    ``code`` is ASC and ASCQ in one number; ``information`` (usually an LBA) is left out where it is not known or has
    more than 32 bits.
    """

    key: int
    code: int
    information: int | None = None
    field: int | None = None  # which octet of the command descriptor block is wrong, where that is told

    def __str__(self) -> str:
        return f"{self.key:02X}/{self.code:04X}"


# Keys (SPC-4 r37 table 48) and codes (annex F) that Panloom gives.
NOTHING = Sense(0x00, 0x0000)
SANITIZE_UNDER_WAY = Sense(0x02, 0x041B)
NO_MEDIUM = Sense(0x02, 0x3A00)
UNRECOVERED_READ = Sense(0x03, 0x1100)
SANITIZE_FAILED = Sense(0x03, 0x3103)
WRITE_FAILED = Sense(0x03, 0x0C00)
INVALID_FIELD_IN_COMMAND_IU = Sense(0x05, 0x0E03)  # information unit: the PDU that brings a command
INVALID_OPERATION = Sense(0x05, 0x2000)
LBA_OUT_OF_RANGE = Sense(0x05, 0x2100)
INVALID_FIELD_IN_CDB = Sense(0x05, 0x2400)
NO_SUCH_UNIT = Sense(0x05, 0x2500)
INVALID_FIELD_IN_PARAMETERS = Sense(0x05, 0x2600)
INVALID_RELEASE = Sense(0x05, 0x2604)
TOO_MANY_TARGET_DESCRIPTORS = Sense(0x05, 0x2606)
UNSUPPORTED_TARGET_DESCRIPTOR = Sense(0x05, 0x2607)
TOO_MANY_SEGMENT_DESCRIPTORS = Sense(0x05, 0x2608)
UNSUPPORTED_SEGMENT_DESCRIPTOR = Sense(0x05, 0x2609)
PARAMETER_LIST_LENGTH = Sense(0x05, 0x1A00)
SAVING_NOT_SUPPORTED = Sense(0x05, 0x3900)
REMOVAL_PREVENTED = Sense(0x05, 0x5302)
INSUFFICIENT_REGISTRATION_RESOURCES = Sense(0x05, 0x5504)
MEDIUM_MAY_HAVE_CHANGED = Sense(0x06, 0x2800)
POWER_ON = Sense(0x06, 0x2900)
UNIT_RESET = Sense(0x06, 0x2903)
MODE_PARAMETERS_CHANGED = Sense(0x06, 0x2A01)
RESERVATIONS_PREEMPTED = Sense(0x06, 0x2A03)
RESERVATIONS_RELEASED = Sense(0x06, 0x2A04)
REGISTRATIONS_PREEMPTED = Sense(0x06, 0x2A05)
CAPACITY_CHANGED = Sense(0x06, 0x2A09)
REPORTED_LUNS_CHANGED = Sense(0x06, 0x3F0E)
COMMANDS_CLEARED = Sense(0x06, 0x2F00)  # by another initiator
WRITE_PROTECTED = Sense(0x07, 0x2700)
SOFTWARE_WRITE_PROTECTED = Sense(0x07, 0x2702)
NO_SPACE = Sense(0x07, 0x2707)
COPY_ABORTED = Sense(0x0A, 0x0000)
UNREACHABLE_COPY_TARGET = Sense(0x0A, 0x0804)
COPY_TARGET_NOT_REACHABLE = Sense(0x0A, 0x0D02)
UNEXPECTED_UNSOLICITED_DATA = Sense(0x0B, 0x0C0C)  # RFC 7143 section 11.4.7.2
INCORRECT_AMOUNT_OF_DATA = Sense(0x0B, 0x0C0D)
DATA_OUT_OF_ORDER = Sense(0x0B, 0x4705)
MISCOMPARE = Sense(0x0E, 0x1D00)


def miscompare(at: int) -> Sense:
    """Return MISCOMPARE with the first octet of the command's data that differs (SBC-4 r22 5.3)."""
    return Sense(MISCOMPARE.key, MISCOMPARE.code, at)


def encode(sense: Sense) -> bytes:
    """Return 18 octets of sense data for a current error."""
    told = sense.information is not None and sense.information < 1 << 32
    information = sense.information if told and sense.information else 0
    specific = (0, 0) if sense.field is None else (_IN_CDB, sense.field)
    valid = 0xF0 if told else 0x70
    return _FIXED.pack(valid, sense.key, information, 10, sense.code >> 8, sense.code & 0xFF, *specific)


def decode(octets: bytes) -> Sense:
    """Return the sense data's meaning; MalformedError for another format, or less than says why.

    Fixed format may end before its last octets, which then are zero.
    """
    form = octets[0] & 0x7F if octets else 0
    if form in _DESCRIPTORS and len(octets) >= 8:
        return Sense(octets[1] & 0x0F, octets[2] << 8 | octets[3], _described_information(octets[8 : 8 + octets[7]]))
    if form not in _FIXED_FORMATS or len(octets) < SHORTEST_FIXED_OCTETS:
        raise MalformedError("no sense data")
    whole = octets[:FIXED_OCTETS].ljust(FIXED_OCTETS, b"\0")
    first, key, information, _, code, qualifier, specific, pointer = _FIXED.unpack(whole)
    field = pointer if key & 0x0F == INVALID_FIELD_IN_CDB.key and specific & _IN_CDB == _IN_CDB else None
    return Sense(key & 0x0F, code << 8 | qualifier, information if first & 0x80 else None, field)


def _described_information(descriptors: bytes) -> int | None:
    """Return INFORMATION from the first such descriptor; None without one, or where it has more than 32 bits."""
    while len(descriptors) >= 2:
        kind, octets = descriptors[0], descriptors[1] + 2
        if kind == 0 and len(descriptors) >= 12 and descriptors[2] & 0x80:
            information = int.from_bytes(descriptors[4:12], "big")
            return information if information < 1 << 32 else None
        descriptors = descriptors[octets:]
    return None
