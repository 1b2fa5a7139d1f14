"""Where a server may be placed, and where a fence holds, as far as cables go."""

import pytest

from panloom.decide.cabling import Cabling

MAC, PORT = "52:54:00:77:01:01", "port-n1"
BRIDGED = frozenset({PORT, "port-n2"})


@pytest.mark.parametrize(
    ("bridged", "seen", "last", "placed", "fenced"),
    [
        (True, {PORT}, None, True, True),
        (True, set(), None, True, True),
        (False, set(), None, False, False),
        (True, {"port-n2"}, PORT, False, False),
        (True, {"port-n2", PORT}, None, True, True),  # two bridges that hang together
        (True, set(), "port-n2", True, False),
        (False, set(), PORT, False, True),  # it was there, and was taken away: nothing comes in
        (True, {PORT}, "port-n2", True, True),  # plugged in where it belongs meanwhile
    ],
)
def test_a_server_is_placed_and_a_fence_holds_where_the_cable_ends(bridged, seen, last, placed, fenced):
    cabling = Cabling(BRIDGED if bridged else BRIDGED - {PORT}, {MAC: frozenset(seen)})
    assert (cabling.why_not_placed(MAC, PORT) is None) == placed
    assert (cabling.why_not_fenced(MAC, PORT, last) is None) == fenced
