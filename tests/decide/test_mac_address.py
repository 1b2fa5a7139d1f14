"""Virtual MACs and their three fields."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from panloom.decide.mac_address import LAST_COUNTER, LAST_SERIAL, VirtualMac
from panloom.model.resources import ControlNode
from panloom.values import MacAddress

virtual_macs = st.builds(VirtualMac, st.integers(0, LAST_SERIAL), st.integers(0, LAST_COUNTER))


def test_known_octets():
    assert str(VirtualMac(0x504C, 1).to_mac()) == "02:50:4c:00:00:01"
    assert str(VirtualMac(0xFFFF, 0xABCDEF).to_mac()) == "02:ff:ff:ab:cd:ef"


@given(virtual_macs)
def test_decode_undoes_encode(virtual):
    mac = virtual.to_mac()
    assert VirtualMac.from_mac(mac) == virtual
    assert mac.is_local
    assert not mac.is_multicast


@given(st.integers(0, 2**48 - 1).map(MacAddress))
def test_any_octets_decode_or_are_malformed(mac):
    try:
        virtual = VirtualMac.from_mac(mac)
    except ValueError as error:
        assert str(mac) in str(error)
    else:
        assert virtual.to_mac() == mac


@given(virtual_macs, st.integers(0, 2**48 - 1).map(MacAddress))
def test_a_control_node_knows_its_own_from_all_others(virtual, other):
    control = ControlNode(serial=virtual.serial)
    assert control.gives(virtual.to_mac())
    assert control.gives(other) == (other.to_octets()[:3] == virtual.to_mac().to_octets()[:3])


@given(virtual_macs, virtual_macs)
def test_cap_105_other_fields_are_another_address(one, other):
    for another in (other, VirtualMac(one.serial, other.counter), VirtualMac(other.serial, one.counter)):
        assert (one.to_mac() == another.to_mac()) == (one == another)


@pytest.mark.parametrize(("serial", "counter"), [(-1, 0), (LAST_SERIAL + 1, 0), (0, -1), (0, LAST_COUNTER + 1)])
def test_a_field_that_is_too_large_is_refused(serial, counter):
    with pytest.raises(ValueError, match="serial"):
        VirtualMac(serial, counter).to_mac()
