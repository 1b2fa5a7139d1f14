"""The desk: who asks, what the table says they may have, and the token that ties both together.

DHCP  ── assignment, acknowledged ──▶ ┌──────┐ ── boot_answer ──▶ decide
HTTP  ── script ────────────────────▶ │ Desk │ ── mint, redeem ──▶ tokens
control ── replace, login_seen ─────▶ └──────┘ ── BootEvent ────▶ report
"""

import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Network
from typing import TypeVar

import msgspec

from panloom.boot.file_root import FileRoot
from panloom.decide.boot_answer import (
    INSTALLER,
    BootAnswer,
    BootEvent,
    BootIndex,
    BootServer,
    BootTable,
    Scope,
    boot_answer,
    boot_script,
    in_url,
    inventory_files,
    inventory_script,
    menu_script,
    pause_seconds,
    proxy_answer,
    report_script,
    wait_script,
    why_waiting,
)
from panloom.decide.boot_firmware import HTTP_CLIENT, PXE_CLIENT, Firmware, firmware_of
from panloom.decide.hardware import Hardware, hardware_of_report, hardware_of_request
from panloom.decide.inventory import hardware_of_inventory
from panloom.decide.ipv6_answer import Ipv6Answer, ipv6_link
from panloom.protocol.boot_tokens import BootTokens, Ticket
from panloom.protocol.dhcp_leases import Assignment
from panloom.protocol.dhcp_proxy import Boot
from panloom.protocol.lease_server import DhcpEvent, DhcpEventKind
from panloom.values import IpAddress, Iqn, MacAddress
from panloom.wire.dhcp import Message

_LONGEST_NAME = 160
_REMEMBERED = 4096  # machines whose times of waiting are counted
Value = TypeVar("Value")
_log = logging.getLogger("panloom.boot")


class Page(msgspec.Struct, frozen=True):
    """An answer of HTTP in plain text."""

    status: int
    text: str


class BootDesk:
    """Answers DHCP and HTTP from one table."""

    def __init__(
        self, table: BootTable, files: FileRoot, report: Callable[[BootEvent], None], new_token: Callable[[], str]
    ) -> None:
        self.index = BootIndex(table)
        self.files = files
        self._report = report
        self._new_token = new_token
        self._tokens = BootTokens()
        self._waited: dict[MacAddress, int] = {}
        self._reported: dict[MacAddress, str] = {}
        """Architecture of machines that have said what they are, the latest at the end; strangers say it each time."""
        self._inventoried: dict[MacAddress, None] = {}
        """Those that were sent to look at what they have."""
        self._tried: dict[MacAddress, tuple[Iqn, int, int]] = {}  # initiator, epoch, scripts without a login since
        self._strangers: dict[MacAddress, None] = {}  # that asked last, the latest at the end

    def replace(self, table: BootTable) -> None:
        """Answer from ``table`` from now on."""
        self.index = BootIndex(table)

    def login_seen(self, initiator: Iqn, epoch: int) -> None:
        """End the tokens of a machine that has logged in."""
        self._tokens.end(initiator, epoch)
        self._tried = {mac: tried for mac, tried in self._tried.items() if tried[:2] != (initiator, epoch)}

    # ── DHCP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def assignment(self, request: Message) -> Assignment | None:
        """Return what the sender may have, None if it is to hear nothing."""
        answer = self._answer(request)
        if answer is None:
            return None
        self.met(answer, request.chaddr)
        first, last = answer.addresses
        return Assignment(
            first,
            last,
            self.index.reserved,
            answer.options,
            answer.file.encode(),
            by_client=answer.scope is Scope.NIC,
            kin=self.index.kin(answer),
        )

    def acknowledged(self, request: Message, address: IPv4Address, *, now: float) -> bytes:
        """Mint a token where the answer wants one, and return the boot file name."""
        answer = self._answer(request)
        return (
            b"" if answer is None else self.begin(answer, request.chaddr, address, _hardware(answer, request), now=now)
        )

    def proxied(self, request: Message, *, now: float) -> Boot | None:
        """Return what the sender is to boot, its address being another server's to give; None for no answer."""
        answer = proxy_answer(self.index, request, self.files)
        if answer is None:
            return None
        file = self.begin(answer, request.chaddr, answer.addresses[0], None, now=now)
        vendor_class = HTTP_CLIENT if firmware_of(request) is Firmware.HTTP else PXE_CLIENT
        return Boot(vendor_class, file, answer.options) if file else None

    def met(self, answer: BootAnswer | Ipv6Answer, mac: MacAddress) -> None:
        """Note who is about to be given ``answer``."""
        if answer.scope is Scope.DISCOVERY:
            _remember(self._strangers, mac, None)

    def begin(
        self,
        answer: BootAnswer | Ipv6Answer,
        mac: MacAddress,
        address: IpAddress,
        hardware: Hardware | None,
        *,
        now: float,
    ) -> bytes:
        """Report that a machine has an address, and return what it boots, with a new token if ``answer`` wants one."""
        server = answer.server
        self.say(
            BootEvent(
                "discovered" if answer.scope is Scope.DISCOVERY else "dhcp",
                now,
                mac,
                address,
                node=answer.node.name if answer.node else None,
                server=server.name if server else answer.nic.server if answer.nic else None,
                epoch=server.epoch if server else 0,
                why=answer.why_no_file or "",
                hardware=hardware,
            )
        )
        if not answer.wants_token:
            return answer.file.encode()
        token = self._new_token()
        epoch, initiator = (server.epoch, server.initiator) if server else (0, None)
        self._tokens.mint(token, Ticket(mac, address, epoch, initiator), now=now)
        return f"{answer.file}{token}".encode()

    def serves(self, address: IPv4Address) -> bool:
        """Return whether ``address`` belongs to a network that is served here, no router between."""
        return self.index.is_local(address)

    def boots(self, mac: MacAddress) -> bool:
        """Return whether ``mac`` is a known node's own, or of a machine that asked here lately by its boot firmware."""
        return self.index.is_hardware(mac) or mac in self._strangers

    def link(self, mac: MacAddress) -> IPv6Network | None:
        """Return the prefix that is told to be on the link where ``mac`` asks for routers, None for none."""
        return ipv6_link(self.index, mac)

    def knows(self, mac: MacAddress) -> bool:
        """Return whether ``mac`` may be given an address: a node, a virtual NIC, or anybody whom discovery meets."""
        return mac in self.index.nodes or mac in self.index.nics or self.index.table.discovery is not None

    def relays(self, address: IPv4Address) -> bool:
        """Return whether ``address`` is a relay that the platform names."""
        return address in self.index.relays

    def is_customer(self, address: IpAddress) -> bool:
        """Return whether ``address`` belongs to a network that is served here, directly or through a relay."""
        return self.index.is_local(address) or self.index.is_relayed(address)

    def tell(self, event: DhcpEvent, *, now: float) -> None:
        """Report and log an event of the DHCP server."""
        match event.kind:
            case DhcpEventKind.REFUSED | DhcpEventKind.DECLINED | DhcpEventKind.RELEASED:
                self.say(self._about(event.kind.value, now, event.mac, event.address, event.why))
            case DhcpEventKind.IGNORED:
                _log.info("dhcp=ignored mac=%s address=%s why=%r", event.mac, event.address, event.why)
            case DhcpEventKind.OFFERED | DhcpEventKind.BOUND:
                _log.debug("dhcp=%s mac=%s address=%s", event.kind.value, event.mac, event.address)

    def _answer(self, request: Message) -> BootAnswer | None:
        return boot_answer(self.index, request, self.files)

    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def script(self, token: str, peer: IpAddress, *, now: float) -> Page:
        """Return the script that ``token`` is good for when it is shown from ``peer``, or one line that refuses."""
        ticket = self._redeem(token, peer, now)
        if isinstance(ticket, Page):
            return ticket
        node = self.index.nodes.get(ticket.mac)
        is_its_own = node is not None and ticket.address in self.index.addresses_of(node)
        server = node.server if node is not None and is_its_own else None
        minted_for = (ticket.initiator, ticket.epoch)
        if node is not None and server is not None and (server.initiator, server.epoch) == minted_for:
            self._waited.pop(ticket.mac, None)
            self.say(self._about("script", now, ticket.mac, peer, ""))
            table, times = self.index.table, self._tries(ticket.mac, server)
            has_installer = INSTALLER in self.files
            return Page(200, boot_script(table, node, server, table.at(peer), times, has_installer=has_installer))
        # What the token was minted for is no more, or there never was a server: nothing secret, ask again.
        why = why_waiting(node) if server is None else f"{server.name} has just come; asking for it"
        times = self._waited.pop(ticket.mac, 0)
        _remember(self._waited, ticket.mac, times + 1)
        self.say(self._about("waiting", now, ticket.mac, peer, why))
        if node is not None and (server is not None or ticket.mac in self._reported):
            return Page(200, wait_script(why, pause_seconds(node, times)))
        if menu := self.index.table.menus.get(ticket.mac):
            return Page(200, menu_script(menu))
        if times and peer.version == 4 and (inventory := self._inventory(ticket.mac, token)):
            return Page(200, inventory)
        place = f"{in_url(self.index.table.at(peer))}:{self.index.table.http_port}"
        return Page(200, report_script(why, f"http://{place}/boot/{token}/hardware", pause_seconds(node, times)))

    def _tries(self, mac: MacAddress, server: BootServer) -> int:
        """Return how often a machine has come for this script before without logging in since, and count this time."""
        initiator, epoch, times = self._tried.get(mac, (server.initiator, server.epoch, 0))
        if (initiator, epoch) != (server.initiator, server.epoch):
            times = 0
        _remember(self._tried, mac, (server.initiator, server.epoch, times + 1))
        return times

    def hardware(self, token: str, peer: IpAddress, words: Mapping[str, str], *, now: float) -> Page:
        """Take a machine's report of what it is, and return the script by which it asks again, or a refusal."""
        ticket = self._redeem(token, peer, now)
        if isinstance(ticket, Page):
            return ticket
        told = hardware_of_report(words)
        self.say(msgspec.structs.replace(self._about("hardware", now, ticket.mac, peer, ""), hardware=told))
        node, times = self.index.nodes.get(ticket.mac), self._waited.get(ticket.mac, 1) - 1
        _remember(self._reported, ticket.mac, told.architecture)
        return Page(200, wait_script("its hardware is known; asking again", pause_seconds(node, times)))

    def inventory(self, token: str, peer: IpAddress, report: str, *, now: float) -> Page:
        """Take what the inventory found in a machine, or refuse it."""
        ticket = self._redeem(token, peer, now)
        if isinstance(ticket, Page):
            return ticket
        event = self._about("hardware", now, ticket.mac, peer, "")
        self.say(msgspec.structs.replace(event, hardware=hardware_of_inventory(report)))
        return Page(200, "it is known\n")

    def _inventory(self, mac: MacAddress, token: str) -> str | None:
        """Return the script that has a machine look at what it has, None if it did or cannot."""
        architecture = self._reported.get(mac, "")
        if mac in self._inventoried or not all(name in self.files for name in inventory_files(architecture)):
            return None
        _remember(self._inventoried, mac, None)
        place = f"{self.index.table.address}:{self.index.table.http_port}"
        return inventory_script(self.index.table, architecture, f"http://{place}/boot/{token}/inventory")

    def install(self, token: str, peer: IpAddress, choice: str, *, now: float) -> Page:
        """Take what was chosen at a machine's console, and return the script by which it asks again, or a refusal."""
        ticket = self._redeem(token, peer, now)
        if isinstance(ticket, Page):
            return ticket
        menu = self.index.table.menus.get(ticket.mac)
        if menu is None:  # somebody else has said meanwhile what it becomes
            return Page(200, wait_script("it is decided what this machine becomes; asking again", 1))
        if not menu.offers(choice):
            return Page(404, "the menu has no such item\n")
        _remember(self._inventoried, ticket.mac, None)  # it would be away while it is taken in
        self.say(msgspec.structs.replace(self._about("chosen", now, ticket.mac, peer, ""), choice=choice))
        return Page(200, wait_script(f"{choice.lstrip('.')} is chosen; asking again", 1))

    def tell_file(self, kind: str, peer: IpAddress, why: str, *, now: float) -> None:
        """Report what became of a file that was asked for: ``file``, ``no file`` or ``broken file``."""
        node = next((node for node in self.index.table.nodes if peer in self.index.addresses_of(node)), None)
        printable = "".join(letter if letter.isprintable() else "?" for letter in why)[:_LONGEST_NAME]
        self.say(self._about(kind, now, node.mac if node else None, peer, printable))

    def _redeem(self, token: str, peer: IpAddress, now: float) -> Ticket | Page:
        found = self._tokens.redeem(token, peer, now=now)
        if isinstance(found, Ticket):
            return found
        self.say(self._about("refused", now, found.ticket.mac if found.ticket else None, peer, found.why))
        return Page(found.status, f"{found.why}\n")

    def say(self, event: BootEvent) -> None:
        """Log and report one event."""
        _log.info(
            "boot=%s mac=%s address=%s node=%s server=%s epoch=%d why=%r",
            *(event.kind, event.mac, event.address, event.node, event.server, event.epoch, event.why),
        )
        self._report(event)

    def _about(self, kind: str, now: float, mac: MacAddress | None, address: IpAddress | None, why: str) -> BootEvent:
        node = self.index.nodes.get(mac) if mac is not None else None
        nic = self.index.nics.get(mac) if mac is not None else None
        server = node.server if node is not None else None
        return BootEvent(
            kind,
            now,
            mac,
            address,
            node=node.name if node is not None else None,
            server=server.name if server is not None else nic.server if nic is not None else None,
            epoch=server.epoch if server is not None else 0,
            why=why,
        )


def _hardware(answer: BootAnswer, request: Message) -> Hardware | None:
    return hardware_of_request(request) if answer.scope is Scope.DISCOVERY else None


def _remember(known: dict[MacAddress, Value], mac: MacAddress, value: Value) -> None:
    """Note a machine as the latest of those that are remembered."""
    known.pop(mac, None)
    known[mac] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
