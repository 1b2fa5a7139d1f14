"""The DHCP server against plain clients; the invariant: one address has one machine at any time, whatever happens."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from panloom.protocol.dhcp_leases import Holder
from panloom.protocol.dhcp_probes import PROBE_SECONDS
from panloom.protocol.lease_server import DECLINE_SECONDS, LEASE_SECONDS, OFFER_SECONDS, DhcpEventKind
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option
from support.dhcp_client import DhcpClient
from support.dhcp_site import NIC, NIC_RANGE, OURS, RANGE, RELAY, STRANGERS, A, B, Site, kinds


def test_an_exchange_by_the_book():
    site, client = Site(), DhcpClient(A, {Option.CLIENT_IDENTIFIER: b"\1abcdef"})
    assert site.bind(client) == IPv4Address("10.77.0.51")
    for reply in site.replies:
        assert (reply.op, reply.xid, reply.chaddr) == (Op.REPLY, client.xid, client.mac)
        assert reply.address(Option.SERVER_IDENTIFIER) == OURS
        assert reply.options[Option.LEASE_TIME] == LEASE_SECONDS.to_bytes(4, "big")
        assert reply.options[Option.SUBNET_MASK] == b"\xff\xff\xff\0"
        assert reply.options[Option.CLIENT_IDENTIFIER] == b"\1abcdef"
        assert reply.siaddr == OURS
    assert kinds(site.replies) == [MessageType.OFFER, MessageType.ACK]
    assert client.ack.file == client.ack.options[Option.BOOT_FILE_NAME] == b"http://10.77.0.1/boot/token"


@pytest.mark.parametrize(
    ("ask", "address"),
    [("reboot", "10.77.0.60"), ("reboot", "10.77.0.200"), ("reboot", "192.0.2.1"), ("reboot", "10.77.0.52")],
)
def test_a_known_machine_that_asks_for_another_address_is_told_no(ask, address):
    site, client = Site(), DhcpClient(A)
    (reply,) = site.send(client.reboot(IPv4Address(address)))
    assert reply.message_type is MessageType.NAK
    assert site.last.kind is DhcpEventKind.REFUSED
    site.server.receive(dhcp.encode(client.reboot(IPv4Address(address))), now=site.now)
    assert str(site.server.packets_to_send()[0].mac) == "ff:ff:ff:ff:ff:ff"


def test_who_is_nobodys_client_here_hears_nothing():
    site, client = Site(), DhcpClient(A)
    site.desk.unwanted.add(client.mac)
    asked = (client.discover(), client.reboot(IPv4Address("10.77.0.51")), client.message(MessageType.INFORM))
    for message in asked:
        assert site.send(message) == []
        assert site.last.kind is DhcpEventKind.IGNORED


def test_a_machine_whose_address_is_no_longer_its_own_is_told_no():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.desk.unwanted.add(client.mac)
    assert kinds(site.send(client.renew())) == [MessageType.NAK]


def test_who_chose_another_server_is_left_alone_and_its_offer_forgotten():
    site = Site()
    for mac in STRANGERS[:3]:
        site.send(DhcpClient(mac).discover())
    late = DhcpClient(STRANGERS[3])
    assert site.send(late.discover()) == []
    chooser = DhcpClient(STRANGERS[0])
    elsewhere = {Option.SERVER_IDENTIFIER: bytes((10, 77, 0, 9)), Option.REQUESTED_ADDRESS: RANGE[0].packed}
    assert site.send(chooser.message(MessageType.REQUEST, elsewhere)) == []
    site.now += 2
    assert kinds(site.send(late.discover())) == [MessageType.OFFER]


def test_an_offer_nobody_takes_up_is_free_again():
    site = Site()
    for mac in STRANGERS[:3]:
        site.send(DhcpClient(mac).discover())
    site.now += OFFER_SECONDS
    assert kinds(site.send(DhcpClient(STRANGERS[3]).discover())) == [MessageType.OFFER]


def test_a_busy_fixed_address_is_offered_to_nobody():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.desk.fixed = {MacAddress.parse(B): IPv4Address("10.77.0.51")}
    other = DhcpClient(B)
    assert site.send(other.discover()) == []
    assert (site.last.kind, site.last.why) == (DhcpEventKind.REFUSED, "10.77.0.51 is in use")
    assert kinds(site.send(other.reboot(IPv4Address("10.77.0.51")))) == [MessageType.NAK]
    site.now += LEASE_SECONDS
    assert site.bind(other) == IPv4Address("10.77.0.51")


def test_a_range_lends_each_address_once_and_no_reserved_one():
    site = Site()
    site.desk.reserved = frozenset({IPv4Address("10.77.0.201")})
    assert {site.bind(DhcpClient(mac)) for mac in STRANGERS[:2]} == {RANGE[0], RANGE[1]}
    assert site.send(DhcpClient(STRANGERS[2]).discover()) == []
    assert site.last.why == "every address of the range is in use"
    assert kinds(site.send(DhcpClient(STRANGERS[2]).reboot(IPv4Address("10.77.0.201")))) == [MessageType.NAK]


def test_a_client_gets_the_address_back_that_it_had():
    site, client = Site(), DhcpClient(STRANGERS[1])
    address = site.bind(client)
    site.bind(DhcpClient(STRANGERS[2]))
    site.restart()
    assert site.bind(client) == address


def test_a_storm_of_strangers_does_not_touch_a_known_machine():
    site = Site()
    for number in range(500):
        stranger = DhcpClient(MacAddress(0x525400FF0000 + number))
        for reply in site.send(stranger.discover()):
            stranger.receive(dhcp.encode(reply))
            site.send(stranger.request())
    assert site.bind(DhcpClient(A)) == IPv4Address("10.77.0.51")
    assert len(site.durable) == 4


def test_release_and_decline_count_only_from_who_has_the_address():
    site, client, thief = Site(), DhcpClient(STRANGERS[0]), DhcpClient(STRANGERS[1])
    address = site.bind(client)
    site.send(thief.message(MessageType.RELEASE, ciaddr=address))
    site.send(thief.message(MessageType.DECLINE, {Option.REQUESTED_ADDRESS: address.packed}))
    site.send(client.message(MessageType.DECLINE))
    elsewhere = {Option.SERVER_IDENTIFIER: bytes((10, 77, 0, 9))}
    site.send(client.message(MessageType.RELEASE, elsewhere, ciaddr=address))
    assert site.server.owner(address) == client.mac
    assert all(event.kind is DhcpEventKind.IGNORED for event in site.events[-4:])
    site.send(client.release())
    assert site.last.kind is DhcpEventKind.RELEASED
    assert address not in site.durable
    assert site.server.owner(address) is None


def test_a_declined_address_rests():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    assert site.send(client.decline()) == []
    assert site.last.kind is DhcpEventKind.DECLINED
    assert site.send(client.discover()) == []
    site.now += DECLINE_SECONDS
    assert site.bind(client) == IPv4Address("10.77.0.51")


def test_inform_is_answered_to_the_address_it_comes_from_without_a_lease():
    site, client = Site(), DhcpClient(A)
    (reply,) = site.send(client.message(MessageType.INFORM, ciaddr=IPv4Address("10.77.0.51")))
    assert (reply.message_type, reply.yiaddr) == (MessageType.ACK, dhcp.UNSPECIFIED)
    assert Option.LEASE_TIME not in reply.options
    assert not reply.file
    assert site.send(client.message(MessageType.INFORM, ciaddr=IPv4Address("10.77.0.52"))) == []
    assert site.durable == {}


def test_replies_go_where_rfc_2131_section_4_1_says():
    site, client = Site(), DhcpClient(A)

    def destination(message):
        site.server.receive(dhcp.encode(message), now=site.now)
        for write in site.server.leases_to_store():
            site.server.stored(write, now=site.now)
        (datagram,) = site.server.packets_to_send()
        site.nobody_answers()
        return str(datagram.mac), str(datagram.address), datagram.port

    address = IPv4Address("10.77.0.51")
    assert destination(client.discover()) == (A, "10.77.0.51", 68)
    assert destination(client.message(MessageType.DISCOVER, broadcast=True)) == (
        "ff:ff:ff:ff:ff:ff",
        "255.255.255.255",
        68,
    )
    assert destination(client.reboot(address)) == (A, "10.77.0.51", 68)
    assert destination(client.message(MessageType.REQUEST, ciaddr=address, broadcast=True)) == (A, "10.77.0.51", 68)
    assert destination(client.message(MessageType.DISCOVER, giaddr=RELAY)) == ("None", "10.88.0.1", 67)


def test_who_is_behind_a_relay_is_answered_by_routing_when_it_renews():
    site, client = Site(), DhcpClient(A)
    far = site.desk.fixed[client.mac] = IPv4Address("10.88.0.51")
    site.send(client.message(MessageType.REQUEST, {Option.REQUESTED_ADDRESS: far.packed}, giaddr=RELAY))
    site.server.receive(dhcp.encode(client.message(MessageType.REQUEST, ciaddr=far)), now=site.now)
    for write in site.server.leases_to_store():
        site.server.stored(write, now=site.now)
    (datagram,) = site.server.packets_to_send()
    assert (datagram.mac, datagram.address, datagram.port) == (None, far, dhcp.CLIENT_PORT)
    assert dhcp.decode(datagram.octets).message_type is MessageType.ACK


def test_a_relay_gets_its_option_back_and_one_from_elsewhere_gets_nothing():
    site, client = Site(), DhcpClient(A, {Option.RELAY_AGENT: b"\1\4port"})
    (reply,) = site.send(client.message(MessageType.DISCOVER, giaddr=RELAY))
    assert reply.options[Option.RELAY_AGENT] == b"\1\4port"
    assert list(reply.options)[-1] == Option.RELAY_AGENT  # RFC 3046 section 2.2
    assert reply.giaddr == RELAY
    for forged in ("192.0.2.9", "10.77.0.52", "10.77.0.1", "10.88.0.2", "255.255.255.255"):
        assert site.send(client.message(MessageType.DISCOVER, giaddr=IPv4Address(forged))) == []
        assert f"relayed by {forged}" in site.last.why
    (reply,) = site.send(client.discover())
    assert Option.RELAY_AGENT not in reply.options


def test_a_relay_may_be_the_server_in_our_place():
    """RFC 5107: the client takes the relay for its server, and renews, releases and declines by way of it."""
    override = {Option.RELAY_AGENT: bytes((11, 4)) + RELAY.packed}
    site, client = Site(), DhcpClient(A, override)
    address = site.desk.fixed[client.mac]
    (offer,) = site.send(client.message(MessageType.DISCOVER, giaddr=RELAY))
    assert offer.options[Option.SERVER_IDENTIFIER] == RELAY.packed
    asked = {Option.SERVER_IDENTIFIER: RELAY.packed, Option.REQUESTED_ADDRESS: address.packed}
    assert kinds(site.send(client.message(MessageType.REQUEST, asked, giaddr=RELAY))) == [MessageType.ACK]
    (ack,) = site.send(client.message(MessageType.REQUEST, giaddr=RELAY, ciaddr=address))
    assert (ack.message_type, ack.options[Option.SERVER_IDENTIFIER]) == (MessageType.ACK, RELAY.packed)
    named = {Option.SERVER_IDENTIFIER: RELAY.packed}
    site.send(client.message(MessageType.RELEASE, named, giaddr=RELAY, ciaddr=address))
    assert site.last.kind is DhcpEventKind.RELEASED


def test_who_says_itself_what_a_relay_says_has_chosen_another_server():
    site, client = Site(), DhcpClient(A, {Option.RELAY_AGENT: bytes((11, 4)) + RELAY.packed})
    asked = {Option.SERVER_IDENTIFIER: RELAY.packed, Option.REQUESTED_ADDRESS: site.desk.fixed[client.mac].packed}
    assert site.send(client.message(MessageType.REQUEST, asked)) == []
    assert site.last.why == f"it chose another DHCP server, {RELAY}"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        bytes(239),
        bytes(300),
        Message(op=Op.REQUEST, xid=1, chaddr=MacAddress.parse(A)),
        Message(op=Op.REPLY, xid=1, chaddr=MacAddress.parse(A), options={53: b"\2", 54: bytes((10, 77, 0, 66))}),
        DhcpClient(A).message(MessageType.OFFER),
        DhcpClient(A).message(MessageType.REQUEST),
        DhcpClient(A).message(MessageType.RELEASE),
        DhcpClient(A).message(MessageType.DECLINE, {Option.REQUESTED_ADDRESS: bytes(4)}),
    ],
)
def test_bad_input_is_one_event_and_no_answer(message):
    site = Site()
    assert site.send(message) == []
    (event,) = site.events
    assert event.kind is DhcpEventKind.IGNORED
    assert event.why


@given(st.binary(max_size=400))
def test_any_octets_are_one_event_at_most_and_never_an_exception(octets):
    site = Site()
    site.send(octets)
    assert len(site.events) == 1


def test_what_runs_out_is_forgotten_in_the_store_too():
    site = Site()
    assert site.server.deadline is None
    site.bind(DhcpClient(A))
    site.now += LEASE_SECONDS
    site.server.handle_timer(now=site.now)
    site.store()
    assert site.durable == {}
    assert site.server.deadline is None


def test_a_clock_that_runs_backwards_ends_no_lease():
    site, client = Site(), DhcpClient(A)
    site.bind(client)
    site.server.handle_timer(now=site.now - 10_000)
    site.server.receive(dhcp.encode(client.renew()), now=0.0)
    assert kinds(site.store()) == [MessageType.ACK]


@given(st.lists(st.sampled_from(["deliver", "lose", "repeat", "delay", "swap"]), max_size=30))
def test_a_client_on_a_bad_link_gets_its_own_address_in_the_end(fates):
    site, clients = Site(), [DhcpClient(A), DhcpClient(STRANGERS[0]), DhcpClient(STRANGERS[1])]
    script, flying = iter(fates), []

    def carry(packets):
        for packet in packets:
            match next(script, "deliver"):
                case "deliver":
                    yield from (packet, *flying)
                    flying.clear()
                case "lose":
                    continue
                case "repeat":
                    yield from (packet, packet)
                case "delay":
                    flying.append(packet)
                case "swap":
                    yield from (*flying, packet)
                    flying.clear()

    for _ in range(len(fates) + 3):
        site.now += 1
        for client in clients:
            if (octets := client.asks()) is None:
                continue
            for arrived in carry([octets]):
                replies = site.send(arrived)
                for reply in carry([dhcp.encode(reply) for reply in replies]):
                    for listener in clients:
                        listener.receive(reply)
    addresses = [client.address for client in clients]
    assert addresses[0] == IPv4Address("10.77.0.51")
    assert None not in addresses
    assert len(set(addresses)) == 3


SQUATTER = "52:54:00:00:02:00"
NIC_CLIENTS = ("", "system", "initramfs")  # of one MAC, by their identifiers


class OneAddressOneMachine(RuleBasedStateMachine):
    """Clients ask, renew, release and decline; stores fail, the process is killed, the table changes, time jumps.

    What each client believes is kept here, apart from the server: an address it was acknowledged, for as long as the
    ACK said.
    """

    machines = st.sampled_from([A, B, *STRANGERS[:4], *NIC_CLIENTS])
    addresses = st.sampled_from([f"10.77.0.{number}" for number in (51, 52, 100, 101, 200, 201, 202)]).map(IPv4Address)

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.clients = {mac: DhcpClient(mac) for mac in (A, B, *STRANGERS)} | {
            name: DhcpClient(NIC, {Option.CLIENT_IDENTIFIER: name.encode()} if name else {}) for name in NIC_CLIENTS
        }
        self.believed: dict[str, tuple[IPv4Address, float]] = {}
        self.writes: list = []

    def hear(self) -> None:
        self.writes += self.site.server.leases_to_store()
        for reply in self.site.collect():
            identifier = reply.options.get(Option.CLIENT_IDENTIFIER, b"").decode()
            mac = identifier if reply.chaddr == NIC else str(reply.chaddr)
            client = self.clients[mac]
            client.xid = reply.xid
            client.receive(dhcp.encode(reply))
            if reply.message_type is MessageType.ACK:
                assert self.site.durable[reply.yiaddr].mac == client.mac
                self.believed[mac] = (reply.yiaddr, self.site.now + LEASE_SECONDS)
            if reply.message_type is MessageType.NAK:
                self.believed.pop(mac, None)

    def say(self, message: Message) -> None:
        self.site.server.receive(dhcp.encode(message), now=self.site.now)
        self.hear()

    @rule(mac=machines, wanted=st.none() | addresses)
    def discover(self, mac, wanted):
        self.believed.pop(mac, None)
        self.say(self.clients[mac].discover(wanted))

    @rule(mac=machines)
    def request_the_offer(self, mac):
        if self.clients[mac].offer is not None:
            self.say(self.clients[mac].request())

    @rule(mac=machines)
    def bind(self, mac):
        self.discover(mac, None)
        self.nobody_answers()
        self.request_the_offer(mac)
        self.store_all()

    @rule()
    def store_all(self):
        while self.writes:
            self.store_the_next(fails=False)

    @rule(mac=machines, address=addresses)
    def request_anything(self, mac, address):
        self.say(self.clients[mac].reboot(address))

    @rule(mac=machines)
    def renew(self, mac):
        if self.clients[mac].ack is not None:
            self.say(self.clients[mac].renew())

    @rule(mac=machines, kind=st.sampled_from(["release", "decline"]), lost=st.booleans())
    def give_back(self, mac, kind, lost):
        if self.clients[mac].ack is not None:
            self.believed.pop(mac, None)
            message = getattr(self.clients[mac], kind)()
            if not lost:
                self.say(message)

    @rule(mac=machines, address=addresses, kind=st.sampled_from([MessageType.RELEASE, MessageType.DECLINE]))
    def give_back_what_may_be_anothers(self, mac, address, kind):
        if self.believed.get(mac, (None, 0))[0] == address:
            self.believed.pop(mac)
        options = {Option.REQUESTED_ADDRESS: address.packed}
        self.say(self.clients[mac].message(kind, options, ciaddr=address))

    @precondition(lambda self: self.writes)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def store_the_next(self, fails):
        write = self.writes.pop(0)
        if write.mac is None:
            if not fails:
                self.site.durable.pop(write.address, None)
        elif fails:
            self.site.server.not_stored(write, "disk full", now=self.site.now)
        else:
            self.site.durable[write.address] = Holder(write.mac, write.client)
            self.site.server.stored(write, now=self.site.now)
        self.hear()

    @rule(later=st.sampled_from([1.0, OFFER_SECONDS, DECLINE_SECONDS, LEASE_SECONDS / 2, LEASE_SECONDS]))
    def wait(self, later):
        self.site.now += later
        self.site.server.handle_timer(now=self.site.now)
        self.hear()

    @rule(address=addresses, mac=st.sampled_from([A, SQUATTER]).map(MacAddress.parse))
    def somebody_says_that_it_has(self, address, mac):
        self.site.server.answered(address, mac, now=self.site.now)
        self.hear()

    @rule()
    def nobody_answers(self):
        for _ in range(2):
            self.site.now += PROBE_SECONDS
            self.site.server.handle_timer(now=self.site.now)
        self.hear()

    @rule()
    def kill_and_start_again(self):
        self.writes.clear()
        self.site.restart()

    @rule()
    def swap_the_machines_addresses(self):
        fixed = self.site.desk.fixed
        a, b = MacAddress.parse(A), MacAddress.parse(B)
        fixed[a], fixed[b] = fixed[b], fixed[a]

    @invariant()
    def one_address_has_one_machine(self):
        live = [address for address, until in self.believed.values() if until > self.site.now]
        assert len(live) == len(set(live)), self.believed

    @invariant()
    def strangers_have_addresses_of_the_range_and_machines_have_not(self):
        for mac, (address, _) in self.believed.items():
            assert (RANGE[0] <= address <= RANGE[1]) == (mac in STRANGERS)
            assert (NIC_RANGE[0] <= address <= NIC_RANGE[1]) == (mac in NIC_CLIENTS)


OneAddressOneMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOneAddressOneMachine = OneAddressOneMachine.TestCase
