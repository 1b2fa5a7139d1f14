"""The DHCP server, RFC 2131 sections 3 and 4.3, without sockets, clock or store.

    receive(octets, now=)        a datagram came in
    handle_timer(now=)           offers and leases run out; wanted at ``deadline``
    probes_to_send()             addresses of which somebody may say that it has them; then answered(…)
    leases_to_store()            must be durable before their ACK; then stored(…) or not_stored(…)
    packets_to_send()            OFFER, ACK, NAK
    events()                     what changed, and what was refused and why

What a client may have is the desk's to say; that one address has one holder at any time is ``dhcp_leases``' to hold.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Protocol

from panloom.errors import MalformedError
from panloom.protocol.dhcp_leases import Assignment, Holder, Lease, LeaseState, client_of
from panloom.protocol.dhcp_probes import Probes
from panloom.protocol.dhcp_reply import reply_to, to_relay
from panloom.protocol.lease_server import LEASE_SECONDS, OFFER_SECONDS, Datagram, DhcpEventKind, LeaseServer, LeaseWrite
from panloom.values import MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import BROADCAST, UNSPECIFIED, Message, MessageType, Op, Option, RelayAgent
from panloom.wire.internet import BROADCAST_MAC


class Desk(Protocol):
    """Who may have what; its answers may change between two calls."""

    def assignment(self, request: Message) -> Assignment | None:
        """Return what the sender may have, None if it is to hear nothing."""
        ...

    def acknowledged(self, request: Message, address: IPv4Address, *, now: float) -> bytes:
        """Note that the sender now has ``address``, and return its boot file name, empty for none."""
        ...

    def serves(self, address: IPv4Address) -> bool:
        """Return whether ``address`` belongs to a network that is served here, no router between."""
        ...

    def relays(self, address: IPv4Address) -> bool:
        """Return whether ``address`` is a relay whose requests are answered."""
        ...


class DhcpServer(LeaseServer[IPv4Address]):
    """The leases of one interface."""

    def __init__(self, address: IPv4Address, desk: Desk) -> None:
        super().__init__()
        self._address = address
        self._desk = desk
        self._probes = Probes()

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""
        return min((at for at in (super().deadline, self._probes.deadline) if at is not None), default=None)

    def receive(self, octets: bytes, *, now: float) -> None:
        """Take in one datagram, whatever it holds."""
        self._tick(now)
        try:
            request = dhcp.decode(octets)
        except MalformedError as error:
            self._event(DhcpEventKind.IGNORED, None, None, str(error))
            return
        if request.op is not Op.REQUEST:
            self._event(DhcpEventKind.IGNORED, request.chaddr, None, "another server's reply")
        elif request.giaddr != UNSPECIFIED and not self._desk.relays(request.giaddr):
            self._event(DhcpEventKind.IGNORED, request.chaddr, None, f"relayed by {request.giaddr}, which is no relay")
        else:
            self._dispatch(request)

    def handle_timer(self, *, now: float) -> None:
        """Let run out what has run out, and go on with whose address nobody has answered for."""
        self._tick(now)
        for address, lease in self._probes.handle_timer(now=self._now):
            if self._leases.get(address) is lease and lease.state is LeaseState.PROBING:
                lease.state, requests, lease.requests = LeaseState.OFFERED, lease.requests, []
                for request in requests:
                    self._dispatch(request)
        super().handle_timer(now=now)

    def answered(self, address: IPv4Address, mac: MacAddress, *, now: float) -> None:
        """Note that ``mac`` says it has an address: if that was about to be lent to another machine, it is not."""
        self._tick(now)
        lease = self._leases.get(address)
        if lease is None or lease.state is not LeaseState.PROBING or mac in (lease.holder.mac, *lease.kin):
            return
        self._rest(address, mac)
        self._event(DhcpEventKind.REFUSED, lease.holder.mac, address, f"{address} is in use by {mac}, not by lease")
        for request in lease.requests:
            self._dispatch(request)

    def stored(self, write: LeaseWrite[IPv4Address], *, now: float) -> None:
        """Note that a lease of ``leases_to_store`` is durable; its ACK goes out if the client may still have it."""
        lease = self._awaited(write, now)
        if lease is None:
            return
        requests, lease.requests = lease.requests, []
        believed_until = lease.durable_until
        self._bind(lease, write.seconds)
        refused = [request for request in requests if not self._acknowledge(request, write.address)]
        if len(refused) == len(requests):
            if believed_until is None:
                self._end(write.address)
            else:  # the NAK may be lost
                lease.until = lease.durable_until = believed_until
        for request in refused:
            self._nak(request, write.address, "no longer this machine's address")

    def probes_to_send(self) -> tuple[IPv4Address, ...]:
        """Return the addresses for which all on the wire must be asked, by ARP."""
        return self._probes.to_send()

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self, request: Message) -> None:
        match request.message_type:
            case MessageType.DISCOVER:
                self._discover(request)
            case MessageType.REQUEST:
                self._request(request)
            case MessageType.DECLINE:
                self._decline(request)
            case MessageType.RELEASE:
                self._release(request)
            case MessageType.INFORM:
                self._inform(request)
            case other:
                what = "plain BOOTP" if other is None else f"a client that sends {other.name}"
                self._event(DhcpEventKind.IGNORED, request.chaddr, None, what)

    def _discover(self, request: Message) -> None:
        assignment = self._desk.assignment(request)
        if assignment is None:
            self._event(DhcpEventKind.IGNORED, request.chaddr, None, "neither known nor booting from the network")
            return
        holder = assignment.holder(request)
        address = self._leases.choose(assignment, holder, request.address(Option.REQUESTED_ADDRESS), self._now)
        if not self._can_have(address, request.chaddr, assignment):
            return
        lease = self._running(address)
        if lease is None:
            lease = self._begin(request, address, assignment)
        elif lease.state in (LeaseState.PROBING, LeaseState.OFFERED):
            lease.until = self._now + OFFER_SECONDS
        if lease.state is LeaseState.PROBING:
            lease.wait(request)
            return
        times: dict[int, bytes] = {Option.LEASE_TIME: LEASE_SECONDS.to_bytes(4, "big")}
        self._reply(request, MessageType.OFFER, address, times | dict(assignment.options), assignment.file)
        self._event(DhcpEventKind.OFFERED, request.chaddr, address)

    def _request(self, request: Message) -> None:
        mac, server = request.chaddr, request.address(Option.SERVER_IDENTIFIER)
        if not self._is_ours(request, server):
            for address in self._leases.held(client_of(request), LeaseState.PROBING, LeaseState.OFFERED):
                self._leases.forget(address)
            # A machine of ours boots what that one says, or nothing: its boot is told of it, not the log alone.
            kind = DhcpEventKind.IGNORED if self._desk.assignment(request) is None else DhcpEventKind.REFUSED
            self._event(kind, mac, None, f"it chose another DHCP server, {server}")
            return
        address = request.address(Option.REQUESTED_ADDRESS) or request.ciaddr
        if address == UNSPECIFIED:
            self._event(DhcpEventKind.IGNORED, mac, None, "it requests no address")
            return
        assignment = self._desk.assignment(request)
        if assignment is None:
            if address in self._leases.held(Holder(mac)):
                self._nak(request, address, "no longer this machine's address")
            else:
                self._event(DhcpEventKind.IGNORED, mac, None, "neither known nor booting from the network")
        elif not assignment.allows(address):
            self._nak(request, address, "not this machine's address")
        elif not self._leases.is_free_for(address, assignment.holder(request), self._now):
            self._nak(request, address, "in use by another machine")
        else:
            self._store(request, address, assignment)

    def _store(self, request: Message, address: IPv4Address, assignment: Assignment) -> None:
        if not self._can_have(address, request.chaddr, assignment):
            return
        lease = self._running(address) or self._begin(request, address, assignment)
        if self._is_stored(address, lease, assignment.holder(request)):
            self._acknowledge(request, address)
        else:
            lease.wait(request)

    def _acknowledge(self, request: Message, address: IPv4Address) -> bool:
        """Answer a request whose lease is durable; False if the client may not have the address any more."""
        assignment = self._desk.assignment(request)
        if assignment is None or not assignment.allows(address):
            return False
        file = self._desk.acknowledged(request, address, now=self._now)
        times: dict[int, bytes] = {Option.LEASE_TIME: LEASE_SECONDS.to_bytes(4, "big")}
        self._reply(request, MessageType.ACK, address, times | dict(assignment.options), file)
        self._event(DhcpEventKind.BOUND, request.chaddr, address)
        return True

    def _decline(self, request: Message) -> None:
        address = request.address(Option.REQUESTED_ADDRESS) or UNSPECIFIED
        if not self._is_its_own(request, address):
            self._event(DhcpEventKind.IGNORED, request.chaddr, address, "it declines what it does not have")
            return
        self._rest(address, request.chaddr)
        self._event(DhcpEventKind.DECLINED, request.chaddr, address, "the machine says that another one uses it")

    def _release(self, request: Message) -> None:
        if not self._is_its_own(request, request.ciaddr):
            self._event(DhcpEventKind.IGNORED, request.chaddr, request.ciaddr, "it releases what it does not have")
            return
        self._end(request.ciaddr)
        self._event(DhcpEventKind.RELEASED, request.chaddr, request.ciaddr)

    def _inform(self, request: Message) -> None:
        assignment = self._desk.assignment(request)
        if assignment is None or not assignment.allows(request.ciaddr):
            self._event(DhcpEventKind.IGNORED, request.chaddr, request.ciaddr, "it asks about what is not its own")
            return
        self._reply(request, MessageType.ACK, UNSPECIFIED, assignment.options, b"")

    # ── replies ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _nak(self, request: Message, address: IPv4Address, why: str) -> None:
        self._reply(request, MessageType.NAK, UNSPECIFIED, {Option.MESSAGE: why.encode()}, b"")
        self._event(DhcpEventKind.REFUSED, request.chaddr, address, why)

    def _reply(
        self, request: Message, kind: MessageType, yiaddr: IPv4Address, options: Mapping[int, bytes], file: bytes
    ) -> None:
        """Answer where RFC 2131 section 4.1 says."""
        reply = reply_to(request, kind, self._address, yiaddr=yiaddr, options=options, file=file)
        octets, nak, ciaddr = dhcp.encode(reply), kind is MessageType.NAK, reply.ciaddr
        if request.giaddr != UNSPECIFIED:
            self._packets.append(to_relay(reply))
        elif ciaddr != UNSPECIFIED and not self._desk.serves(ciaddr):
            self._packets.append(Datagram(octets, None, ciaddr, dhcp.CLIENT_PORT))
        elif nak or (request.broadcast and ciaddr == UNSPECIFIED):
            self._packets.append(Datagram(octets, BROADCAST_MAC, BROADCAST, dhcp.CLIENT_PORT))
        else:
            address = yiaddr if ciaddr == UNSPECIFIED else ciaddr
            self._packets.append(Datagram(octets, request.chaddr, address, dhcp.CLIENT_PORT))

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, request: Message, address: IPv4Address, assignment: Assignment) -> Lease:
        """Give an address that nobody has, or whose lease is over, to the sender, if nobody on the wire has it.

        An address that is the sender's alone is not asked for: whoever else answered could keep a machine from booting.
        """
        holder = assignment.holder(request)
        if assignment.is_fixed or request.giaddr != UNSPECIFIED or not self._desk.serves(address):
            return self._lend(address, holder)
        lease = self._lend(address, holder, LeaseState.PROBING)
        lease.kin = assignment.kin
        self._probes.begin(address, lease, now=self._now)
        return lease

    def _is_its_own(self, request: Message, address: IPv4Address) -> bool:
        """Return whether the sender has been acknowledged the address, and means this server."""
        lease = self._leases.get(address)
        sender = client_of(request)
        to_us = self._is_ours(request, request.address(Option.SERVER_IDENTIFIER))
        return lease is not None and lease.state is LeaseState.BOUND and sender.speaks_for(lease.holder) and to_us

    def _is_ours(self, request: Message, server: IPv4Address | None) -> bool:
        """Return whether a server identifier means us: none, our address, or that of the relay in our place."""
        return server in (None, self._address, request.relayed(RelayAgent.SERVER_OVERRIDE))
