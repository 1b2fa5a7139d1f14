"""The DHCPv6 server, RFC 8415 sections 18.3 and 19, without sockets, clock or store.

    receive(octets, source=, mac=, now=)   a datagram came in, straight from a machine (``mac``) or from a relay
    handle_timer(now=)                     offers and leases run out; wanted at ``deadline``
    leases_to_store()                      must be durable before their REPLY; then stored(…) or not_stored(…)
    packets_to_send()                      ADVERTISE and REPLY, within RELAY-REPL for a relay
    events()                               what changed, and what was refused and why

              SOLICIT              REQUEST, or rapid commit         stored
        free ─────────▶ OFFERED ──────────────────────────▶ STORING ─────▶ BOUND ──┐ RENEW, REBIND: STORING again,
         ▲                │ 10 s                               │ not stored  │ │ ▲ │ unless it was stored lately
         │◀───────────────┴────────────────────────────────────┴─────────────┤ │ └─┘
         │◀────────────────────── RELEASE, lease over ───────────────────────┘ │
         │◀── 60 s ── DECLINED ◀────────────── DECLINE ────────────────────────┘

Machines are known by their MAC, here as in DHCP: it is what documents name, what the port filter holds to, and what
firmware, boot loader and system of one machine, each with a DUID of its own, have in common.  Whether an address is in
use is the machine's to find out (RFC 4862 section 5.4); it then declines.
"""

from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Protocol

from panloom.errors import PeerError, RefusedError
from panloom.protocol.dhcp_leases import WAITING, Allotment, Holder, LeaseState
from panloom.protocol.dhcpv6_request import Request, unwrap
from panloom.protocol.lease_server import LEASE_SECONDS, OFFER_SECONDS, Datagram, DhcpEventKind, LeaseServer, LeaseWrite
from panloom.values import MacAddress
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import (
    Association,
    Kind,
    LeasedAddress,
    Message,
    Option,
    Options,
    RelayMessage,
    Status,
    StatusCode,
)

RENEW_SECONDS = LEASE_SECONDS // 2  # T1 and T2: RFC 8415 section 21.4
REBIND_SECONDS = LEASE_SECONDS * 4 // 5
_FIRST_CHOICE = b"\xff"  # option 7: the client does not wait a second for other servers, RFC 8415 section 18.2.1
_NAMES_SERVER: Mapping[Kind, bool | None] = MappingProxyType(
    {  # whether a client's message must name the server, or may not, RFC 8415 section 16
        Kind.SOLICIT: False,
        Kind.REQUEST: True,
        Kind.CONFIRM: False,
        Kind.RENEW: True,
        Kind.REBIND: False,
        Kind.RELEASE: True,
        Kind.DECLINE: True,
        Kind.INFORMATION_REQUEST: None,
    }
)


class Assignment(Allotment[IPv6Address], frozen=True):
    """What one client may have, and what goes with it."""

    link: IPv6Network
    options: Options
    file: str = ""  # the address of what it is to boot, as far as that is known before it has its own
    by_client: bool = False  # each association has an address, else all of the MAC share one

    def holder(self, request: Request, association: Association) -> Holder:
        """Return as whom an association of the sender has its address."""
        if self.is_fixed or not self.by_client:
            return Holder(request.mac)
        return Holder(request.mac, request.client(association))


class Desk(Protocol):
    """Who may have what; its answers may change between two calls."""

    def assignment(self, request: Request) -> Assignment | None:
        """Return what the sender may have, None if it is to hear nothing."""
        ...

    def acknowledged(self, request: Request, address: IPv6Address, *, now: float) -> str:
        """Note that the sender now has ``address``, and return where its boot file is, empty for none."""
        ...

    def relays(self, link: IPv6Address) -> bool:
        """Return whether clients are served on a link that a relay names so."""
        ...


class _Pending:
    """A request whose leases are being stored."""

    def __init__(self, request: Request, given: tuple[IPv6Address | None, ...], missing: set[IPv6Address]) -> None:
        self.request = request
        self.given = given  # to each of its associations, None for nothing
        self.missing = missing


class Dhcpv6Server(LeaseServer[IPv6Address]):
    """The IPv6 leases of one interface; ``duid`` names the server to its clients, for ever."""

    def __init__(self, duid: bytes, desk: Desk) -> None:
        super().__init__()
        self._duid = duid
        self._desk = desk
        self._pending: list[_Pending] = []

    def receive(self, octets: bytes, *, source: IPv6Address, mac: MacAddress | None, now: float) -> None:
        """Take in one datagram, whatever it holds; ``mac`` is the sender's, None for what did not come to all."""
        self._tick(now)
        try:
            match unwrap(octets, source, mac):
                case Message() as message:
                    self._use_multicast(message, source)
                case Request(link=link) if link is not None and not self._desk.relays(link):
                    raise RefusedError(f"relayed by {source} for link {link}, which is not served")
                case Request() as request:
                    self._dispatch(request)
        except PeerError as error:
            self._event(DhcpEventKind.IGNORED, mac, None, str(error))

    def stored(self, write: LeaseWrite[IPv6Address], *, now: float) -> None:
        """Note that a lease of ``leases_to_store`` is durable; what waits for nothing else is answered."""
        lease = self._awaited(write, now)
        if lease is None:
            return
        self._bind(lease, write.seconds)
        for pending in self._pending:
            pending.missing.discard(write.address)
        ready = [pending for pending in self._pending if not pending.missing]
        self._pending = [pending for pending in self._pending if pending.missing]
        for pending in ready:
            self._acknowledge(pending.request, pending.given)

    def not_stored(self, write: LeaseWrite[IPv6Address], why: str, *, now: float) -> None:
        """Note that a lease could not be stored; the client hears nothing and will ask again."""
        if self._awaited(write, now) is not None:
            self._pending = [pending for pending in self._pending if write.address not in pending.missing]
        super().not_stored(write, why, now=now)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _use_multicast(self, message: Message, source: IPv6Address) -> None:
        """Answer who asks this server alone without having been told to, RFC 8415 section 18.4."""
        duid = message.option(Option.CLIENT_ID)
        if duid is None or message.option(Option.SERVER_ID) != self._duid:
            raise RefusedError(f"{message.kind.name} from {source} to this server alone")
        status = dhcpv6.encode_status(Status(StatusCode.USE_MULTICAST, "ask all servers"))
        options = ((Option.CLIENT_ID, duid), (Option.SERVER_ID, self._duid), (Option.STATUS_CODE, status))
        reply = Message(Kind.REPLY, message.transaction_id, options)
        self._packets.append(Datagram(dhcpv6.encode(reply), None, source, dhcpv6.CLIENT_PORT))

    def _dispatch(self, request: Request) -> None:
        kind, server = request.message.kind, request.message.option(Option.SERVER_ID)
        if kind not in _NAMES_SERVER:
            raise RefusedError(f"a client that sends {kind.name}")
        named = _NAMES_SERVER[kind]
        if named is not None and named != (server is not None):
            raise RefusedError(f"{kind.name} {'with a' if server else 'without'} server identifier")
        if not request.duid and kind is not Kind.INFORMATION_REQUEST:
            raise RefusedError(f"{kind.name} without a client identifier")
        if server not in (None, self._duid):
            self._chose_another(request)
            return
        match kind:
            case Kind.RELEASE | Kind.DECLINE:
                self._give_back(request)
            case _:
                self._ask(request)

    def _ask(self, request: Request) -> None:
        assignment = self._desk.assignment(request)
        if assignment is None:
            if not self._withdraw(request):
                self._event(DhcpEventKind.IGNORED, request.mac, None, "neither known nor booting from the network")
            return
        match request.message.kind:
            case Kind.SOLICIT if request.message.option(Option.RAPID_COMMIT) is None:
                self._advertise(request, assignment)
            case Kind.CONFIRM:
                self._confirm(request, assignment)
            case Kind.INFORMATION_REQUEST:
                self._reply(request, Kind.REPLY, (*assignment.options, *_boot_file(assignment.file)))
            case _:
                self._commit(request, assignment)

    def _advertise(self, request: Request, assignment: Assignment) -> None:
        given = self._choose(request, assignment)
        for association, address in zip(request.associations, given, strict=True):
            if address:
                lease = self._running(address) or self._lend(address, assignment.holder(request, association))
                if lease.state is LeaseState.OFFERED:
                    lease.until = self._now + OFFER_SECONDS
        options = (*self._given(request, given), (Option.PREFERENCE, _FIRST_CHOICE), *assignment.options)
        self._reply(request, Kind.ADVERTISE, (*options, *_boot_file(assignment.file)))
        self._event(DhcpEventKind.OFFERED, request.mac, next(filter(None, given), None))

    def _commit(self, request: Request, assignment: Assignment) -> None:
        """Have stored what is given, and answer when it is."""
        given, missing = self._choose(request, assignment), set()
        for association, address in zip(request.associations, given, strict=True):
            if address:
                holder = assignment.holder(request, association)
                lease = self._running(address) or self._lend(address, holder)
                if not self._is_stored(address, lease, holder):
                    missing.add(address)
        if not missing:
            self._acknowledge(request, given)
            return
        mine = [pending for pending in self._pending if pending.request.mac == request.mac]
        again = [
            pending for pending in mine if pending.request.message.transaction_id == request.message.transaction_id
        ]
        dropped = again or mine[: max(0, len(mine) - WAITING + 1)]
        self._pending = [*(pending for pending in self._pending if pending not in dropped)]
        self._pending.append(_Pending(request, given, missing))

    def _acknowledge(self, request: Request, given: tuple[IPv6Address | None, ...]) -> None:
        """Answer a request whose leases are durable, unless the client may not have them any more."""
        assignment, first = self._desk.assignment(request), next(filter(None, given), None)
        if assignment is None or not all(assignment.allows(address) for address in given if address):
            for address in filter(None, given):
                self._end(address)
            self._event(DhcpEventKind.REFUSED, request.mac, first, "no longer this machine's address")
            return
        file = self._desk.acknowledged(request, first, now=self._now) if first else assignment.file
        rapid = ((Option.RAPID_COMMIT, b""),) if request.message.kind is Kind.SOLICIT else ()
        options = (*rapid, *self._given(request, given), *assignment.options, *_boot_file(file))
        self._reply(request, Kind.REPLY, options)
        if first:
            self._event(DhcpEventKind.BOUND, request.mac, first)

    def _confirm(self, request: Request, assignment: Assignment) -> None:
        addresses = [leased.address for association in request.associations for leased in association.addresses]
        if not addresses:
            raise RefusedError("CONFIRM without an address")
        if all(address in assignment.link for address in addresses):
            self._reply_status(request, StatusCode.SUCCESS, "on this link")
        else:
            self._reply_status(request, StatusCode.NOT_ON_LINK, "an address of another link")

    def _withdraw(self, request: Request) -> bool:
        """Take back what a machine holds that is to have nothing any more; False if there is nothing to say."""
        held = set(self._leases.held(Holder(request.mac), LeaseState.BOUND))
        asked = {leased.address for association in request.associations for leased in association.addresses}
        if request.message.kind not in (Kind.RENEW, Kind.REBIND) or not held & asked:
            return False
        self._reply(request, Kind.REPLY, self._given(request, (None,) * len(request.associations)))
        self._event(DhcpEventKind.REFUSED, request.mac, min(held & asked), "no longer this machine's address")
        return True

    def _give_back(self, request: Request) -> None:
        declined, unknown = request.message.kind is Kind.DECLINE, []
        for association in request.associations:
            sender = Holder(request.mac, request.client(association))
            for address in (leased.address for leased in association.addresses):
                lease = self._leases.get(address)
                if lease is None or lease.state is not LeaseState.BOUND or not sender.speaks_for(lease.holder):
                    status = Status(StatusCode.NO_BINDING, "not this machine's address")
                    unknown.append(dhcpv6.encode_association(Association(association.iaid, (), status)))
                    continue
                if declined:
                    self._rest(address, request.mac)
                else:
                    self._end(address)
                why = "the machine says that another one uses it" if declined else ""
                kind = DhcpEventKind.DECLINED if declined else DhcpEventKind.RELEASED
                self._event(kind, request.mac, address, why)
        more = tuple((int(Option.IA_NA), value) for value in dict.fromkeys(unknown))
        self._reply_status(request, StatusCode.SUCCESS, "noted", *more)

    def _chose_another(self, request: Request) -> None:
        for address in self._leases.held(Holder(request.mac), LeaseState.OFFERED):
            self._leases.forget(address)
        # A machine of ours boots what that one says, or nothing: its boot is told of it, not the log alone.
        kind = DhcpEventKind.IGNORED if self._desk.assignment(request) is None else DhcpEventKind.REFUSED
        self._event(kind, request.mac, None, "it chose another DHCPv6 server")

    # ── replies ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _given(self, request: Request, given: tuple[IPv6Address | None, ...]) -> Options:
        """Return an option for each association: its address, or why there is none."""
        options = []
        again = request.message.kind in (Kind.RENEW, Kind.REBIND)
        for association, address in zip(request.associations, given, strict=True):
            leased = [LeasedAddress(address, LEASE_SECONDS, LEASE_SECONDS)] if address else []
            if again:  # what it may not go on with has no time left
                others = (each.address for each in association.addresses if each.address != address)
                leased += (LeasedAddress(other) for other in others)
            status = None if leased else Status(*_NOTHING[again])
            times = (RENEW_SECONDS, REBIND_SECONDS) if address else (0, 0)
            made = Association(association.iaid, tuple(leased), status, *times)
            options.append((int(Option.IA_NA), dhcpv6.encode_association(made)))
        for option, code, head in (
            (Option.IA_TA, StatusCode.NO_ADDRESSES_AVAILABLE, 4),
            (Option.IA_PD, StatusCode.NO_PREFIX_AVAILABLE, 12),
        ):
            nothing = ((int(Option.STATUS_CODE), dhcpv6.encode_status(Status(code))),)
            why = dhcpv6.encode_options(nothing)
            options += ((int(option), value[:4].ljust(head, b"\0") + why) for value in request.message.every(option))
        return tuple(options)

    def _reply_status(self, request: Request, code: StatusCode, text: str, *more: tuple[int, bytes]) -> None:
        self._reply(request, Kind.REPLY, ((Option.STATUS_CODE, dhcpv6.encode_status(Status(code, text))), *more))

    def _reply(self, request: Request, kind: Kind, options: Options) -> None:
        named = ((Option.CLIENT_ID, request.duid),) if request.duid else ()
        whole = (*named, (Option.SERVER_ID, self._duid), *options)
        octets = dhcpv6.encode(Message(kind, request.message.transaction_id, whole))
        for relay in reversed(request.path):  # RFC 8415 section 19.3
            way = [(int(code), value) for code, value in relay.options if code == Option.INTERFACE_ID]
            back = (*way, (int(Option.RELAY_MESSAGE), octets))
            head = (relay.hop_count, relay.link_address, relay.peer_address)
            octets = dhcpv6.encode(RelayMessage(Kind.RELAY_REPLY, *head, back))
        if request.path:
            self._packets.append(Datagram(octets, None, request.source, dhcpv6.SERVER_PORT))
        else:
            self._packets.append(Datagram(octets, request.mac, request.source, dhcpv6.CLIENT_PORT))

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, request: Request, assignment: Assignment) -> tuple[IPv6Address | None, ...]:
        """Return an address for each association of the sender, None where there is none."""
        given: list[IPv6Address | None] = []
        for association in request.associations:
            holder = assignment.holder(request, association)
            asked = (leased.address for leased in association.addresses)
            wanted = next((address for address in asked if assignment.allows(address)), None)
            address = self._leases.choose(assignment, holder, wanted, self._now)
            fits = address not in given and self._can_have(address, request.mac, assignment)
            given.append(address if fits else None)
        return tuple(given)


_NOTHING: Mapping[bool, tuple[StatusCode, str]] = MappingProxyType(
    {
        True: (StatusCode.NO_BINDING, "no address of this machine's"),
        False: (StatusCode.NO_ADDRESSES_AVAILABLE, "no address is free"),
    }
)


def _boot_file(file: str) -> Options:
    return ((Option.BOOT_FILE_URL, file.encode()),) if file else ()
