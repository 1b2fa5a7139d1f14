"""Bad input of DHCP, item by item, against the real services: what is sent, what is answered, what the log says.

A node's own client is bound before, between and after: whatever others send, its address stays its own.
"""

import itertools
from ipaddress import IPv4Address

import pytest

from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option
from panloom.wire.internet import BROADCAST_MAC, UdpFrame, encode_udp_frame
from support.boot_chassis import MACS, boot_services, server, table
from support.dhcp_client import IPXE, PXE_BIOS, PXE_EFI, DhcpClient
from support.dhcp_wire import DhcpWire
from support.waiting import until

OURS, N1, N2 = (IPv4Address(f"10.77.0.{host}") for host in (1, 51, 52))
FOREIGN = IPv4Address("192.0.2.7")
OPTIONS = 240  # where they begin
XID = 0x5EED0000
NAK, OFFER, ACK, NOTHING = MessageType.NAK, MessageType.OFFER, MessageType.ACK, None
IGNORED = "dhcp=ignored"
_xids = itertools.count(0x10000, 16)


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with boot_services(tmp_path_factory.mktemp("dhcp"), table(n1=server())) as running:
        yield running


@pytest.fixture
def wire(services):
    with DhcpWire(services.chassis["n1"]) as wire:
        yield wire


def client(mac=MACS["n1"]):
    """Return a client whose exchange has a number of its own: no late answer to another is taken for one to it."""
    made = DhcpClient(mac, IPXE)
    made.xid = next(_xids)
    return made


def message(kind=MessageType.DISCOVER, options=None, *, mac=MACS["n1"], **fields):
    """Return a message of n1's, or of another machine."""
    whole = {Option.MESSAGE_TYPE: bytes((kind,)), **IPXE, **(options or {})}
    return Message(**{"op": Op.REQUEST, "xid": XID, "chaddr": MacAddress.parse(mac), "options": whole, **fields})


GOOD = dhcp.encode(message())


def patched(at, octets):
    """Return a good DISCOVER with other octets at one place."""
    return GOOD[:at] + octets + GOOD[at + len(octets) :]


def ending(options):
    """Return a good header with these octets for options."""
    return GOOD[:OPTIONS] + options


def asking(kind, mac=MACS["n1"], **given):
    """Return a message with addresses in options and fields, by their names."""
    options = {
        getattr(Option, name.upper()): given.pop(name).packed
        for name in tuple(given)
        if name.upper() in Option.__members__
    }
    return dhcp.encode(message(kind, options, mac=mac, **given))


DISCOVER, REQUEST, DECLINE, RELEASE, INFORM = (
    *(MessageType.DISCOVER, MessageType.REQUEST, MessageType.DECLINE, MessageType.RELEASE, MessageType.INFORM),
)
SHAPES = {
    "a wrong cookie": (patched(236, b"\0\0\0\0"), NOTHING, "the magic cookie is wrong"),
    **{f"hlen {hlen}": (patched(2, bytes((hlen,))), NOTHING, "is not Ethernet") for hlen in (0, 5, 17, 255)},
    "htype of a token ring": (patched(1, b"\x06"), NOTHING, "is not Ethernet"),
    **{f"op {op}": (patched(0, bytes((op,))), NOTHING, "neither request nor reply") for op in (0, 3, 255)},
    "another server's OFFER": (patched(0, b"\x02"), NOTHING, "another server's reply"),
    "a multicast chaddr": (patched(28, b"\x01"), NOTHING, "nobody's own address"),
    "a chaddr of zeroes": (patched(28, bytes(6)), NOTHING, "nobody's own address"),
    "no options": (ending(b""), NOTHING, "no END"),
    "no END": (ending(b"\x35\1\1"), NOTHING, "no END"),
    "no END among 1,100 pads": (ending(b"\x35\1\1" + bytes(1100)), NOTHING, "no END"),
    "an option past the end": (ending(b"\x35\1\1\x3d\xff" + bytes(100)), NOTHING, "runs past the end"),
    "an option without a length": (ending(b"\x35\1\1\x3d"), NOTHING, "runs past the end"),
    "an overload of both fields that are empty": (ending(b"\x35\1\1\x34\1\3\xff"), NOTHING, "no END in file"),
    "an overload of 4": (ending(b"\x35\1\1\x34\1\4\xff"), NOTHING, "option 52 is 04"),
    "an overload of two octets": (ending(b"\x35\1\1\x34\2\1\1\xff"), NOTHING, "option 52 is 0101"),
    "an overload within an overload": (
        GOOD[:108] + b"\x34\1\1\xff".ljust(128, b"\0") + GOOD[236:OPTIONS] + b"\x35\1\1\x34\1\1\xff",
        NOTHING, "within an overloaded field",
    ),
    "no message type": (ending(b"\x3d\1x\xff"), NOTHING, "plain BOOTP"),
    **{f"message type {kind}": (ending(bytes((53, 1, kind, 255))), NOTHING, "is unknown") for kind in (0, 9, 254)},
    "a message type of two octets": (ending(b"\x35\2\1\1\xff"), NOTHING, "option 53 has 2 octets"),
    "a message type said twice": (ending(b"\x35\1\1\x35\1\1\xff"), NOTHING, "option 53 has 2 octets"),
    "an ACK from a client": (ending(b"\x35\1\5\xff"), NOTHING, "a client that sends ACK"),
    "an address of three octets": (ending(b"\x35\1\1\x32\3\x0a\x4d\0\xff"), NOTHING, "option 50 has 3 octets"),
    "a server of no octets": (ending(b"\x35\1\3\x36\0\xff"), NOTHING, "option 54 has 0 octets"),
    "a size of one octet": (ending(b"\x35\1\1\x39\1\1\xff"), NOTHING, "option 57 has 1 octets"),
    "a client architecture of one octet": (ending(b"\x35\1\1\x5d\1\0\xff"), NOTHING, "option 93 has 1 octets"),
    "a client architecture of no octets": (ending(b"\x35\1\1\x5d\0\xff"), NOTHING, "option 93 has 0 octets"),
    "a network interface of two octets": (ending(b"\x35\1\1\x5e\2\1\2\xff"), NOTHING, "option 94 has 2 octets"),
    "a machine of 16 octets": (ending(b"\x35\1\1\x61\x10" + bytes(16) + b"\xff"), NOTHING, "option 97 has 16 octets"),
}  # fmt: skip

ADDRESSES = {
    "a foreign address": (asking(REQUEST, requested_address=FOREIGN, server_identifier=OURS), NAK, ""),
    "another node's address": (asking(REQUEST, requested_address=N2, server_identifier=OURS), NAK, ""),
    "our own address": (asking(REQUEST, requested_address=OURS, server_identifier=OURS), NAK, ""),
    "the broadcast address": (asking(REQUEST, requested_address=IPv4Address("255.255.255.255")), NAK, ""),
    "another server chosen": (
        asking(REQUEST, requested_address=N1, server_identifier=FOREIGN), NOTHING,
        "it chose another DHCP server, 192.0.2.7"
    ),
    "no address": (asking(REQUEST, server_identifier=OURS), NOTHING, "requests no address"),
    "a renewal of a foreign address": (asking(REQUEST, ciaddr=FOREIGN), NAK, ""),
    "a renewal of another node's address": (asking(REQUEST, ciaddr=N2), NAK, ""),
    "a wish for a foreign address": (asking(DISCOVER, requested_address=FOREIGN), OFFER, ""),
    "a relay of a foreign network": (asking(DISCOVER, giaddr=FOREIGN), NOTHING, "which is no relay"),
    "a relay that is the broadcast address": (
        asking(DISCOVER, giaddr=IPv4Address("255.255.255.255")), NOTHING, "which is no relay"
    ),
    "a DECLINE of another's address": (asking(DECLINE, MACS["n2"], requested_address=N1), NOTHING, "does not have"),
    "a DECLINE of a foreign address": (asking(DECLINE, requested_address=FOREIGN), NOTHING, "does not have"),
    "a DECLINE of nothing": (asking(DECLINE), NOTHING, "does not have"),
    "a RELEASE of another's address": (asking(RELEASE, MACS["n2"], ciaddr=N1), NOTHING, "does not have"),
    "a RELEASE of nothing": (asking(RELEASE), NOTHING, "does not have"),
    "an INFORM about another's address": (asking(INFORM, MACS["n2"], ciaddr=N1), NOTHING, "not its own"),
    "an INFORM of a stranger": (asking(INFORM, "52:54:00:99:00:01", ciaddr=N1), NOTHING, "not its own"),
    "a request of nobody's client": (
        dhcp.encode(Message(op=Op.REQUEST, xid=XID, chaddr=MacAddress(0x525400990001), options={53: b"\1"})),
        NOTHING, "neither known nor booting",
    ),
}  # fmt: skip

FREE = {*range(1, 255)} - {*dhcp._LENGTHS, 52, 53, 93}  # options of any length
PXE = {
    "a client identifier of 255 octets": (dhcp.encode(message(options={61: b"i" * 255})), OFFER, ""),
    "a client identifier of 600 octets": (dhcp.encode(message(options={61: b"i" * 600})), OFFER, ""),
    "a client identifier of no octets": (dhcp.encode(message(options={61: b""})), OFFER, ""),
    "a vendor class that is none": (dhcp.encode(message(options={60: b"\xff" * 255})), OFFER, ""),
    "a vendor class cut short": (dhcp.encode(message(options={60: b"PXEClient:Arch:000"})), OFFER, ""),
    "vendor options that lie": (dhcp.encode(message(options={43: b"\x06\xff\x08"})), OFFER, ""),
    "an architecture that is none": (dhcp.encode(message(options={**PXE_BIOS, 93: b"\xff\xff"})), OFFER, ""),
    "a hundred architectures": (dhcp.encode(message(options={**PXE_EFI, 93: b"\0\7" * 100})), OFFER, ""),
    "a user class that lies of its length": (dhcp.encode(message(options={77: b"\xffiPXE"})), OFFER, ""),
    "a relay's option that lies, without a relay": (dhcp.encode(message(options={82: b"\1\xffx"})), OFFER, ""),
    "every option there is": (dhcp.encode(message(options=dict.fromkeys(FREE, b"x"))), OFFER, ""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("octets", "answer", "line"),
    [
        pytest.param(*row, id=f"{family}: {name}")
        for family, rows in (("shapes", SHAPES), ("addresses", ADDRESSES), ("firmware", PXE))
        for name, row in rows.items()
    ],
)
def test_bad_input(services, wire, caplog, octets, answer, line):
    assert wire.bind(client()).yiaddr == N1
    caplog.set_level("INFO", "panloom.boot")
    caplog.clear()
    assert [reply.message_type for reply in wire.answers_by_then(octets, XID)] == ([answer] if answer else [])
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    about = [each for each in lines if each.startswith((IGNORED, "boot=refused"))]
    assert len(about) == (1 if line or answer is NAK else 0)
    assert not line or line in about[0]
    assert wire.bind(client()).yiaddr == N1


def test_every_length_below_a_whole_header_is_silence(services, wire, caplog):
    caplog.set_level("INFO", "panloom.boot")
    for length in range(OPTIONS):
        if length % 40:
            wire.send(GOOD[:length], MacAddress.parse(MACS["n1"]))
        else:  # no more at once than a socket holds
            assert wire.answers_by_then(GOOD[:length], XID) == []
    assert wire.answers_by_then(b"", XID) == []
    assert sum("too few for DHCP" in record.getMessage() for record in caplog.records) == OPTIONS + 1


@pytest.mark.parametrize("octets", [0, 7, 9, 600, 65535])
def test_a_length_of_udp_that_lies_is_silence(services, wire, octets):
    frame = bytearray(encode_udp_frame(_frame(GOOD)))
    frame[38:40] = octets.to_bytes(2, "big")
    wire.send_frame(bytes(frame))
    assert wire.answers_by_then(b"", XID) == []


def _frame(payload):
    mac, nobody, everybody = MacAddress.parse(MACS["n1"]), IPv4Address(0), IPv4Address("255.255.255.255")
    return UdpFrame(BROADCAST_MAC, mac, everybody, nobody, dhcp.SERVER_PORT, dhcp.CLIENT_PORT, payload)


def test_two_machines_with_one_xid_have_an_address_each(services, wire):
    first, second = client(MACS["stranger"]), client("52:54:00:77:00:98")
    first.xid = second.xid = XID
    assert wire.bind(first).yiaddr != wire.bind(second).yiaddr
    for each in (first, second):
        wire.send(dhcp.encode(each.release()), each.mac)


def test_a_storm_of_one_client_is_one_lease(services, wire):
    stormy = client()
    for _ in range(3000):
        wire.send(dhcp.encode(stormy.discover()), stormy.mac)
    assert bound_in_a_storm(wire, client()) == N1


def test_a_flood_of_declines_costs_who_sends_them_its_own_address_and_nobody_else(services, wire):
    stranger = client(MACS["stranger"])
    address = wire.bind(stranger).yiaddr
    decline = dhcp.encode(stranger.decline())
    for _ in range(1000):
        wire.send(decline, stranger.mac)
        wire.send(asking(DECLINE, MACS["stranger"], requested_address=N1), stranger.mac)
    assert bound_in_a_storm(wire, client()) == N1
    other = client("52:54:00:77:00:97")
    assert wire.bind(other).yiaddr != address
    wire.send(dhcp.encode(other.release()), other.mac)


def bound_in_a_storm(wire, machine):
    """Bind a client that asks until it is answered: in a storm the kernel drops what nobody has read yet."""
    insist(wire, machine, machine.discover(), lambda: machine.offer)
    insist(wire, machine, machine.request(), lambda: machine.ack)
    return machine.address


def insist(wire, machine, message, answer):
    def asked_again():
        wire.send(dhcp.encode(message), machine.mac)
        for reply in wire.answers_to(message):
            machine.receive(dhcp.encode(reply))
        return answer()

    until(asked_again, f"an answer to {message} in the storm")


def test_65000_machines_that_starve_the_range_do_not_touch_a_node(services, wire):
    """They share the four addresses of the discovery range; a node has its own."""
    for number in range(65_000):
        mac = MacAddress(0x525400AA0000 + number)
        wire.send(dhcp.encode(message(mac=str(mac), xid=number)), mac)
        if number % 13_000 == 0:
            assert bound_in_a_storm(wire, client()) == N1
    assert bound_in_a_storm(wire, client()) == N1
    assert bound_in_a_storm(wire, client(MACS["n2"])) == N2
