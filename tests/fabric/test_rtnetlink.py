"""rtnetlink's messages: attributes against octets, and the kernel's own words."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.fabric.rtnetlink import RouteSocket, attribute, attributes, nested
from support.namespaces import namespace

kinds = st.integers(1, 0x3FFF)


def test_known_octets():
    assert attribute(3, "lo") == b"\x07\x00\x03\x00lo\x00\x00"  # IFLA_IFNAME, padded to four
    assert attribute(4, 1500) == b"\x08\x00\x04\x00\xdc\x05\x00\x00"  # IFLA_MTU
    assert nested(18, attribute(1, "vxlan")) == b"\x10\x00\x12\x80\x0a\x00\x01\x00vxlan\x00\x00\x00"  # IFLA_LINKINFO


@given(st.dictionaries(kinds, st.binary(max_size=40)))
def test_decode_undoes_encode(wanted):
    octets = b"".join(attribute(kind, value) for kind, value in wanted.items())
    assert attributes(octets) == wanted
    assert attributes(nested(7, octets)) == {7: octets}


@given(st.binary(max_size=200))
def test_any_octets_decode_or_are_passed_over(octets):
    assert all(len(value) < len(octets) for value in attributes(octets).values())


def test_the_kernel_says_what_is_wrong_and_goes_on():
    with namespace("words") as made, RouteSocket(f"/run/netns/{made.name}") as kernel:
        unknown = bytes(16) + attribute(3, "nobody0")
        with pytest.raises(OSError, match="No such device"):
            kernel.get(18, unknown)
        with pytest.raises(OSError, match="Unknown device type"):
            kernel.request(16, bytes(16) + nested(18, attribute(1, "nothing")), 0x600)
        assert [attributes(link[16:])[3] for link in kernel.dump(18, bytes(16))] == [b"lo\0"]
