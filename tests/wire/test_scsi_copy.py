"""EXTENDED COPY's parameter list and what is told of copies."""

from hypothesis import given
from hypothesis import strategies as st

from panloom.wire import scsi_copy
from panloom.wire.scsi_copy import CopyHeader, Segment, Target

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
HEADERS = st.builds(CopyHeader, U8, U8, U16, U32, U32)
TARGETS = st.builds(
    Target,
    st.just(scsi_copy.IDENTIFICATION),
    st.integers(0, 20).flatmap(
        lambda length: st.binary(min_size=length, max_size=length).map(lambda name: bytes((1, 3, 0, length)) + name)
    ),
    st.integers(0, 2**24 - 1),
)
SEGMENTS = st.builds(Segment, st.just(scsi_copy.BLOCK_TO_BLOCK), U16, U16, U16, U64, U64)


def test_known_octets():
    segment = Segment(0x02, 0, 1, 2048, 3, 4)
    octets = scsi_copy.encode_list(CopyHeader(1, 0, 0, 28, 0), (), (segment,))
    assert octets[:16].hex() == "0100" + "0000" + "00000000" + "0000001c" + "00000000"
    assert octets[16:].hex() == "02000018" + "00000001" + "00000800" + "0000000000000003" + "0000000000000004"
    assert (
        scsi_copy.encode_status(failed=False, segments=2, octets=4096).hex()
        == "00000008" + "01" + "0002" + "01" + "00000004"
    )
    parameters = scsi_copy.encode_parameters(512)
    assert int.from_bytes(parameters[:4], "big") == len(parameters) - 4
    assert (parameters[8:10], parameters[10:12]) == (b"\0\4", b"\0\x10")
    assert parameters[43:] == bytes((2, scsi_copy.BLOCK_TO_BLOCK, scsi_copy.IDENTIFICATION))


@given(HEADERS, TARGETS, SEGMENTS)
def test_decode_undoes_encode(header, target, segment):
    octets = scsi_copy.encode_list(header, (target,), (segment,))
    assert scsi_copy.decode_header(octets) == header
    assert scsi_copy.decode_target(octets[16:48]) == target
    assert scsi_copy.decode_segment(octets[48:]) == segment


@given(st.binary(min_size=32, max_size=32))
def test_any_octets_decode(octets):
    scsi_copy.decode_header(octets)
    scsi_copy.decode_target(octets)
    scsi_copy.decode_segment(octets[:28])
