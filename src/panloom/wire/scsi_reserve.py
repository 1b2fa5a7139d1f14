"""Parameters and answers of PERSISTENT RESERVE, octets to values and back (SPC-4 r37 6.15, 6.16 and 7.6.4).

OUT          │ key 8 │ service action key 8 │ 4 obsolete │ flags │ 3 │ SPEC_I_PT: length 4 │ TransportID │ …
OUT, move    │ key 8 │ service action key 8 │ 0 │ flags │ target port 2 │ length 4 │ TransportID │
TransportID  │ 05h or 45h │ 0 │ length 2 │ iSCSI name, 45h: ",i,0x" and the ISID │ NUL … to a multiple of 4
"""

import struct

import msgspec

from panloom.errors import MalformedError

PARAMETERS_OCTETS = 24
TARGET_PORT = 1  # the relative identifier of the one port that every target has
_SPEC_I_PT, _ALL_TG_PT, _APTPL = 0x08, 0x04, 0x01
_UNREG = 0x02
_ISCSI_DEVICE, _ISCSI_PORT = 0x05, 0x45
_SMALLEST_NAME, _LARGEST_NAME = 20, 244


class ReserveParameters(msgspec.Struct, frozen=True, gc=False):
    """Of every service action but one; ``initiators`` None without SPEC_I_PT."""

    key: int
    service_action_key: int
    durable: bool = False
    all_targets: bool = False
    initiators: tuple[str, ...] | None = None


class MoveParameters(msgspec.Struct, frozen=True, gc=False):
    """Of REGISTER AND MOVE."""

    key: int
    service_action_key: int
    durable: bool
    unregister: bool
    target_port: int
    initiator: str


class FullStatus(msgspec.Struct, frozen=True, gc=False):
    """One descriptor of READ FULL STATUS; ``type`` 0: it holds no reservation."""

    key: int
    initiator: str
    all_targets: bool
    type: int


def decode_parameters(octets: bytes) -> ReserveParameters:
    """Return the parameters of a list of 24 octets, or more with SPEC_I_PT; MalformedError otherwise."""
    if len(octets) < PARAMETERS_OCTETS:
        raise MalformedError(f"a PERSISTENT RESERVE OUT parameter list of {len(octets)} octets")
    key, action_key, flags = struct.unpack_from(">QQ4xB", octets)
    initiators = None
    if flags & _SPEC_I_PT:
        length = int.from_bytes(octets[24:28], "big")
        if len(octets) < 28 or length != len(octets) - 28:
            raise MalformedError("TransportIDs that are shorter or longer than they say")
        initiators = decode_transport_ids(octets[28:])
    elif len(octets) != PARAMETERS_OCTETS:
        raise MalformedError(f"a PERSISTENT RESERVE OUT parameter list of {len(octets)} octets")
    return ReserveParameters(key, action_key, bool(flags & _APTPL), bool(flags & _ALL_TG_PT), initiators)


def encode_parameters(parameters: ReserveParameters) -> bytes:
    """Return the parameter list."""
    initiators = parameters.initiators
    flags = parameters.durable * _APTPL | parameters.all_targets * _ALL_TG_PT | (initiators is not None) * _SPEC_I_PT
    octets = struct.pack(">QQ4xB3x", parameters.key, parameters.service_action_key, flags)
    if initiators is None:
        return octets
    ids = b"".join(encode_transport_id(each) for each in initiators)
    return octets + len(ids).to_bytes(4, "big") + ids


def decode_move(octets: bytes) -> MoveParameters:
    """Return the parameters of REGISTER AND MOVE; MalformedError otherwise."""
    if len(octets) < PARAMETERS_OCTETS:
        raise MalformedError(f"a REGISTER AND MOVE parameter list of {len(octets)} octets")
    key, action_key, flags, port, length = struct.unpack_from(">QQxBHI", octets)
    ids = decode_transport_ids(octets[24:]) if length == len(octets) - 24 else ()
    if len(ids) != 1:
        raise MalformedError("REGISTER AND MOVE without one TransportID")
    return MoveParameters(key, action_key, bool(flags & _APTPL), bool(flags & _UNREG), port, ids[0])


def encode_move(parameters: MoveParameters) -> bytes:
    """Return the parameter list."""
    flags = parameters.durable * _APTPL | parameters.unregister * _UNREG
    name = encode_transport_id(parameters.initiator)
    keys = parameters.key, parameters.service_action_key
    return struct.pack(">QQxBHI", *keys, flags, parameters.target_port, len(name)) + name


def decode_transport_ids(octets: bytes) -> tuple[str, ...]:
    """Return the initiator ports of a list of iSCSI TransportIDs; MalformedError for others, or none whole."""
    names = []
    while octets:
        if len(octets) < 4 or octets[0] != _ISCSI_PORT:
            raise MalformedError("a TransportID that names no iSCSI initiator port")
        length = int.from_bytes(octets[2:4], "big")
        if length % 4 or not _SMALLEST_NAME <= length <= _LARGEST_NAME or len(octets) < 4 + length:
            raise MalformedError("a TransportID that is shorter than it says")
        name, _, padding = octets[4 : 4 + length].partition(b"\0")
        text = name.decode("utf-8", "replace")
        if padding.strip(b"\0") or ",i,0x" not in text or "\ufffd" in text:
            raise MalformedError("a TransportID that names no iSCSI initiator port")
        names.append(text.lower())
        octets = octets[4 + length :]
    return tuple(names)


def encode_transport_id(initiator: str) -> bytes:
    """Return the TransportID of an initiator port."""
    name = initiator.encode() + b"\0"
    name = name.ljust(max(_SMALLEST_NAME, -(-len(name) // 4) * 4), b"\0")
    return struct.pack(">BxH", _ISCSI_PORT, len(name)) + name


def encode_keys(generation: int, keys: tuple[int, ...]) -> bytes:
    """Return the answer to READ KEYS."""
    return struct.pack(f">II{len(keys)}Q", generation, 8 * len(keys), *keys)


def encode_reservation(generation: int, key: int, kind: int) -> bytes:
    """Return the answer to READ RESERVATION; ``kind`` 0: there is none."""
    if not kind:
        return struct.pack(">II", generation, 0)
    return struct.pack(">IIQ5xB2x", generation, 16, key, kind)


def encode_capabilities(*, durable_possible: bool, durable: bool) -> bytes:
    """Return the answer to REPORT CAPABILITIES: every type, SPEC_I_PT and ALL_TG_PT."""
    return struct.pack(">HBBBB2x", 8, 0x0C | durable_possible, 0x80 | durable, 0xEA, 0x01)


def encode_full_status(generation: int, descriptors: tuple[FullStatus, ...]) -> bytes:
    """Return the answer to READ FULL STATUS."""
    listed = b""
    for each in descriptors:
        name = encode_transport_id(each.initiator)
        flags = each.all_targets << 1 | (each.type != 0)
        listed += struct.pack(">Q4xBB4xHI", each.key, flags, each.type, TARGET_PORT, len(name)) + name
    return struct.pack(">II", generation, len(listed)) + listed
