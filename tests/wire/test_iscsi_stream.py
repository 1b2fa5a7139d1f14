"""Streams of PDUs, with digests and without: cut anywhere, the same PDUs; any octets, PDUs or one clear error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.wire import iscsi
from panloom.wire.iscsi_stream import PduReader, frame
from support.iscsi_strategies import any_pdu

digests = st.fixed_dictionaries({"header_digest": st.booleans(), "data_digest": st.booleans()})


def reader_with(options, max_data_octets=64):
    reader = PduReader(max_data_octets=max_data_octets)
    reader.header_digest, reader.data_digest = options["header_digest"], options["data_digest"]
    return reader


def read(reader, octets, pieces=()):
    """Give a reader octets in pieces of these sizes, the rest as fits; return the PDUs."""
    pdus, sizes = [], iter(pieces)
    while octets:
        buffer = reader.buffer_wanted()
        piece = octets[: min(next(sizes, len(buffer)), len(buffer))]
        buffer[: len(piece)] = piece
        reader.received(len(piece))
        octets = octets[len(piece) :]
        while (pdu := reader.next_pdu()) is not None:
            pdus.append(msgspec.structs.replace(pdu, data=bytes(pdu.data)) if hasattr(pdu, "data") else pdu)
    return pdus


def test_known_octets():
    """A NOP-Out with both digests: the sums were computed bit by bit, apart from this program."""
    ping = iscsi.NopOut(initiator_task_tag=1, cmd_sn=2, data=b"ping!")
    parts = frame(ping, header_digest=True, data_digest=True)
    assert b"".join(parts) == iscsi.encode_header(ping) + bytes.fromhex("f59debb8") + b"ping!\0\0\0" + bytes.fromhex(
        "8aedfc72"
    )


@given(st.lists(any_pdu, max_size=6), st.lists(st.integers(1, 90), max_size=40), digests)
def test_cut_anywhere_the_same_pdus(pdus, pieces, options):
    octets = b"".join(b"".join(frame(pdu, **options)) for pdu in pdus)
    assert read(reader_with(options), octets, pieces) == pdus


@given(any_pdu)
def test_without_digests_a_frame_is_what_encode_gives(pdu):
    assert b"".join(frame(pdu, header_digest=False, data_digest=False)) == iscsi.encode(pdu)


@given(any_pdu, st.integers(0), st.integers(1, 255))
def test_no_flipped_octet_passes_the_digests(pdu, at, flip):
    options = {"header_digest": True, "data_digest": True}
    octets = bytearray(b"".join(frame(pdu, **options)))
    octets[at % len(octets)] ^= flip
    reader = reader_with(options)
    try:
        pdus = read(reader, bytes(octets))
    except MalformedError:
        return
    assert pdus == []  # a longer PDU is awaited, its lengths flipped


@given(st.binary(max_size=400), digests)
def test_any_octets_decode_or_are_malformed(octets, options):
    try:
        read(reader_with(options), octets)
    except MalformedError as error:
        assert str(error)


def test_more_data_than_agreed_is_malformed():
    ping = iscsi.NopIn(stat_sn=1, exp_cmd_sn=1, max_cmd_sn=1, data=bytes(65))
    with pytest.raises(MalformedError, match="65 octets, at most 64"):
        read(PduReader(max_data_octets=64), iscsi.encode(ping))


def test_large_pdus_pass_through_a_buffer_of_a_few():
    pdus = [iscsi.DataOut(initiator_task_tag=tag, data=bytes([tag]) * 5000) for tag in range(40)]
    octets = b"".join(map(iscsi.encode, pdus))
    assert read(PduReader(max_data_octets=5000), octets, [3001] * 1000) == pdus
