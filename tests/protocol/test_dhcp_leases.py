"""Several clients of one MAC, told apart by their identifiers: RFC 2131 section 4.2."""

from ipaddress import IPv4Address

import pytest

from panloom.protocol.dhcp_leases import ADDRESSES_OF_A_MAC, Holder
from panloom.protocol.lease_server import DECLINE_SECONDS, LEASE_SECONDS, OFFER_SECONDS, DhcpEventKind
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType, Option
from support.dhcp_client import DhcpClient
from support.dhcp_site import NIC, NIC_RANGE, STRANGERS, Site, kinds


def client(identifier=None):
    """Return a client of the NIC's MAC."""
    made = DhcpClient(NIC, {} if identifier is None else {Option.CLIENT_IDENTIFIER: identifier})
    made.xid = hash(identifier) & 0xFFFFFF
    return made


def test_clients_of_one_mac_hold_an_address_each():
    site, clients = Site(), [client(), client(b"\1first"), client(b"\xffsecond")]
    addresses = [site.bind(each) for each in clients]
    assert len(set(addresses)) == 3
    assert [site.durable[address].client for address in addresses] == [b"", b"\1first", b"\xffsecond"]
    assert [site.bind(each) for each in clients] == addresses
    site.restart()
    assert [site.bind(each) for each in clients] == addresses


def test_one_client_of_a_mac_neither_takes_nor_gives_back_what_another_has():
    site, first, second = Site(), client(b"1"), client(b"2")
    address = site.bind(first)
    assert kinds(site.send(second.reboot(address))) == [MessageType.NAK]
    site.send(second.message(MessageType.RELEASE, ciaddr=address))
    site.send(second.message(MessageType.DECLINE, {Option.REQUESTED_ADDRESS: address.packed}))
    assert [event.kind for event in site.events[-2:]] == [DhcpEventKind.IGNORED] * 2
    assert site.server.owner(address) == NIC
    site.send(first.release())
    assert site.bind(second) != address  # it begins where the last search ended
    assert kinds(site.send(second.reboot(address))) == [MessageType.ACK]


def test_clients_that_share_an_address_are_one_whatever_they_call_themselves():
    site = Site()
    firmware, system = (DhcpClient(STRANGERS[0], {Option.CLIENT_IDENTIFIER: name}) for name in (b"\0uuid", b"\1mac"))
    assert site.bind(firmware) == site.bind(system)
    site.send(system.release())
    assert site.durable == {}


def test_the_clients_of_a_mac_have_so_many_addresses_and_no_more():
    site = Site()
    clients = [client(bytes((number,))) for number in range(ADDRESSES_OF_A_MAC + 1)]
    for each in clients[:-1]:
        site.bind(each)
    assert site.send(clients[-1].discover()) == []
    assert site.last.kind is DhcpEventKind.REFUSED
    assert "may have no more" in site.last.why
    assert site.send(clients[-1].reboot(NIC_RANGE[1])) == []
    assert [site.bind(each) for each in clients[:-1]] == sorted(site.durable)
    site.send(clients[0].release())
    assert site.bind(clients[-1]) in site.durable


def test_a_client_that_declines_whatever_it_is_given_does_not_use_the_range_up():
    site, sour = Site(), client(b"sour")
    for _ in range(ADDRESSES_OF_A_MAC):
        site.bind(sour)
        site.send(sour.decline())
    assert site.send(sour.discover()) == []
    assert "declined ones included" in site.last.why
    site.now += DECLINE_SECONDS
    assert site.bind(sour)


@pytest.mark.parametrize("seconds", [OFFER_SECONDS, LEASE_SECONDS])
def test_offers_and_leases_that_are_over_do_not_count(seconds):
    site = Site()
    for number in range(ADDRESSES_OF_A_MAC):
        one = client(bytes((number,)))
        if seconds == OFFER_SECONDS:
            site.send(one.discover())
        else:
            site.bind(one)
    site.now += seconds
    assert site.bind(client(b"late"))


def test_a_lease_of_an_older_record_goes_to_the_first_client_that_asks():
    site, address = Site(), IPv4Address("10.77.0.105")
    site.durable[address] = Holder(NIC)
    site.restart()
    first, second = client(b"1"), client(b"2")
    assert site.bind(first) == address
    assert site.durable[address] == Holder(NIC, b"1")
    assert site.bind(second) != address


def test_an_identifier_of_any_length_is_kept_and_echoed():
    site = Site()
    for identifier in (b"", b"\0", bytes(255), bytes(300)):
        (offer,) = site.send(client(identifier).discover())
        assert dhcp.decode(dhcp.encode(offer)).options[Option.CLIENT_IDENTIFIER] == identifier
