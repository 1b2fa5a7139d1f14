"""Leases are durable before they are acknowledged, whatever comes while they are stored."""

from ipaddress import IPv4Address

from panloom.protocol.lease_server import LEASE_SECONDS, STORED_ANEW_SECONDS, DhcpEventKind
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType
from support.dhcp_client import DhcpClient
from support.dhcp_site import A, B, Site, kinds


def test_no_ack_before_the_lease_is_stored():
    site, client = Site(), DhcpClient(A)
    client.receive(dhcp.encode(site.send(client.discover())[0]))
    assert site.send(client.request(), store=False) == []
    assert site.send(client.request(), store=False) == []
    (write,) = site.server.leases_to_store()
    assert site.server.owner(write.address) is None
    site.server.stored(write, now=site.now)
    assert kinds(site.collect()) == [MessageType.ACK]
    site.server.stored(write, now=site.now)
    assert site.collect() == []


def test_a_lease_that_cannot_be_stored_is_not_acknowledged_and_may_be_asked_for_again():
    site, client = Site(), DhcpClient(A)
    client.receive(dhcp.encode(site.send(client.discover())[0]))
    site.send(client.request(), store=False)
    site.server.not_stored(site.server.leases_to_store()[0], "disk full", now=site.now)
    assert site.collect() == []
    assert (site.last.kind, site.last.why) == (DhcpEventKind.REFUSED, "its lease could not be stored: disk full")
    assert kinds(site.send(client.request())) == [MessageType.ACK]


def test_every_request_that_comes_while_the_lease_is_stored_is_answered_once():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.now += 300
    xids = range(client.xid + 1, client.xid + 4)
    for client.xid in (*xids, xids[0]):
        assert site.send(client.renew(), store=False) == []
    acks = site.store()
    assert kinds(acks) == [MessageType.ACK] * 3
    assert sorted(ack.xid for ack in acks) == list(xids)


def test_a_lease_stored_lately_is_prolonged_without_being_stored_again():
    site, client = Site(), DhcpClient(A)
    address = site.bind(client)
    site.now += STORED_ANEW_SECONDS - 1
    assert kinds(site.send(client.renew(), store=False)) == [MessageType.ACK]
    assert site.server.leases_to_store() == ()
    site.now += LEASE_SECONDS - 1
    site.server.handle_timer(now=site.now)
    assert site.server.owner(address) == client.mac
    assert site.send(client.renew(), store=False) == []
    assert [write.mac for write in site.server.leases_to_store()] == [client.mac]


def test_a_lease_found_in_the_store_is_stored_anew_when_it_is_prolonged():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.restart()
    assert site.send(client.renew(), store=False) == []
    assert kinds(site.store()) == [MessageType.ACK]


def test_of_a_flood_of_requests_the_newest_are_answered():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.now += 300
    for client.xid in range(1000, 2000):
        site.send(client.renew(), store=False)
    assert [ack.xid for ack in site.store()] == [1996, 1997, 1998, 1999]


def test_a_renewal_that_cannot_be_stored_leaves_the_lease_as_it_was():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.now += 300
    site.send(client.renew(), store=False)
    site.server.not_stored(site.server.leases_to_store()[0], "disk full", now=site.now)
    assert site.server.owner(IPv4Address("10.77.0.51")) == client.mac


def test_an_address_taken_away_while_its_lease_is_stored_is_not_acknowledged():
    site, client = Site(), DhcpClient(A)
    client.receive(dhcp.encode(site.send(client.discover())[0]))
    site.send(client.request(), store=False)
    site.desk.fixed[client.mac] = IPv4Address("10.77.0.61")
    assert kinds(site.store()) == [MessageType.NAK]
    assert site.last.why == "no longer this machine's address"
    assert site.server.owner(IPv4Address("10.77.0.51")) is None


def test_an_address_taken_away_while_it_is_renewed_stays_its_owners_until_the_lease_is_over():
    """The NAK may be lost: until then the machine believes that it has the address."""
    site, client, other = Site(), DhcpClient(A), DhcpClient(B)
    site.bind(client)
    site.now += 300
    site.send(client.renew(), store=False)
    site.desk.fixed[client.mac], site.desk.fixed[other.mac] = IPv4Address("10.77.0.61"), client.address
    assert kinds(site.store()) == [MessageType.NAK]
    site.now += LEASE_SECONDS - 301
    assert site.send(other.discover()) == []
    site.now += 1
    assert site.bind(other) == IPv4Address("10.77.0.51")
