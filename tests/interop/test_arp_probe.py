"""The kernel of another machine answers our ARP probes, and nobody answers for what nobody has."""

from ipaddress import IPv4Address

import pytest

from panloom.boot.arp_probe import answering
from panloom.errors import UnavailableError
from support.namespaces import LoopInside, machines

ADDRESSES = [IPv4Address(f"10.77.0.{last}") for last in (5, 6, 7)]


def test_who_has_an_address_is_found_on_the_wire_by_a_sender_that_has_none():
    with machines({"n1": "52:54:00:77:00:01"}) as chassis:
        chassis["n1"].ip("address add 10.77.0.5/24 dev eth0")
        with LoopInside(chassis.control) as loop:
            assert loop.call(answering("br0", ADDRESSES)) == {IPv4Address("10.77.0.5")}
            with pytest.raises(UnavailableError, match="frames on nowhere0"):
                loop.call(answering("nowhere0", ADDRESSES))
            chassis.control.ip("link set br0 down")
            with pytest.raises(UnavailableError, match="frames on br0: Network is down"):
                loop.call(answering("br0", ADDRESSES))
