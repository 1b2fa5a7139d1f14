"""The DHCP server under any script of messages, times, restarts, and a store that fails.

message   made up of plausible parts: any machine, kind, addresses, options
octets    anything at all
time      forwards and backwards
answer    somebody says that it has an address
store     what waits becomes durable, or does not
restart   what is durable is found
table     other machines
"""

from ipaddress import IPv4Address, IPv4Network

from fuzz.tape import Script, Tape
from fuzz.target import target
from panloom.boot.desk import BootDesk
from panloom.boot.file_root import FileRoot
from panloom.decide.boot_answer import BootNode, BootServer, BootTable, ServerNic
from panloom.protocol.dhcp_leases import Holder, LeaseState
from panloom.protocol.dhcp_server import DhcpServer
from panloom.protocol.lease_server import LEASE_SECONDS
from panloom.values import Iqn, MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option

OURS = IPv4Address("10.77.0.1")
NODE, SPARE, NIC = (MacAddress.parse(f"52:54:00:77:00:0{number}") for number in (1, 2, 3))
STRANGERS = tuple(MacAddress.parse(f"52:54:00:77:01:{number:02x}") for number in range(13))
MACS = (NODE, SPARE, NIC, *STRANGERS)
NETWORK = IPv4Network("10.77.0.0/24")
DISCOVERY = (IPv4Address("10.77.0.200"), IPv4Address("10.77.0.203"))
RANGE = (IPv4Address("10.99.0.10"), IPv4Address("10.99.0.12"))
ADDRESSES = (
    *map(
        IPv4Address, ("0.0.0.0", "10.77.0.1", "10.77.0.51", "10.77.0.52", "10.77.0.200", "10.77.0.201", "10.77.0.203")
    ),
    *map(IPv4Address, ("10.99.0.10", "10.99.0.12", "10.99.0.1", "192.0.2.1", "255.255.255.255")),
)
SERVER = BootServer("shop/web1", 1, Iqn("iqn.2026-11.dev.panloom:web1"), Iqn("iqn.2026-11.dev.panloom:n1"), "u", "s")
FIRMWARE = (
    {},
    {Option.USER_CLASS: b"iPXE"},
    {Option.VENDOR_CLASS: b"PXEClient:Arch:00000:UNDI:002001", Option.CLIENT_ARCHITECTURE: b"\0\0"},
    {Option.VENDOR_CLASS: b"HTTPClient:Arch:00016:UNDI:003001", Option.CLIENT_ARCHITECTURE: b"\0\x10"},
)
ACTS = (
    "message",
    "message",
    "message",
    "message",
    "octets",
    "time",
    "time",
    "store",
    "store",
    "fail",
    "restart",
    "table",
    "answer",
)


def _table(node: MacAddress) -> BootTable:
    """Return a table in which ``node`` carries the server."""
    nodes = [
        BootNode(f"n{n}", mac, OURS + 49 + n, SERVER if mac == node else None) for n, mac in ((1, NODE), (2, SPARE))
    ]
    nic = ServerNic(
        "shop/web1", NIC, "front", IPv4Network("10.99.0.0/24"), range=RANGE, router=IPv4Address("10.99.0.1")
    )
    return BootTable("br0", OURS, NETWORK, discovery=DISCOVERY, nodes=tuple(nodes), nics=(nic,))


class _Site:
    """A server, its store, and what every client has been promised."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events = []
        self.desk = BootDesk(_table(NODE), FileRoot(None), self.events.append, lambda: "t" * 24)
        self.durable: dict[IPv4Address, Holder] = {}
        self.unwritten = []
        self.promised: dict[IPv4Address, tuple[Holder, float]] = {}
        self.server = DhcpServer(OURS, self.desk)

    def receive(self, octets: bytes) -> None:
        self._give_back(octets)
        self.server.receive(octets, now=self.now)
        self.look(answers=1)

    def store(self, *, works: bool) -> None:
        """Let the first write that waits end."""
        if self.unwritten:
            write = self.unwritten.pop(0)
            if not works:
                self.server.not_stored(write, "the disk is full", now=self.now)
            elif write.mac is None:
                self.durable.pop(write.address, None)
                self.server.stored(write, now=self.now)
            else:
                self.durable[write.address] = Holder(write.mac, write.client)
                self.server.stored(write, now=self.now)
            self.look(answers=1)

    def restart(self) -> None:
        self.server = DhcpServer(OURS, self.desk)
        self.unwritten = []
        self.server.found(self.durable.items(), now=self.now)

    def pass_time(self, seconds: float) -> None:
        self.now = max(self.now + seconds, 0.0)
        waiting = self.waiting()
        self.server.handle_timer(now=self.now)
        self.look(answers=waiting)

    def answer(self, address: IPv4Address, mac: MacAddress) -> None:
        waiting = self.waiting()
        self.server.answered(address, mac, now=self.now)
        self.look(answers=waiting)

    def waiting(self) -> int:
        """Return how many requests wait for the end of a probe."""
        leases = self.server._leases._leases.values()
        return sum(len(lease.requests) for lease in leases if lease.state is LeaseState.PROBING)

    def look(self, *, answers: int) -> None:
        """Check what came of an input."""
        packets = self.server.packets_to_send()
        assert len(packets) <= answers
        assert len(self.server.events()) <= 2 + answers
        self.server.probes_to_send()
        for packet in packets:
            reply = dhcp.decode(packet.octets)
            assert reply.op is Op.REPLY
            if reply.message_type is MessageType.ACK and int(reply.yiaddr):
                self._promise(reply.yiaddr, _holder(reply))
        self.unwritten += self.server.leases_to_store()
        leases = self.server._leases
        assert len(leases) <= 9 + len(self.durable)  # as many as there are addresses to give
        assert sum(map(len, leases._of_mac.values())) == len(leases)
        self.events.clear()

    def _promise(self, address: IPv4Address, holder: Holder) -> None:
        mac = holder.mac
        owner, until = self.promised.get(address, (holder, 0.0))
        assert owner == holder or until <= self.now, f"{address} is {owner}'s and is given to {holder}"
        assert self.durable.get(address) == holder, f"{address} is given to {holder} before it is durable"
        assert (address in NETWORK) != (mac == NIC)
        assert mac not in (NODE, SPARE) or address == OURS + (50 if mac == NODE else 51)
        self.promised[address] = (holder, self.now + LEASE_SECONDS)

    def _give_back(self, octets: bytes) -> None:
        """Who says that it no longer has an address is promised nothing any more."""
        try:
            message = dhcp.decode(octets)
        except dhcp.MalformedError:
            return
        for address in (message.ciaddr, message.address(Option.REQUESTED_ADDRESS)):
            mine = self.promised.get(address, (None,))[0] == _holder(message)
            if mine and message.message_type in (MessageType.RELEASE, MessageType.DECLINE):
                del self.promised[address]


def _holder(message: Message) -> Holder:
    """Return who is promised an address: the clients of the NIC have one each."""
    client = message.options.get(Option.CLIENT_IDENTIFIER, b"") if message.chaddr == NIC else None
    return Holder(message.chaddr, client)


def _message(tape: Tape) -> bytes:
    options = {Option.MESSAGE_TYPE: bytes((tape.number() % 9,)), **tape.pick(FIRMWARE)}
    mac, extra = tape.pick(MACS), tape.number()
    for bit, option in ((1, Option.REQUESTED_ADDRESS), (2, Option.SERVER_IDENTIFIER)):
        if extra & bit:
            options[option] = tape.pick(ADDRESSES).packed
    fields = {name: tape.pick(ADDRESSES) for bit, name in ((4, "ciaddr"), (8, "giaddr")) if extra & bit}
    if extra & 16:
        options[max(1, tape.number() % 255)] = tape.piece()[:300]
    if extra & 128:
        options[Option.CLIENT_IDENTIFIER] = tape.piece()[:2]
    options.pop(52, None)
    op = Op.REPLY if extra & 64 else Op.REQUEST
    return dhcp.encode(Message(op=op, xid=7, chaddr=mac, broadcast=bool(extra & 32), options=options, **fields))


def _seeds():
    discover, request = MessageType.DISCOVER, MessageType.REQUEST
    whole = Script()
    for mac, address in ((NODE, ADDRESSES[2]), (STRANGERS[0], ADDRESSES[4]), (NIC, ADDRESSES[7])):
        firmware = 0 if mac == NIC else 1
        whole.number(0).number(discover).number(firmware).pick(MACS, mac).number(0)
        whole.number(0).number(request).number(firmware).pick(MACS, mac).number(3)
        whole.pick(ADDRESSES, address).pick(ADDRESSES, OURS)
        whole.pick(ACTS, "time").number(1010, 2).pick(ACTS, "time").number(1010, 2).pick(ACTS, "store")
        whole.number(0).number(MessageType.RELEASE).number(1).pick(MACS, mac).number(4).pick(ADDRESSES, address)
        whole.pick(ACTS, "store").pick(ACTS, "time").number(50, 2)
    yield whole.octets
    overloaded = dhcp.encode(Message(op=Op.REQUEST, xid=1, chaddr=NODE, options={53: b"\1", 224: b"\1"}))
    yield Script().pick(ACTS, "octets").piece(overloaded.replace(b"\xe0\1\1", b"\x34\1\3")).octets
    yield whole.pick(ACTS, "restart").pick(ACTS, "table").number(1).octets + whole.octets


@target(seeds=_seeds)
def server(octets):
    """No script of messages, time, store and restarts gives one address to two machines, or answers twice."""
    tape, site = Tape(octets), _Site()
    while not tape.is_over:
        match tape.pick(ACTS):
            case "message":
                site.receive(_message(tape))
            case "octets":
                site.receive(tape.piece())
            case "time":
                site.pass_time((tape.number(2) - 1000) / 20)  # some of it backwards
            case "answer":
                site.answer(tape.pick(ADDRESSES), tape.pick(MACS))
            case "store":
                site.store(works=True)
            case "fail":
                site.store(works=False)
            case "restart":
                site.restart()
            case "table":
                site.desk.replace(_table(tape.pick((NODE, SPARE))))
