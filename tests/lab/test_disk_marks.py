"""A mark says whose it is and whether it is whole; a ring of them proves that nothing acknowledged was lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError
from panloom.lab.disk_marks import BOOTS_OFFSET, MARK_OCTETS, RING_MARKS, RING_OFFSET, Mark, faults, ring
from panloom.lab.image import SECTOR_OCTETS, WRITER_RING

SERVER = "shop/web1"
marks = st.builds(
    Mark,
    server=st.sampled_from([SERVER, "a/b", "mail-2/mx-10"]),
    epoch=st.integers(1, 10**9),
    number=st.integers(0, 10**12),
)


def of(*epochs, first=0):
    """Return number → mark, of these epochs one after the other."""
    return {number: Mark(SERVER, epoch, number) for number, epoch in enumerate(epochs, start=first)}


@given(marks)
def test_decode_undoes_encode(mark):
    octets = mark.encode()
    assert len(octets) == MARK_OCTETS
    assert Mark.decode(octets) == mark


@given(st.binary(max_size=5000) | st.binary(max_size=200).map(lambda tail: b"panloom-mark 1 " + tail))
def test_any_octets_decode_or_are_malformed(octets):
    try:
        assert Mark.decode(octets) is None
    except MalformedError:
        pass


@given(marks, marks, st.integers(1, MARK_OCTETS // SECTOR_OCTETS - 1))
def test_a_mark_torn_at_any_sector_is_found_out(new, old, sectors):
    if new == old:
        return
    torn = new.encode()[: sectors * SECTOR_OCTETS] + old.encode()[sectors * SECTOR_OCTETS :]
    with pytest.raises(MalformedError, match="torn"):
        Mark.decode(torn)


def test_the_ring_lies_in_front_of_everything_that_the_image_holds():
    assert BOOTS_OFFSET + MARK_OCTETS <= RING_OFFSET
    assert WRITER_RING.start * SECTOR_OCTETS == RING_OFFSET + RING_MARKS * MARK_OCTETS


def test_a_ring_is_read_back_as_it_was_written():
    written = of(*[1] * 150, *[2] * 70)
    octets = bytearray(RING_MARKS * MARK_OCTETS)
    for mark in written.values():
        at = mark.offset - RING_OFFSET
        octets[at : at + MARK_OCTETS] = mark.encode()
    found = ring(bytes(octets))
    assert found == {number: written[number] for number in range(220 - RING_MARKS, 220)}
    assert faults(found, SERVER, acknowledged=219) == ()
    octets[:MARK_OCTETS] = Mark(SERVER, 1, 5).encode()
    with pytest.raises(MalformedError, match="mark 5 lies at place 0"):
        ring(bytes(octets))


@pytest.mark.parametrize(
    ("marks", "acknowledged", "fault"),
    [
        ({}, -1, None),
        (of(1, 1, 2), 2, None),
        (of(1, 1, 2), 1, None),  # one under way may have come through
        ({}, 0, "mark 0 was acknowledged, the newest on the disk is -1"),
        (of(1, 1), 2, "mark 2 was acknowledged"),
        ({0: Mark(SERVER, 1, 0), 2: Mark(SERVER, 1, 2)}, 2, "mark 1 is missing below 2"),
        (of(1, 2, 1), 2, "mark 2 is of epoch 1, after one of epoch 2"),
        ({0: Mark("mail/web1", 1, 0)}, 0, "mark 0 is of mail/web1"),
    ],
)
def test_faults(marks, acknowledged, fault):
    found = faults(marks, SERVER, acknowledged)
    assert (fault is None) == (found == ())
    assert all(fault in text for text in found)
