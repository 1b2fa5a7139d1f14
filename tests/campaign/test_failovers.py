"""What the campaign of moved guests looks at, and one of its rounds in which the old machine lives on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.lab.image import WRITER_RING
from support.guest_failovers import GuestFailovers, added, gone
from support.lab import running_lab

EPOCH = 2
CLUSTER = 8  # sectors that are read at once


class WrittenRing:
    """A ring that is written while it is read: ``pace`` says how many writes come before each next cluster is read."""

    def __init__(self, written, lost=frozenset()):
        self._sectors = {}
        self._lost = lost
        self._next = 0
        self.write(written)

    def write(self, count):
        for number in range(self._next, self._next + count):
            if number not in self._lost:
                self._sectors[WRITER_RING.start + number % len(WRITER_RING)] = (EPOCH, number)
        self._next += count

    def read(self, pace=()):
        """Return what a reader finds that goes through the ring once."""
        found, pace = {}, iter(pace)
        for start in range(WRITER_RING.start, WRITER_RING.stop, CLUSTER):
            self.write(next(pace, 0))
            cluster = range(start, start + CLUSTER)
            found.update({sector: self._sectors[sector] for sector in cluster if sector in self._sectors})
        return found


def gone_after(ring, *paces):
    readings = iter(paces)
    return gone(lambda: ring.read(next(readings, ())), EPOCH)


OVERTAKES = (0, 10)
"""The writer stands in the first cluster when that is read, and in the second when that is."""


def test_a_writer_that_overtakes_its_reader_deceives_one_reading():
    reading = WrittenRing(3).read(OVERTAKES)
    assert (WRITER_RING.start + 4) not in reading
    assert reading[WRITER_RING.start + 8] == (EPOCH, 8)


paces = st.lists(st.integers(0, 12), max_size=len(WRITER_RING) // CLUSTER)


@given(st.integers(0, 3000), paces, paces)
def test_what_was_written_is_never_gone(written, first, second):
    assert gone_after(WrittenRing(written), first, second) == set()


@given(st.integers(30, 3000), st.integers(2, 20), paces)
def test_what_was_lost_is_gone_whatever_the_writer_does(written, back, pace):
    lost = written - back
    assert gone_after(WrittenRing(written, {lost}), pace[:40], ()) == {lost}


def test_what_a_fenced_machine_adds_is_seen():
    ring = WrittenRing(50)
    before = ring.read()
    assert added(before, ring.read(), EPOCH) == set()
    ring.write(2)
    assert added(before, ring.read(), EPOCH) == {50, 51}


@pytest.mark.machine
@pytest.mark.timeout(240)
def test_a_machine_that_lives_on_adds_nothing_to_the_disk_that_it_lost(tmp_path):
    with running_lab(tmp_path / "lab", nodes=2, writer=True) as lab:
        guest = GuestFailovers(lab, tmp_path)
        guest.begin()
        guest.lose_the_machine(seconds=90, lives=True)
        assert guest.violations == []
