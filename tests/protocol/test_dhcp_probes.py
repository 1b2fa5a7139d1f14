"""No address is lent that somebody on the wire says it has: RFC 2131 section 2.2."""

from ipaddress import IPv4Address

from panloom.protocol.dhcp_leases import ADDRESSES_OF_A_MAC, Assignment
from panloom.protocol.dhcp_probes import PROBE_SECONDS
from panloom.protocol.lease_server import DECLINE_SECONDS, LEASE_SECONDS, DhcpEventKind
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import MessageType
from support.dhcp_client import DhcpClient
from support.dhcp_site import MASK, NIC, NIC_RANGE, RANGE, RELAY, STRANGERS, A, Site, kinds

SQUATTER = MacAddress.parse("52:54:00:00:02:00")
N1 = IPv4Address("10.77.0.51")


def ask(site, message):
    """Give the server a message; return its replies and the addresses that it asks for at once."""
    site.server.receive(dhcp.encode(message), now=site.now)
    return site.collect(), site.server.probes_to_send()


def answer(site, address, mac=SQUATTER):
    """Say that ``mac`` has an address; return what the server replies to others."""
    site.server.answered(address, mac, now=site.now)
    return site.collect()


def test_an_address_of_a_range_is_offered_when_nobody_has_answered_for_it():
    site, client = Site(), DhcpClient(STRANGERS[0])
    replies, probes = ask(site, client.discover())
    assert (replies, probes) == ([], (RANGE[0],))
    site.now += PROBE_SECONDS / 2
    assert site.server.deadline <= site.now
    site.server.handle_timer(now=site.now)
    assert (site.collect(), site.server.probes_to_send()) == ([], (RANGE[0],)), "it asks a second time"
    site.now += PROBE_SECONDS / 2
    site.server.handle_timer(now=site.now)
    (offer,) = site.collect()
    assert offer.yiaddr == RANGE[0]
    assert site.server.probes_to_send() == ()


def test_the_next_one_is_offered_when_somebody_has_it():
    site, client = Site(), DhcpClient(STRANGERS[0])
    ask(site, client.discover())
    assert answer(site, RANGE[0]) == []
    refused = next(event for event in site.events if event.kind is DhcpEventKind.REFUSED)
    assert (refused.mac, refused.address) == (client.mac, RANGE[0])
    assert refused.why == f"10.77.0.200 is in use by {SQUATTER}, not by lease"
    assert site.server.probes_to_send() == (RANGE[0] + 1,)
    (offer,) = site.nobody_answers()
    assert offer.yiaddr == RANGE[0] + 1
    assert site.bind(DhcpClient(STRANGERS[1])) == RANGE[1]
    assert site.send(DhcpClient(STRANGERS[2]).discover()) == []
    site.now += DECLINE_SECONDS
    assert site.bind(DhcpClient(STRANGERS[2])) == RANGE[0]


def test_a_range_of_which_others_have_all_is_full_after_one_search():
    site, client = Site(), DhcpClient(STRANGERS[0])
    ask(site, client.discover())
    for address in (RANGE[0], RANGE[0] + 1, RANGE[1]):
        assert answer(site, address) == []
    assert site.last.why == "every address of the range is in use"
    assert site.server.probes_to_send() == (RANGE[0] + 1, RANGE[1])
    assert site.nobody_answers() == []


def test_one_squatter_on_much_of_a_range_is_not_held_against_who_asks():
    site, client = Site(), DhcpClient(NIC)
    ask(site, client.discover())
    for number in range(ADDRESSES_OF_A_MAC + 2):
        answer(site, NIC_RANGE[0] + number)
    (offer,) = site.nobody_answers()
    assert offer.yiaddr == NIC_RANGE[0] + ADDRESSES_OF_A_MAC + 2


def test_the_one_address_of_a_machine_is_its_own_whoever_answers_for_it():
    """Else one neighbour that answers for every address, or means harm, would keep all machines from booting."""
    site, client = Site(), DhcpClient(A)
    (offer,), probes = ask(site, client.discover())
    assert (offer.yiaddr, probes) == (N1, ())
    client.receive(dhcp.encode(offer))
    assert ask(site, client.request()) == ([], ())
    assert answer(site, N1) == []
    assert kinds(site.store()) == [MessageType.ACK]


def test_who_asks_for_a_remembered_address_waits_until_nobody_has_answered():
    site, client = Site(), DhcpClient(STRANGERS[0])
    assert ask(site, client.reboot(RANGE[1])) == ([], (RANGE[1],))
    assert kinds(answer(site, RANGE[1])) == [MessageType.NAK]
    assert kinds(site.send(client.reboot(RANGE[0]))) == [MessageType.ACK]


def test_the_machine_itself_may_answer_by_any_of_its_macs():
    site, client = Site(), DhcpClient(NIC)
    site.desk.assignment = lambda request: Assignment(
        *NIC_RANGE, frozenset(), MASK, by_client=True, kin=frozenset({MacAddress.parse(A)})
    )
    ask(site, client.reboot(NIC_RANGE[0]))
    assert answer(site, NIC_RANGE[0], NIC) == answer(site, NIC_RANGE[0], MacAddress.parse(A)) == []
    site.nobody_answers()
    assert kinds(site.store()) == [MessageType.ACK]


def test_answers_for_what_is_not_asked_for_change_nothing():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    for address in (N1, RANGE[0], IPv4Address("192.0.2.1")):
        assert answer(site, address) == []
    assert site.server.owner(N1) == client.mac
    assert kinds(site.send(client.renew())) == [MessageType.ACK]


def test_behind_a_relay_nobody_is_asked():
    site, client = Site(), DhcpClient(A)
    site.desk.fixed[client.mac] = IPv4Address("10.88.0.51")
    replies, probes = ask(site, client.message(MessageType.DISCOVER, giaddr=RELAY))
    assert (kinds(replies), probes) == ([MessageType.OFFER], ())


def test_a_lease_that_ran_out_is_asked_for_again_and_the_store_forgets_its_holder():
    site, client = Site(), DhcpClient(STRANGERS[0])
    address = site.bind(client)
    site.now += LEASE_SECONDS
    assert ask(site, client.discover())[1] == (address,)
    answer(site, address)
    assert [(write.address, write.mac) for write in site.server.leases_to_store()] == [(address, None)]


def test_sixteen_machines_at_once_wait_no_longer_than_one():
    site = Site()
    clients = [DhcpClient(MacAddress(0x525400FF0000 + number)) for number in range(16)]
    for number, client in enumerate(clients):
        site.desk.fixed[client.mac] = IPv4Address("10.77.0.60") + number
        client.receive(dhcp.encode(ask(site, client.discover())[0][0]))
        ask(site, client.request())
    began = site.now
    while (at := site.server.deadline) < began + 2 * PROBE_SECONDS:
        site.now = max(site.now, at)
        site.server.handle_timer(now=site.now)
    assert kinds(site.store()) == [MessageType.ACK] * 16
    assert site.now - began < PROBE_SECONDS * 1.01
