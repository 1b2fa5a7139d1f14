"""What a machine that asks by DHCPv6 is given: as ``boot_answer`` says for DHCP, but for what IPv6 has not.

    the MAC is …                    firmware           address                       boot file (RFC 5970 section 3.1)
    a node's hardware MAC           PXE, HTTP boot     beside the node's             tftp://[…]/LOADER, http://[…]/files/LOADER
    a node's hardware MAC           iPXE               beside the node's             http://[…]/boot/TOKEN
    a server's virtual MAC          any                beside its own, or            none; DNS and domain of its LAN
                                                       of what is beside its range
    anything else                   any of these       of what is beside discovery   as a spare's
    anything else                   none               no answer

There is no option of a root path: iPXE has a script under ``auth: none``, too.  Routers make themselves known.
"""

from collections.abc import Container
from ipaddress import IPv6Address, IPv6Network

import msgspec

from panloom.decide.boot_answer import (
    BootIndex,
    BootNode,
    BootServer,
    BootTable,
    Scope,
    ServerNic,
    in_url,
    script_url,
)
from panloom.decide.boot_firmware import HTTP_CLIENT, Asking, Firmware, file_of, ipv6_asking
from panloom.values import MacAddress, beside
from panloom.wire import dhcpv6
from panloom.wire.dhcpv6 import Message, Option, Options


class Ipv6Answer(msgspec.Struct, frozen=True):
    """What one machine is given; the fields are those of ``BootAnswer``, and ``link`` is the prefix of its link."""

    scope: Scope
    addresses: tuple[IPv6Address, IPv6Address]
    link: IPv6Network
    options: Options = ()
    file: str = ""
    wants_token: bool = False
    why_no_file: str | None = None
    node: BootNode | None = None
    nic: ServerNic | None = None

    @property
    def server(self) -> BootServer | None:
        """The server that the machine boots as, None for all that boot nothing."""
        return self.node.server if self.node is not None else None


def ipv6_answer(
    index: BootIndex, mac: MacAddress, request: Message, link: IPv6Address | None, loaders: Container[str]
) -> Ipv6Answer | None:
    """Return what ``mac`` is given, None for no answer; ``link`` is how a relay names its link, None without one."""
    table = index.table
    relay = next((each for each in table.relays if each.prefix and link and link in each.prefix), None)
    if link is not None and relay is None:
        return None
    if relay is None and (nic := index.nics.get(mac)):
        return _of_nic(nic)
    node, who, prefix = index.nodes.get(mac), ipv6_asking(request), (relay or table).prefix
    if prefix is None:
        return None
    if node is not None and index.prefix_of(node) == prefix:
        scope, first = Scope.NODE, beside(prefix, node.address)
        last = first
    elif node is None and relay is None and table.discovery is not None and who.firmware is not Firmware.NONE:
        scope = Scope.DISCOVERY
        first, last = (beside(prefix, end) for end in table.discovery)
    else:
        return None
    answer = Ipv6Answer(scope, (first, last), prefix, node=node)
    at = table.ipv6_address
    if who.firmware is Firmware.NONE or at is None:
        return answer
    if who.firmware is Firmware.IPXE:
        return msgspec.structs.replace(answer, file=script_url(table, at), wants_token=True)
    options, file, why = _loader(table, at, who, loaders)
    return msgspec.structs.replace(answer, options=options, file=file, why_no_file=why)


def ipv6_link(index: BootIndex, mac: MacAddress) -> IPv6Network | None:
    """Return the prefix that is on the link for ``mac``, by its node, its LAN or discovery; None: no IPv6 there."""
    nic, node = index.nics.get(mac), index.nodes.get(mac)
    if nic is not None:
        return nic.prefix
    return index.table.prefix if node is None else index.prefix_of(node)


def _of_nic(nic: ServerNic) -> Ipv6Answer | None:
    addresses = nic.range if nic.address is None else (nic.address, nic.address)
    if nic.prefix is None or addresses is None:
        return None
    first, last = (beside(nic.prefix, end) for end in addresses)
    options: list[tuple[int, bytes]] = []
    if nic.domain:
        options.append((Option.DOMAIN_LIST, dhcpv6.encode_domain(nic.domain)))
    return Ipv6Answer(Scope.NIC, (first, last), nic.prefix, tuple(options), nic=nic)


def _loader(table: BootTable, at: IPv6Address, who: Asking, loaders: Container[str]) -> tuple[Options, str, str | None]:
    """Return the options and the address by which firmware fetches iPXE, or why there is none."""
    if who.loader is None:
        return (), "", who.why_no_loader
    if (file := file_of(who.loader, loaders)) not in loaders:
        return (), "", f"{file} is not among the files"
    if who.firmware is Firmware.HTTP:  # it takes no offer that does not say so, UEFI 2.10 section 24.7.3.1
        said = (int(Option.VENDOR_CLASS), dhcpv6.encode_vendor_class(HTTP_CLIENT))
        return (said,), f"http://{in_url(at)}:{table.http_port}/files/{file}", None
    return (), f"tftp://{in_url(at)}/{file}", None
