"""The desk's window for DHCPv6: the same table, tokens and reports as for DHCP."""

from ipaddress import IPv6Address

from panloom.boot.desk import BootDesk
from panloom.decide.boot_answer import Scope
from panloom.decide.boot_firmware import ipv6_architectures
from panloom.decide.hardware import hardware_of
from panloom.decide.ipv6_answer import Ipv6Answer, ipv6_answer
from panloom.protocol.dhcpv6_request import Request
from panloom.protocol.dhcpv6_server import Assignment


class Ipv6Desk:
    """Answers the DHCPv6 server."""

    def __init__(self, desk: BootDesk) -> None:
        self._desk = desk

    def assignment(self, request: Request) -> Assignment | None:
        """Return what the sender may have, None if it is to hear nothing."""
        answer = self._answer(request)
        if answer is None:
            return None
        self._desk.met(answer, request.mac)
        return Assignment(
            *answer.addresses,
            self._desk.index.reserved_beside(answer.link),
            answer.link,
            answer.options,
            "" if answer.wants_token else answer.file,
            by_client=True,
        )

    def acknowledged(self, request: Request, address: IPv6Address, *, now: float) -> str:
        """Mint a token where the answer wants one, and return the address of the boot file."""
        answer = self._answer(request)
        if answer is None:
            return ""
        hardware = None
        if answer.scope is Scope.DISCOVERY:
            hardware = hardware_of(next(iter(ipv6_architectures(request.message)), None))
        return self._desk.begin(answer, request.mac, address, hardware, now=now).decode()

    def relays(self, link: IPv6Address) -> bool:
        """Return whether ``link`` is of a network behind a relay that the platform names."""
        return self._desk.index.is_relayed(link)

    def _answer(self, request: Request) -> Ipv6Answer | None:
        return ipv6_answer(self._desk.index, request.mac, request.message, request.link, self._desk.files)
