"""The DHCP client, RFC 2131 section 4.4: from no address to a lease, without sockets, clock or randomness.

             start                OFFER                 ACK
    INIT ───────────▶ SELECTING ────────▶ REQUESTING ────────▶ BOUND
                        │  ▲ ▲  NAK, or 4 requests   │
                        └──┘ └───────────────────────┘
                     again, ever later

    start(now=)          receive(octets, now=)      handle_timer(now=) at ``deadline``
    packets_to_send()    payloads for 255.255.255.255, port 67 (section 4.1)
    lease                the ACK once it is bound

Renewal is the caller's: a machine that boots forgets its firmware's lease.
"""

from collections.abc import Mapping
from enum import Enum

from panloom.errors import MalformedError
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Message, MessageType, Op, Option

FIRST_RETRY_SECONDS = 1.0  # iPXE's DHCP_MIN_TIMEOUT; RFC 2131 section 4.1 suggests four
LAST_RETRY_SECONDS = 10.0
_REQUESTS = 4  # of one offer, before another is looked for


class _State(Enum):
    INIT = "init"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    BOUND = "bound"


class DhcpClient:
    """One interface that wants an address; ``options`` go into each of its messages and say what asks."""

    def __init__(self, mac: MacAddress, xid: int, options: Mapping[int, bytes] | None = None) -> None:
        self.mac = mac
        self.lease: Message | None = None
        self.deadline: float | None = None
        self._options = dict(options or {})
        self._xid = xid
        self._state = _State.INIT
        self._offer: Message | None = None
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._requests = 0
        self._began = 0.0
        self._packets: list[bytes] = []

    def start(self, *, now: float) -> None:
        """Ask for an address, whatever it has."""
        self._began = now
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._discover(now)

    def receive(self, octets: bytes, *, now: float) -> None:
        """Take in a datagram to port 68; what is malformed or for somebody else changes nothing."""
        try:
            reply = dhcp.decode(octets)
        except MalformedError:
            return
        if reply.op is not Op.REPLY or reply.xid != self._xid or reply.chaddr != self.mac:
            return
        match self._state, reply.message_type:
            case _State.SELECTING, MessageType.OFFER if reply.address(Option.SERVER_IDENTIFIER) is not None:
                self._state, self._offer, self._requests = _State.REQUESTING, reply, 0
                self._retry_seconds = FIRST_RETRY_SECONDS
                self._request(now)
            case _State.REQUESTING, MessageType.ACK:
                self._state, self.lease, self.deadline = _State.BOUND, reply, None
            case _State.REQUESTING, MessageType.NAK:
                self._discover(now)

    def handle_timer(self, *, now: float) -> None:
        """Send again what was not answered."""
        if self.deadline is None or now < self.deadline:
            return
        self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
        if self._state is _State.REQUESTING and self._requests < _REQUESTS:
            self._request(now)
        else:
            self._discover(now)

    def packets_to_send(self) -> tuple[bytes, ...]:
        """Return the payloads that are due, in order."""
        packets, self._packets = tuple(self._packets), []
        return packets

    def _discover(self, now: float) -> None:
        self._state, self._offer, self.lease = _State.SELECTING, None, None
        self._xid = (self._xid + 1) & 0xFFFFFFFF
        self._send(MessageType.DISCOVER, {}, now)

    def _request(self, now: float) -> None:
        if self._offer is None:
            return
        self._requests += 1
        wanted: dict[int, bytes] = {
            Option.REQUESTED_ADDRESS: self._offer.yiaddr.packed,
            Option.SERVER_IDENTIFIER: self._offer.options[Option.SERVER_IDENTIFIER],
        }
        self._send(MessageType.REQUEST, wanted, now)

    def _send(self, kind: MessageType, options: Mapping[int, bytes], now: float) -> None:
        message = Message(
            op=Op.REQUEST,
            xid=self._xid,
            chaddr=self.mac,
            secs=min(int(now - self._began), 0xFFFF),
            options={Option.MESSAGE_TYPE: bytes((kind,)), **self._options, **options},
        )
        self._packets.append(dhcp.encode(message))
        self.deadline = now + self._retry_seconds
