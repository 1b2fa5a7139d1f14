"""PERSISTENT RESERVE's parameters: octets of libiscsi's, values and back, and any octets."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire import scsi_reserve
from panloom.wire.scsi_reserve import FullStatus, MoveParameters, ReserveParameters

PORT = "iqn.2026-11.dev.panloom:node.n1,i,0x800000000001"
U64 = st.integers(0, 2**64 - 1)
PORTS = st.text("abc.:-0123", min_size=1, max_size=40).map(lambda name: f"iqn.{name},i,0x800000000001")


def test_known_octets():
    octets = bytes.fromhex("0000000000000001 0000000000000002 00000000 01 00 0000")
    assert scsi_reserve.decode_parameters(octets) == ReserveParameters(1, 2, durable=True)
    assert scsi_reserve.encode_parameters(ReserveParameters(1, 2, durable=True)) == octets
    assert (
        scsi_reserve.encode_keys(3, (1, 2)).hex() == "00000003" + "00000010" + "0000000000000001" + "0000000000000002"
    )
    assert scsi_reserve.encode_reservation(3, 0, 0).hex() == "0000000300000000"
    assert (
        scsi_reserve.encode_reservation(3, 1, 5).hex()
        == "00000003" + "00000010" + "0000000000000001" + "0000000000050000"
    )
    assert scsi_reserve.encode_capabilities(durable_possible=True, durable=False).hex() == "00080d80ea010000"


def test_full_status():
    octets = scsi_reserve.encode_full_status(9, (FullStatus(7, PORT, all_targets=True, type=5),))
    assert int.from_bytes(octets[4:8], "big") == len(octets) - 8
    assert octets[8:22].hex() == "0000000000000007" + "00000000" + "0305"
    assert octets[26:28] == b"\0\1"
    assert scsi_reserve.decode_transport_ids(octets[32:]) == (PORT,)


@given(U64, U64, st.booleans(), st.booleans(), st.none() | st.lists(PORTS, max_size=3).map(tuple))
def test_decode_undoes_encode(key, new, durable, all_targets, initiators):
    parameters = ReserveParameters(key, new, durable, all_targets, initiators)
    assert scsi_reserve.decode_parameters(scsi_reserve.encode_parameters(parameters)) == parameters


@given(U64, U64, st.booleans(), st.booleans(), st.integers(0, 65535), PORTS)
def test_decode_undoes_encode_of_moves(key, new, durable, unregister, port, initiator):
    parameters = MoveParameters(key, new, durable, unregister, port, initiator)
    assert scsi_reserve.decode_move(scsi_reserve.encode_move(parameters)) == parameters


@given(st.binary(max_size=100), st.sampled_from([scsi_reserve.decode_parameters, scsi_reserve.decode_move]))
def test_any_octets_decode_or_are_malformed(octets, decode):
    with suppress(MalformedError):
        decode(octets)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x45",
        b"\x05\0\0\x14" + b"iqn.a,i,0x01".ljust(20, b"\0"),  # a device, not a port
        b"\x45\0\0\x13" + b"iqn.a,i,0x01".ljust(19, b"\0"),
        b"\x45\0\0\x14" + b"iqn.a".ljust(20, b"\0"),
        b"\x45\0\0\x14" + b"iqn.a,i,0x01\0x".ljust(20, b"\0"),
        b"\x45\0\0\x18" + b"iqn.a,i,0x01".ljust(20, b"\0"),
    ],
)
def test_transport_ids_that_name_no_port(octets):
    with pytest.raises(MalformedError):
        scsi_reserve.decode_transport_ids(octets)
