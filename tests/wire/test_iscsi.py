"""iSCSI PDUs: octets captured from libiscsi 1.19, and everything that hypothesis can think of."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire import iscsi
from support.iscsi_strategies import KINDS, any_pdu

LOGIN = bytes.fromhex(
    "43810000 0000000a 800e8b52 00000000 652d97d1 00000000 47722375 00000001 00000000 00000000 00000000 00000000"
    "4175 74684d65 74686f64 0000"
)
READ_CAPACITY = bytes.fromhex(
    "01c10000 00000000 00000000 00000000 652d97d4 00000020 47722377 00000007 9e100000 00000000 00000000 00200000"
)
LOGOUT = bytes.fromhex(
    "46800000 00000000 00000000 00000000 652d97d5 00000000 47722378 00000008 00000000 00000000 00000000 00000000"
)
SEND_TARGETS = bytes.fromhex(
    "44800000 00000010 00000000 00000000 26f61812 ffffffff 63308aea 00000005 00000000 00000000 00000000 00000000"
    "53656e64 54617267 6574733d 416c6c00"
)
CAPTURED = [
    (
        LOGIN,
        iscsi.LoginRequest(
            flags=0x81,
            isid=bytes.fromhex("800e8b520000"),
            initiator_task_tag=0x652D97D1,
            cmd_sn=0x47722375,
            exp_stat_sn=1,
            data=b"AuthMethod",
        ),
    ),
    (
        READ_CAPACITY,
        iscsi.ScsiCommand(
            flags=0xC1,
            initiator_task_tag=0x652D97D4,
            expected_data_transfer_length=32,
            cmd_sn=0x47722377,
            exp_stat_sn=7,
            cdb=bytes.fromhex("9e100000000000000000000000200000"),
        ),
    ),
    (LOGOUT, iscsi.LogoutRequest(initiator_task_tag=0x652D97D5, cmd_sn=0x47722378, exp_stat_sn=8, immediate=True)),
    (
        SEND_TARGETS,
        iscsi.TextRequest(
            initiator_task_tag=0x26F61812, cmd_sn=0x63308AEA, exp_stat_sn=5, immediate=True, data=b"SendTargets=All\0"
        ),
    ),
]


def parts(octets):
    ahs, data = iscsi.header_lengths(octets)
    at = iscsi.HEADER_OCTETS + ahs
    return octets[:48], octets[48:at], octets[at : at + data]


@pytest.mark.parametrize(("octets", "pdu"), CAPTURED, ids=lambda value: type(value).__name__)
def test_known_octets(octets, pdu):
    assert iscsi.decode(*parts(octets)) == pdu
    assert iscsi.encode(pdu) == octets


def test_known_octets_of_answers():
    """Headers of RFC 7143 sections 11.4, 11.7 and 11.8, put together by hand."""
    numbers = {"stat_sn": 5, "exp_cmd_sn": 6, "max_cmd_sn": 7}
    assert iscsi.encode(iscsi.ReadyToTransfer(
        lun=iscsi.lun_field(1), initiator_task_tag=2, target_transfer_tag=3,
        r2t_sn=8, buffer_offset=9, desired_data_transfer_length=10, **numbers,
    )) == bytes.fromhex(
        "31800000 00000000 00010000 00000000 00000002 00000003 00000005 00000006 00000007 00000008 00000009 0000000a"
    )  # fmt: skip
    assert iscsi.encode(iscsi.DataIn(
        flags=0x83, initiator_task_tag=2, data_sn=8, buffer_offset=9, residual_count=10, data=b"\1\2\3", **numbers
    )) == bytes.fromhex(
        "25830000 00000003 00000000 00000000 00000002 ffffffff 00000005 00000006 00000007 00000008 00000009 0000000a"
        "01020300"
    )  # fmt: skip
    assert iscsi.encode(iscsi.ScsiResponse(
        flags=0x84, status=2, initiator_task_tag=2, exp_data_sn=8, residual_count=9, **numbers
    )) == bytes.fromhex(
        "21840002 00000000 00000000 00000000 00000002 00000000 00000005 00000006 00000007 00000008 00000000 00000009"
    )  # fmt: skip


def test_every_opcode_has_a_kind():
    assert len(KINDS) == len(iscsi.OPCODES) == 18


@given(any_pdu)
def test_decode_undoes_encode(pdu):
    octets = iscsi.encode(pdu)
    assert len(octets) % 4 == 0
    assert iscsi.decode(*parts(octets)) == pdu


@given(st.binary(max_size=120), st.sampled_from((*sorted(iscsi.OPCODES), 0x07, 0x1C, 0x3E)), st.booleans())
def test_any_octets_decode_or_are_malformed(octets, opcode, whole):
    if whole:
        octets = bytes([opcode]) + octets.ljust(47, b"\0")
    if len(octets) < iscsi.HEADER_OCTETS:
        with pytest.raises(MalformedError):
            iscsi.decode(octets)
        return
    try:
        pdu = iscsi.decode(*parts(octets))
    except MalformedError:
        return
    again = iscsi.encode(pdu)
    assert iscsi.decode(*parts(again)) == pdu


@given(st.integers(0, 16383))
def test_a_lun_field_names_its_lun(number):
    assert iscsi.lun_number(iscsi.lun_field(number)) == number


@pytest.mark.parametrize("field", [0xC100 << 48, 0x8000 << 48, 0x0100 << 48, 1, 0x0000_0001_0000_0000])
def test_other_lun_forms_name_no_unit(field):
    assert iscsi.lun_number(field) is None


def test_values_are_small_and_frozen():
    with pytest.raises(AttributeError):
        iscsi.NopOut(initiator_task_tag=1, cmd_sn=2).cmd_sn = 3
    assert not any(kind.__struct_config__.gc for kind in KINDS)
    assert msgspec.structs.replace(iscsi.NopOut(initiator_task_tag=1, cmd_sn=2), cmd_sn=3).cmd_sn == 3
