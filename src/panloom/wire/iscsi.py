"""iSCSI protocol data units, octets to values and back (RFC 7143 section 11).

Every PDU begins with the same eight octets and most go on with a LUN and a tag:

    octet   0                1               2               3
          0 │. I  opcode     │ flags         │ by opcode                      │
          4 │ TotalAHSLength │ DataSegmentLength                              │
          8 │ LUN, or by opcode                                               │
         16 │ Initiator Task Tag                                              │
         20 │ by opcode, up to octet 47                                       │
         48 │ additional header segments, TotalAHSLength words of four octets │
          … │ data segment, padded with zeroes to a word                      │

A value's fields stand in the order of the wire, so that one ``struct`` format for each class is its whole codec;
``immediate``, ``ahs`` and ``data`` come last.  Field names are those of the RFC.  Reserved bits are ignored when read
and zero when written.  The digests are not part of these functions: see ``wire.iscsi_stream``.
"""

import struct
from enum import IntEnum
from operator import attrgetter
from typing import ClassVar, TypeAlias

import msgspec

from panloom.errors import MalformedError

HEADER_OCTETS = 48
NO_TAG = 0xFFFFFFFF  # "reserved" in Initiator Task Tag and Target Transfer Tag
IMMEDIATE = 0x40  # octet 0

FINAL = 0x80  # octet 1, in every PDU
CONTINUE = 0x40  # text and login
READ, WRITE = 0x40, 0x20  # SCSI Command
DATA_IN_STATUS = 0x01  # SCSI Data-In
OVERFLOW, UNDERFLOW = 0x04, 0x02  # residual count, SCSI Response and Data-In

Octets: TypeAlias = bytes | bytearray | memoryview


class Pdu(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What all PDUs share: a format for their 48 octets without opcode and lengths."""

    OPCODE: ClassVar[int]
    LAYOUT: ClassVar[str]  # octets 1-3, then octets 8-47
    HAS_DATA: ClassVar[bool] = False


class NopOut(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.18."""

    OPCODE: ClassVar[int] = 0x00
    LAYOUT: ClassVar[str] = "3x QIIII 16x"
    HAS_DATA: ClassVar[bool] = True
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    cmd_sn: int
    exp_stat_sn: int = 0
    immediate: bool = False
    data: Octets = b""


class ScsiCommand(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.3; ``ahs`` is the undivided additional header."""

    OPCODE: ClassVar[int] = 0x01
    LAYOUT: ClassVar[str] = "B2x QIIII 16s"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    lun: int = 0
    initiator_task_tag: int
    expected_data_transfer_length: int = 0
    cmd_sn: int
    exp_stat_sn: int = 0
    cdb: bytes
    immediate: bool = False
    ahs: bytes = b""
    data: Octets = b""


class ScsiResponse(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.4; the data is the sense data behind its two-octet length."""

    OPCODE: ClassVar[int] = 0x21
    LAYOUT: ClassVar[str] = "BBB 8x IIIIIIII"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    response: int = 0
    status: int = 0
    initiator_task_tag: int
    snack_tag: int = 0
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    exp_data_sn: int = 0
    bidirectional_residual_count: int = 0
    residual_count: int = 0
    data: Octets = b""


class TaskManagementRequest(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.5; the function is in ``flags`` below FINAL."""

    OPCODE: ClassVar[int] = 0x02
    LAYOUT: ClassVar[str] = "B2x QIIIIII 8x"
    flags: int
    lun: int = 0
    initiator_task_tag: int
    referenced_task_tag: int = NO_TAG
    cmd_sn: int
    exp_stat_sn: int = 0
    ref_cmd_sn: int = 0
    exp_data_sn: int = 0
    immediate: bool = True


class TaskManagementResponse(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.6."""

    OPCODE: ClassVar[int] = 0x22
    LAYOUT: ClassVar[str] = "xBx 8x I4xIII 12x"
    response: int
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int


class DataOut(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.7."""

    OPCODE: ClassVar[int] = 0x05
    LAYOUT: ClassVar[str] = "B2x QII4xI4xII 4x"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    exp_stat_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    data: Octets = b""


class DataIn(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.7; ``status`` and ``stat_sn`` count only with DATA_IN_STATUS."""

    OPCODE: ClassVar[int] = 0x25
    LAYOUT: ClassVar[str] = "BxB QIIIIIIII"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    status: int = 0
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    stat_sn: int = 0
    exp_cmd_sn: int
    max_cmd_sn: int
    data_sn: int = 0
    buffer_offset: int = 0
    residual_count: int = 0
    data: Octets = b""


class ReadyToTransfer(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.8."""

    OPCODE: ClassVar[int] = 0x31
    LAYOUT: ClassVar[str] = "3x QIIIIIIII"
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    r2t_sn: int
    buffer_offset: int
    desired_data_transfer_length: int


class AsyncEvent(IntEnum):
    """What a target says unasked (section 11.9.1), as far as ours does."""

    LOGOUT_REQUEST = 1  # parameter 3: within so many seconds
    SESSION_DROPPED = 3  # parameters 2 and 3: seconds to wait, and to come back in


class AsyncMessage(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.9."""

    OPCODE: ClassVar[int] = 0x32
    LAYOUT: ClassVar[str] = "3x QI4xIIIBBHHH 4x"
    HAS_DATA: ClassVar[bool] = True
    lun: int = 0
    initiator_task_tag: int = NO_TAG
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    async_event: int
    async_vcode: int = 0
    parameter1: int = 0
    parameter2: int = 0
    parameter3: int = 0
    data: Octets = b""


class TextRequest(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.10."""

    OPCODE: ClassVar[int] = 0x04
    LAYOUT: ClassVar[str] = "B2x QIIII 16x"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    cmd_sn: int
    exp_stat_sn: int = 0
    immediate: bool = False
    data: Octets = b""


class TextResponse(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.11."""

    OPCODE: ClassVar[int] = 0x24
    LAYOUT: ClassVar[str] = "B2x QIIIII 12x"
    HAS_DATA: ClassVar[bool] = True
    flags: int = FINAL
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    data: Octets = b""


class LoginRequest(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.12; ``flags`` is T, C, CSG and NSG.  A login request is always immediate."""

    OPCODE: ClassVar[int] = 0x03
    LAYOUT: ClassVar[str] = "BBB 6sHIH2xII 16x"
    HAS_DATA: ClassVar[bool] = True
    flags: int
    version_max: int = 0
    version_min: int = 0
    isid: bytes
    tsih: int = 0
    initiator_task_tag: int
    cid: int = 0
    cmd_sn: int
    exp_stat_sn: int = 0
    immediate: bool = True
    data: Octets = b""

    @property
    def transit(self) -> bool:
        """Whether the initiator wants to leave the current stage."""
        return bool(self.flags & FINAL)

    @property
    def current_stage(self) -> int:
        """Return CSG: 0 security, 1 operational, 3 full feature phase."""
        return self.flags >> 2 & 3

    @property
    def next_stage(self) -> int:
        """Return NSG, of meaning only with ``transit``."""
        return self.flags & 3


class LoginResponse(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.13."""

    OPCODE: ClassVar[int] = 0x23
    LAYOUT: ClassVar[str] = "BBB 6sHI4xIIIBB 10x"
    HAS_DATA: ClassVar[bool] = True
    flags: int
    version_max: int = 0
    version_active: int = 0
    isid: bytes
    tsih: int = 0
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    status_class: int = 0
    status_detail: int = 0
    data: Octets = b""


class LogoutRequest(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.14; the reason is in ``flags`` below FINAL."""

    OPCODE: ClassVar[int] = 0x06
    LAYOUT: ClassVar[str] = "B2x 8x IH2xII 16x"
    flags: int = FINAL
    initiator_task_tag: int
    cid: int = 0
    cmd_sn: int
    exp_stat_sn: int = 0
    immediate: bool = False


class LogoutResponse(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.15."""

    OPCODE: ClassVar[int] = 0x26
    LAYOUT: ClassVar[str] = "xBx 8x I4xIII4xHH 4x"
    response: int = 0
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    time2wait: int = 0
    time2retain: int = 0


class Snack(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.16."""

    OPCODE: ClassVar[int] = 0x10
    LAYOUT: ClassVar[str] = "B2x QII4xI8xII"
    flags: int = FINAL
    lun: int = 0
    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    exp_stat_sn: int = 0
    beg_run: int = 0
    run_length: int = 0
    immediate: bool = False


class Reject(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.17; the data is the header of the PDU that was refused."""

    OPCODE: ClassVar[int] = 0x3F
    LAYOUT: ClassVar[str] = "xBx 8x I4xIIII 8x"
    HAS_DATA: ClassVar[bool] = True
    reason: int
    initiator_task_tag: int = NO_TAG
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    data_sn: int = 0
    data: Octets = b""


class NopIn(Pdu, frozen=True, gc=False, kw_only=True):
    """Section 11.19."""

    OPCODE: ClassVar[int] = 0x20
    LAYOUT: ClassVar[str] = "3x QIIIII 12x"
    HAS_DATA: ClassVar[bool] = True
    lun: int = 0
    initiator_task_tag: int = NO_TAG
    target_transfer_tag: int = NO_TAG
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    data: Octets = b""


class _Codec:
    """One class's format, with the parts that are not plain fields."""

    def __init__(self, kind: type[Pdu]) -> None:
        first, rest = kind.LAYOUT.split(" ", 1)
        self.layout = struct.Struct(f">B{first}I{rest}")
        self.kind = kind
        self.before_lengths = first.count("B")  # fields in octets 1-3
        self.fixed_flags = first[0] != "B"  # octet 1 is then nothing but FINAL
        names = kind.__struct_fields__
        self.has_immediate = "immediate" in names
        self.has_ahs = "ahs" in names
        self.names = tuple(name for name in names if name not in ("immediate", "ahs", "data"))
        self.fields_of = attrgetter(*self.names)
        if self.layout.size != HEADER_OCTETS:
            raise TypeError(f"{kind.__name__} has a header of {self.layout.size} octets")


_CODECS = {
    kind.OPCODE: _Codec(kind)
    for kind in (
        *(NopOut, ScsiCommand, TaskManagementRequest, LoginRequest, TextRequest, DataOut, LogoutRequest, Snack),
        *(NopIn, ScsiResponse, TaskManagementResponse, LoginResponse, TextResponse, DataIn, LogoutResponse),
        *(ReadyToTransfer, AsyncMessage, Reject),
    )
}
OPCODES = frozenset(_CODECS)


def header_lengths(header: Octets) -> tuple[int, int]:
    """Return the octets of the additional header and of the data segment, the latter without its padding."""
    return header[4] * 4, int.from_bytes(header[5:8], "big")


def encode(pdu: Pdu) -> bytes:
    """Return the PDU's octets, padded to a word."""
    data: Octets = getattr(pdu, "data", b"")
    return b"".join((encode_header(pdu), data, bytes(-len(data) % 4)))


def encode_header(pdu: Pdu) -> bytes:
    """Return the octets before the data segment: the header, and the additional header."""
    codec = _CODECS[pdu.OPCODE]
    ahs: bytes = pdu.ahs if isinstance(pdu, ScsiCommand) else b""
    data: Octets = getattr(pdu, "data", b"")
    opcode = pdu.OPCODE | (IMMEDIATE if getattr(pdu, "immediate", False) else 0)
    fields = list(codec.fields_of(pdu))
    fields.insert(codec.before_lengths, len(ahs) // 4 << 24 | len(data))
    header = bytearray(codec.layout.pack(opcode, *fields))
    if codec.fixed_flags:
        header[1] = FINAL
    return bytes(header) + ahs


def decode(header: Octets, ahs: Octets = b"", data: Octets = b"") -> Pdu:
    """Return the PDU that these parts make; the data is kept as it is given, not copied.

    MalformedError: an unknown opcode, or a part that this kind of PDU cannot have.
    """
    if len(header) != HEADER_OCTETS:
        raise MalformedError(f"a PDU header of {len(header)} octets")
    codec = _CODECS.get(header[0] & 0x3F)
    if codec is None:
        raise MalformedError(f"PDU with unknown opcode {header[0] & 0x3F:#04x}")
    if header_lengths(header) != (len(ahs), len(data)):
        raise MalformedError("a PDU whose parts have other lengths than its header says")
    if (ahs and not codec.has_ahs) or (data and not codec.kind.HAS_DATA):
        raise MalformedError(f"{codec.kind.__name__} with an additional header or data")
    fields = list(codec.layout.unpack(header)[1:])
    del fields[codec.before_lengths]
    values: dict[str, object] = dict(zip(codec.names, fields, strict=True))
    if codec.has_immediate:
        values["immediate"] = bool(header[0] & IMMEDIATE)
    if codec.has_ahs:
        values["ahs"] = bytes(ahs)  # at most 1,020 octets
    if codec.kind.HAS_DATA:
        values["data"] = data
    return codec.kind(**values)


def lun_number(field: int) -> int | None:
    """Return the logical unit number in an 8-octet LUN field; None for a form that names no unit here.

    Peripheral device addressing on bus 0 and flat space addressing, single level (SAM-5 section 4.7.7).
    """
    first, rest = field >> 48, field & 0xFFFF_FFFF_FFFF
    if rest:
        return None
    if first < 0x100:
        return first
    return first & 0x3FFF if first >> 14 == 1 else None


def lun_field(number: int) -> int:
    """Return the 8-octet field of a logical unit number, 0 … 16383, in its shortest form."""
    return (number if number < 0x100 else 0x4000 | number) << 48
