"""The DHCPv6 server against plain machines, one message at a time, and then under everything that can happen."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panloom.protocol.lease_server import DECLINE_SECONDS, LEASE_SECONDS, OFFER_SECONDS, DhcpEventKind
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Kind, Message, Option, RelayMessage, StatusCode
from panloom.wire.router_advertisement import link_local
from support.dhcpv6_site import (
    FAR,
    FILE,
    FIXED,
    OPTIONS,
    OURS,
    RANGE,
    STRANGERS,
    A,
    B,
    Machine,
    Site,
    addresses,
    associations,
    relayed,
    statuses,
)

RELAY = IPv6Address("2001:db8::9")


def test_solicit_advertise_request_reply():
    site, machine = Site(), Machine(A)
    (offer,) = site.send(machine, machine.message(Kind.SOLICIT))
    assert (offer.kind, offer.option(Option.SERVER_ID), offer.option(Option.CLIENT_ID)) == (
        Kind.ADVERTISE,
        OURS,
        machine.duid,
    )
    assert addresses(offer) == (FIXED[A],)
    assert offer.option(Option.BOOT_FILE_URL) == FILE.encode()
    assert offer.option(Option.PREFERENCE) == b"\xff"
    assert site.durable == {}
    (reply,) = site.send(machine, machine.message(Kind.REQUEST, FIXED[A], server=OURS))
    (association,) = associations(reply)
    assert (reply.kind, association.iaid, association.t1_seconds, association.t2_seconds) == (Kind.REPLY, 1, 300, 480)
    assert reply.option(Option.BOOT_FILE_URL) == f"http://[2001:db8::1]/boot/{FIXED[A]}".encode()
    assert set(OPTIONS) <= set(reply.options)
    assert site.durable.keys() == {FIXED[A]}
    assert (site.sent[-1].mac, site.sent[-1].address, site.sent[-1].port) == (A, link_local(A), 546)


def test_no_reply_before_the_lease_is_durable_and_none_if_it_is_never():
    site, machine = Site(), Machine(A)
    assert site.send(machine, machine.message(Kind.REQUEST, FIXED[A], server=OURS), store=False) == []
    (write,) = site.server.leases_to_store()
    site.server.not_stored(write, "the disk is full", now=site.now)
    assert site.collect() == []
    assert site.last.kind is DhcpEventKind.REFUSED
    assert site.bind(machine) == (FIXED[A],)


def test_rapid_commit_is_answered_at_once_by_what_is_durable():
    site, machine = Site(), Machine(STRANGERS[0])
    rapid = ((int(Option.RAPID_COMMIT), b""),)
    assert site.send(machine, machine.message(Kind.SOLICIT, more=rapid), store=False) == []
    (reply,) = site.store()
    assert (reply.kind, reply.option(Option.RAPID_COMMIT), addresses(reply)) == (Kind.REPLY, b"", (RANGE[0],))
    assert set(site.durable) == {RANGE[0]}


def test_a_machines_loaders_and_system_have_its_one_address_in_turn():
    """OVMF, iPXE and Linux each have a DUID and an IAID of their own."""
    site = Site()
    for duid, iaid in ((b"\0\4firmware", 7), (b"\0\4ipxe", 8), (b"\0\1system", 9)):
        assert site.bind(Machine(A, duid, (iaid,))) == (FIXED[A],)


def test_associations_of_a_range_have_an_address_each_as_far_as_it_goes():
    site = Site()
    both = Machine(STRANGERS[0], iaids=(1, 2))
    assert site.bind(both) == (RANGE[0], RANGE[0] + 1)
    assert site.bind(Machine(STRANGERS[1])) == (RANGE[1],)
    late = Machine(STRANGERS[2])
    (offer,) = site.send(late, late.message(Kind.SOLICIT))
    assert (addresses(offer), statuses(offer)) == ((), [None, StatusCode.NO_ADDRESSES_AVAILABLE])
    refused = [event for event in site.events if event.kind is DhcpEventKind.REFUSED]
    assert refused[-1].why == "every address of the range is in use"


def test_of_two_associations_in_one_message_one_has_the_fixed_address():
    site, machine = Site(), Machine(A, iaids=(1, 2))
    (offer,) = site.send(machine, machine.message(Kind.SOLICIT))
    assert (addresses(offer), statuses(offer)) == ((FIXED[A],), [None, None, StatusCode.NO_ADDRESSES_AVAILABLE])


@pytest.mark.parametrize(("kind", "server"), [(Kind.RENEW, OURS), (Kind.REBIND, b"")])
def test_a_lease_is_prolonged_and_one_that_was_lost_is_there_again(kind, server):
    site, machine = Site(), Machine(A)
    site.bind(machine)
    site.now += LEASE_SECONDS - 1
    (reply,) = site.send(machine, machine.message(kind, FIXED[A], server=server))
    assert addresses(reply) == (FIXED[A],)
    site.now += LEASE_SECONDS - 1
    site.server.handle_timer(now=site.now)
    assert site.server.owner(FIXED[A]) == A
    site.durable.clear()
    site.restart()
    (reply,) = site.send(machine, machine.message(kind, FIXED[A], server=server))
    assert (addresses(reply), set(site.durable)) == ((FIXED[A],), {FIXED[A]})


def test_a_lease_stored_just_now_is_prolonged_without_the_store():
    site, machine = Site(), Machine(A)
    site.bind(machine)
    site.now += 10
    (reply,) = site.send(machine, machine.message(Kind.RENEW, FIXED[A], server=OURS), store=False)
    assert (addresses(reply), site.server.leases_to_store()) == ((FIXED[A],), ())


def test_an_address_that_is_no_longer_a_machines_has_no_time_left():
    site, machine = Site(), Machine(A)
    site.bind(machine)
    site.desk.fixed[A] = IPv6Address("2001:db8::53")
    (reply,) = site.send(machine, machine.message(Kind.RENEW, FIXED[A], server=OURS))
    (association,) = associations(reply)
    assert [(each.address, each.valid_seconds) for each in association.addresses] == [
        (IPv6Address("2001:db8::53"), LEASE_SECONDS),
        (FIXED[A], 0),
    ]
    site.desk.unwanted.add(A)
    (reply,) = site.send(machine, machine.message(Kind.REBIND, FIXED[A]))
    assert (addresses(reply), site.last.why) == ((), "no longer this machine's address")


def test_what_a_stranger_renews_is_no_binding():
    site = Site()
    for stranger in STRANGERS[:3]:
        site.bind(Machine(stranger))
    late = Machine(STRANGERS[3])
    (reply,) = site.send(late, late.message(Kind.RENEW, server=OURS))
    assert statuses(reply) == [None, StatusCode.NO_BINDING]


def test_confirm_says_whether_the_link_is_the_same():
    site, machine = Site(), Machine(A)
    (reply,) = site.send(machine, machine.message(Kind.CONFIRM, FIXED[A]))
    assert statuses(reply)[0] == StatusCode.SUCCESS
    (reply,) = site.send(machine, machine.message(Kind.CONFIRM, FAR))
    assert statuses(reply)[0] == StatusCode.NOT_ON_LINK
    assert site.send(machine, machine.message(Kind.CONFIRM)) == []


def test_what_is_released_is_anybodys_and_what_is_declined_rests():
    site, machine, other = Site(), Machine(STRANGERS[0]), Machine(STRANGERS[1])
    (address,) = site.bind(machine)
    (reply,) = site.send(other, other.message(Kind.RELEASE, address, server=OURS))
    assert statuses(reply) == [StatusCode.SUCCESS, StatusCode.NO_BINDING]
    assert address in site.durable
    (reply,) = site.send(machine, machine.message(Kind.RELEASE, address, server=OURS))
    assert (statuses(reply), site.durable, site.last.kind) == ([StatusCode.SUCCESS], {}, DhcpEventKind.RELEASED)
    held = [site.bind(Machine(stranger))[0] for stranger in STRANGERS[:3]]
    declining = Machine(STRANGERS[0])
    site.send(declining, declining.message(Kind.DECLINE, held[0], server=OURS))
    assert (site.last.kind, held[0] in site.durable) == (DhcpEventKind.DECLINED, False)
    late = Machine(STRANGERS[3])
    assert addresses(site.send(late, late.message(Kind.SOLICIT))[0]) == ()
    site.now += DECLINE_SECONDS
    assert site.bind(late) == (held[0],)


def test_an_information_request_is_told_options_and_begins_no_lease():
    site, machine = Site(), Machine(A, iaids=())
    (reply,) = site.send(machine, machine.message(Kind.INFORMATION_REQUEST, client=False))
    assert set(OPTIONS) <= set(reply.options)
    assert reply.option(Option.BOOT_FILE_URL) == FILE.encode()
    assert site.server.deadline is None


def test_prefixes_and_temporary_addresses_are_not_to_be_had():
    site, machine = Site(), Machine(A, iaids=())
    wanted = ((int(Option.IA_TA), bytes(4)), (int(Option.IA_PD), bytes(12)))
    (offer,) = site.send(machine, machine.message(Kind.SOLICIT, more=wanted))
    assert offer.option(Option.IA_TA).hex() == "00000000" + "000d0002" + "0002"
    assert offer.option(Option.IA_PD).hex() == "00" * 12 + "000d0002" + "0006"


def test_an_offer_that_nobody_takes_up_is_over():
    site = Site()
    for stranger in STRANGERS[:3]:
        machine = Machine(stranger)
        site.send(machine, machine.message(Kind.SOLICIT))
    late = Machine(STRANGERS[3])
    assert addresses(site.send(late, late.message(Kind.SOLICIT))[0]) == ()
    site.now += OFFER_SECONDS + 5
    site.server.handle_timer(now=site.now)
    assert site.bind(late) == (RANGE[0],)


def test_leases_outlive_the_server():
    site = Site()
    held = {site.bind(Machine(stranger))[0]: stranger for stranger in STRANGERS[:3]}
    site.restart()
    late = Machine(STRANGERS[3])
    assert addresses(site.send(late, late.message(Kind.SOLICIT))[0]) == ()
    for address, stranger in held.items():
        assert site.bind(Machine(stranger)) == (address,)


@pytest.mark.parametrize(
    ("kind", "server", "client"),
    [
        (Kind.SOLICIT, OURS, True),
        (Kind.SOLICIT, b"", False),
        (Kind.REQUEST, b"", True),
        (Kind.RENEW, b"", True),
        (Kind.REBIND, OURS, True),
        (Kind.CONFIRM, OURS, True),
        (Kind.RELEASE, b"", True),
        (Kind.ADVERTISE, OURS, True),
        (Kind.REPLY, OURS, True),
        (Kind.RECONFIGURE, OURS, True),
    ],
)
def test_a_message_that_is_not_as_it_must_be_is_dropped(kind, server, client):
    site, machine = Site(), Machine(A)
    message = machine.message(kind, FIXED[A], server=server, client=client)
    assert site.send(machine, message) == []
    assert (site.last.kind, site.durable) == (DhcpEventKind.IGNORED, {})


def test_who_chooses_another_server_frees_its_offer_and_is_told_of():
    site = Site()
    machine, known = Machine(STRANGERS[0]), Machine(A)
    site.send(machine, machine.message(Kind.SOLICIT))
    assert site.send(machine, machine.message(Kind.REQUEST, RANGE[0], server=b"\0\4another")) == []
    assert {site.bind(Machine(stranger))[0] for stranger in STRANGERS[1:4]} == {RANGE[0], RANGE[0] + 1, RANGE[1]}
    assert site.send(known, known.message(Kind.REQUEST, FIXED[A], server=b"\0\4another")) == []
    assert (site.last.kind, site.last.why) == (DhcpEventKind.REFUSED, "it chose another DHCPv6 server")


def test_who_asks_this_server_alone_is_told_to_ask_all():
    site, machine = Site(), Machine(A)
    octets = dhcpv6.encode(machine.message(Kind.RENEW, FIXED[A], server=OURS))
    site.server.receive(octets, source=FIXED[A], mac=None, now=site.now)
    (reply,) = site.collect()
    assert statuses(reply) == [StatusCode.USE_MULTICAST]
    assert (site.sent[-1].mac, site.sent[-1].address) == (None, FIXED[A])
    site.server.receive(dhcpv6.encode(machine.message(Kind.SOLICIT)), source=FIXED[A], mac=None, now=site.now)
    assert site.collect() == []


# ── relays ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["option 79", "DUID", "peer-address"])
def test_a_machine_behind_a_relay_is_known_by_its_mac(way):
    site = Site()
    machine = Machine(B, duid=b"" if way == "DUID" else b"\0\4uuid")
    more = ((int(Option.INTERFACE_ID), b"south"),)
    if way == "option 79":
        more += ((int(Option.CLIENT_LINK_ADDRESS), b"\0\1" + B.to_octets()),)
    peer = link_local(B) if way == "peer-address" else IPv6Address("fe80::1")
    octets = relayed(dhcpv6.encode(machine.message(Kind.SOLICIT)), peer=peer, more=more)
    site.server.receive(octets, source=RELAY, mac=None, now=site.now)
    (reply,) = site.collect()
    assert isinstance(reply, RelayMessage)
    assert (reply.kind, reply.link_address, reply.peer_address) == (Kind.RELAY_REPLY, FAR, peer)
    assert reply.option(Option.INTERFACE_ID) == b"south"
    assert addresses(dhcpv6.decode(reply.option(Option.RELAY_MESSAGE))) == (FIXED[B],)
    assert (site.sent[-1].mac, site.sent[-1].address, site.sent[-1].port) == (None, RELAY, 547)


def test_an_answer_goes_back_through_every_relay():
    site, machine = Site(), Machine(B)
    inner = relayed(dhcpv6.encode(machine.message(Kind.SOLICIT)), peer=link_local(B))
    outer = relayed(inner, link=IPv6Address("::"), peer=IPv6Address("2001:db8:0:2::1"))
    site.server.receive(outer, source=RELAY, mac=None, now=site.now)
    (first,) = site.collect()
    assert first.peer_address == IPv6Address("2001:db8:0:2::1")
    second = dhcpv6.decode(first.option(Option.RELAY_MESSAGE))
    assert (second.link_address, second.peer_address) == (FAR, link_local(B))
    assert addresses(dhcpv6.decode(second.option(Option.RELAY_MESSAGE))) == (FIXED[B],)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (relayed(b"\1abc", link=IPv6Address("2001:db8::1"), peer=link_local(B)), "is not served"),
        (relayed(b"\1abc", link=IPv6Address("::"), peer=link_local(B)), "does not tell the client's link"),
        (relayed(b"\1abc", peer=IPv6Address("fe80::1")), "option 79"),
        (relayed(b"", peer=link_local(B)), "empty"),
        (dhcpv6.encode(RelayMessage(Kind.RELAY_REPLY, 0, FAR, link_local(B))), "RELAY_REPLY"),
    ],
)
def test_what_no_relay_of_ours_brings_is_dropped(octets, why):
    site = Site()
    site.server.receive(octets, source=RELAY, mac=None, now=site.now)
    assert site.collect() == []
    assert why in site.last.why


def test_a_message_that_passed_nine_relays_is_dropped():
    site, octets = Site(), dhcpv6.encode(Machine(B).message(Kind.SOLICIT))
    for _ in range(9):
        octets = relayed(octets, peer=link_local(B))
    site.server.receive(octets, source=RELAY, mac=None, now=site.now)
    assert (site.collect(), site.last.why) == ([], "RELAY_FORWARD after 8 relays")


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────────

steps = st.lists(
    st.tuples(
        st.sampled_from([A, B, *STRANGERS]),
        st.sampled_from([Kind.SOLICIT, Kind.REQUEST, Kind.RENEW, Kind.REBIND, Kind.RELEASE, Kind.DECLINE, "rapid"]),
        st.sampled_from([*FIXED.values(), *RANGE, RANGE[0] + 1]),
        st.sampled_from([b"", b"\0\4other"]),
        st.sampled_from(["store", "keep", "fail", "restart"]),
        st.sampled_from([0.0, 5.0, 70.0, 700.0]),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_one_address_has_one_machine_at_any_time(story):
    """Whatever is said, stored, lost and restarted: who was acknowledged an address is its only owner until it ends."""
    site, ends = Site(), {}  # address → MAC and until when it was told that it has it
    for mac, kind, address, duid, fate, pause in story:
        site.now += pause
        site.server.handle_timer(now=site.now)
        machine = Machine(mac, duid)
        more = ((int(Option.RAPID_COMMIT), b""),) if kind == "rapid" else ()
        server = OURS if kind in (Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE) else b""
        message = machine.message(Kind.SOLICIT if kind == "rapid" else kind, address, server=server, more=more)
        site.send(machine, message, store=False)
        if fate == "fail":
            for write in site.server.leases_to_store():
                if write.mac is not None:
                    site.server.not_stored(write, "no", now=site.now)
                else:
                    site.durable.pop(write.address, None)
        elif fate != "keep":
            site.store()
        if fate == "restart":
            site.restart()
        for event in site.events:
            if event.kind in (DhcpEventKind.RELEASED, DhcpEventKind.DECLINED):
                ends.pop(event.address, None)
        site.events.clear()
        for datagram in site.sent:
            reply = dhcpv6.decode(datagram.octets)
            if isinstance(reply, Message) and reply.kind is Kind.REPLY:
                for given_now in addresses(reply):
                    owner, until = ends.get(given_now, (datagram.mac, 0.0))
                    assert owner == datagram.mac or until <= site.now
                    assert given_now in site.durable, "an address was acknowledged that is not written down"
                    assert FIXED.get(datagram.mac, given_now) == given_now
                    ends[given_now] = datagram.mac, site.now + LEASE_SECONDS
        site.sent.clear()


@given(st.binary(max_size=120), st.sampled_from([A, None]))
def test_any_octets_are_answered_or_dropped(octets, mac):
    site = Site()
    for sent in (octets, dhcpv6.encode(Machine(A).message(Kind.SOLICIT)) + octets, relayed(octets, peer=link_local(B))):
        site.server.receive(sent, source=RELAY, mac=mac, now=site.now)
    site.store()
