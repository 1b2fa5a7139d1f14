"""RVIs' numbers: the same everywhere, known without asking, and no two alike."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.decide.rvi import LAST_CABINET, LAST_NODE, Place, is_rvi

places = st.builds(Place.at, st.integers(0, LAST_CABINET), st.integers(0, LAST_NODE))


def test_cap_103_a_node_computes_the_rvi_to_its_control_node_from_its_own_place():
    assert Place.at(0, 7).server == Place.at(0, 0)
    assert Place.at(3, 24).server.rvi == Place.at(3, 1).server.rvi == Place.at(3, 0).rvi == 0x500C0000
    assert Place.at(4, 24).server.rvi == 0x50100000
    assert Place.at(1, 2).rvi == 0x50040008
    assert [Place.at(1, 2).leg(fabric) for fabric in (0, 1)] == [0x50040009, 0x5004000A]


@given(places, places)
def test_numbers_of_two_places_and_their_legs_are_never_alike(one, other):
    numbers = [{place.rvi, place.leg(0), place.leg(1)} for place in (one, other)]
    assert len(numbers[0]) == 3
    assert one == other or numbers[0].isdisjoint(numbers[1])
    assert all(is_rvi(number) and number < 1 << 32 for number in numbers[0])


def test_numbers_that_others_give_to_nexthops_are_not_ours():
    assert not any(map(is_rvi, (0, 1, 500, 0x4FFFFFFF, 0x60000000, 0xFFFFFFFF)))


@pytest.mark.parametrize(("cabinet", "node"), [(-1, 1), (LAST_CABINET + 1, 1), (0, -1), (0, LAST_NODE + 1)])
def test_a_place_outside_of_all_cabinets_is_refused(cabinet, node):
    with pytest.raises(ValueError, match="is "):
        Place.at(cabinet, node)
