"""What a machine that asks to boot is given: its address, its boot variables and its iPXE script.

    chaddr is …                     firmware          scope  address        boot variables
    a node's hardware MAC           PXE, HTTP boot    1      the node's     the loader for it (``boot_firmware``)
    a node's hardware MAC           iPXE, auth chap   1      the node's     file name http://…/boot/TOKEN, no option 17
    a node's hardware MAC           iPXE, auth none   1      the node's     options 17 and 203, no file name
    a node's hardware MAC, spare    iPXE              1      the node's     file name http://…/boot/TOKEN: told to wait
    a server's virtual MAC          any               2      its own, or    none; router, DNS and domain of its LAN
                                                             of its range
    anything else                   any of these      –      of discovery   as a spare's: told to wait
    anything else                   none              –      no answer
    a node's hardware MAC, relayed  any               1      as on the storage network, and the relay as its router,
                                                             if its address is of that relay's network
    anything else, relayed          any               –      no answer

A hardware MAC never has an address of scope 2, and a virtual MAC none of scope 1, whatever is free or busy.  Option
17 and a file name exclude each other: iPXE hooks the root path before it runs the script and fails without
credentials.
"""

import re
from collections.abc import Container, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

import msgspec

from panloom.decide.boot_firmware import HTTP_CLIENT, Asking, Firmware, asking, file_of
from panloom.decide.boot_menu import Menu
from panloom.decide.hardware import Hardware, report_address
from panloom.values import IpAddress, Iqn, MacAddress, beside
from panloom.wire import dhcp
from panloom.wire.dhcp import Option

NODE_PAUSE_SECONDS = 2
LONGEST_PAUSE_SECONDS = 10

_SCRIPT_WORD = re.compile(
    r"[A-Za-z0-9._:/@+=-]+\Z"
)  # what iPXE's parser leaves as it is: no space, quote, $ or comment

AddressRange = tuple[IPv4Address, IPv4Address]  # first and last, both included


class BootServer(msgspec.Struct, frozen=True):
    """The server that a node carries; ``user`` and ``secret`` are None under ``auth: none``."""

    name: str  # PAN/SERVER
    epoch: int
    target: Iqn
    initiator: Iqn
    user: str | None = None
    secret: str | None = None

    def __post_init__(self) -> None:
        """Refuse credentials that a script cannot say, and half a pair of them."""
        if (self.user is None) != (self.secret is None):
            raise ValueError(f"{self.name}: user and secret come together")
        for word in (self.user, self.secret):
            if word is not None and not _SCRIPT_WORD.match(word):
                raise ValueError(f"{self.name}: a CHAP user or secret may hold letters, digits and ._:/@+=- only")


class BootNode(msgspec.Struct, frozen=True):
    """Scope 1: one address for one hardware MAC; ``server`` None is a spare."""

    name: str
    mac: MacAddress
    address: IPv4Address
    server: BootServer | None = None


class ServerNic(msgspec.Struct, frozen=True):
    """Scope 2: a server's virtual MAC on a LAN; ``address`` None is one from the LAN's ``range``."""

    server: str
    mac: MacAddress
    lan: str
    subnet: IPv4Network
    address: IPv4Address | None = None
    range: AddressRange | None = None
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str | None = None
    prefix: IPv6Network | None = None  # beside each address of the subnet there is one of IPv6; None: of IPv4 alone


class BootRelay(msgspec.Struct, frozen=True):
    """A network whose requests a DHCP relay brings here; ``address`` is the relay's own in it, its ``giaddr``."""

    address: IPv4Address
    subnet: IPv4Network
    router: IPv4Address
    prefix: IPv6Network | None = None


class BootTable(msgspec.Struct, frozen=True):
    """Everything the boot services of one interface may hand out."""

    interface: str
    address: IPv4Address  # ours
    subnet: IPv4Network
    http_port: int = 8080
    iscsi_port: int = 3260
    is_proxy: bool = False  # another DHCP server gives the addresses
    discovery: AddressRange | None = None  # None: unknown machines get no answer
    relays: tuple[BootRelay, ...] = ()
    nodes: tuple[BootNode, ...] = ()
    nics: tuple[ServerNic, ...] = ()
    menus: Mapping[MacAddress, Menu] = MappingProxyType({})
    """Unknown machines whose consoles ask what they become."""
    prefix: IPv6Network | None = None

    @property
    def ipv6_address(self) -> IPv6Address | None:
        """Ours, None without IPv6."""
        return beside(self.prefix, self.address) if self.prefix is not None else None

    def at(self, peer: IpAddress) -> IpAddress:
        """Return our address of a peer's kind."""
        ours = self.ipv6_address
        return ours if peer.version == 6 and ours is not None else self.address


class Scope(Enum):
    """Whose address it is."""

    NODE = "node"
    NIC = "nic"
    DISCOVERY = "discovery"


class BootAnswer(msgspec.Struct, frozen=True):
    """What one machine is given.

    ``file`` is the whole file name or, with ``wants_token``, what a token is to be appended to.  ``why_no_file`` says
    why firmware that cannot go on by itself is given no file, None otherwise.
    """

    scope: Scope
    addresses: AddressRange  # first = last: the one it always has
    options: dict[int, bytes]
    file: str = ""
    wants_token: bool = False
    why_no_file: str | None = None
    node: BootNode | None = None
    nic: ServerNic | None = None

    @property
    def server(self) -> BootServer | None:
        """The server that the machine boots as, None for all that boot nothing."""
        return self.node.server if self.node is not None else None


class BootEvent(msgspec.Struct, frozen=True):
    """One thing the boot services did or refused.

    dhcp        an address was acknowledged to a known machine or NIC
    discovered  an address was acknowledged to a machine that nobody has named
    script      the machine fetched the script that boots its server
    waiting     the machine fetched a script that tells it to wait
    hardware    the machine said what it is
    chosen      at its console somebody chose what it becomes, or nobody did in time; ``choice`` is the menu's label
    file        a file was fetched whole by TFTP; ``why`` is its name
    no file     a file was asked for that is not there
    broken file a file was begun and did not arrive
    released, declined   what the machine did with its address
    refused     what it asked for was refused; ``why`` says why
    """

    kind: str
    at: float  # monotonic seconds
    mac: MacAddress | None = None
    address: IpAddress | None = None
    node: str | None = None
    server: str | None = None
    epoch: int = 0
    why: str = ""
    hardware: Hardware | None = None  # of ``discovered`` and ``hardware``
    choice: str = ""


class BootIndex:
    """A BootTable, indexed by MAC and by address."""

    def __init__(self, table: BootTable) -> None:
        self.table = table
        self.nodes = {node.mac: node for node in table.nodes}
        self.nics = {nic.mac: nic for nic in table.nics if nic.mac not in self.nodes}
        self.relays = {relay.address: relay for relay in table.relays}
        fixed = {node.address for node in table.nodes} | {nic.address for nic in table.nics if nic.address is not None}
        routers = {nic.router for nic in table.nics if nic.router is not None}
        self.reserved = frozenset(fixed | routers | {table.address})
        """Addresses that no range ever lends."""
        self._local: tuple[BootTable | ServerNic, ...] = (table, *table.nics)
        self._reserved_beside: dict[IPv6Network, frozenset[IPv6Address]] = {}
        self._kin: dict[str, frozenset[MacAddress]] = {}
        carried = ((node.server.name, node.mac) for node in table.nodes if node.server is not None)
        for server, mac in (*carried, *((nic.server, nic.mac) for nic in table.nics)):
            self._kin[server] = self._kin.get(server, frozenset()) | {mac}

    def reserved_beside(self, prefix: IPv6Network) -> frozenset[IPv6Address]:
        """Return what no range of a prefix ever lends."""
        if prefix not in self._reserved_beside:
            self._reserved_beside[prefix] = frozenset(beside(prefix, address) for address in self.reserved)
        return self._reserved_beside[prefix]

    def kin(self, answer: "BootAnswer") -> frozenset[MacAddress]:
        """Return the MACs of the machine that is given ``answer``, the node's and its server's."""
        server = answer.server.name if answer.server else answer.nic.server if answer.nic else ""
        return self._kin.get(server, frozenset())

    def is_hardware(self, mac: MacAddress) -> bool:
        """Return whether ``mac`` is a known node's own."""
        return mac in self.nodes

    def is_local(self, address: IpAddress) -> bool:
        """Return whether ``address`` is of the storage network or of a LAN served here, no router between."""
        return any(_holds(network, address) for network in self._local)

    def is_relayed(self, address: IpAddress) -> bool:
        """Return whether ``address`` is of a network behind a relay."""
        return any(_holds(relay, address) for relay in self.table.relays)

    def prefix_of(self, node: BootNode) -> IPv6Network | None:
        """Return the prefix that goes with a node's address, None where there is none."""
        if node.address in self.table.subnet:
            return self.table.prefix
        return next((relay.prefix for relay in self.table.relays if node.address in relay.subnet), None)

    def addresses_of(self, node: BootNode) -> tuple[IpAddress, ...]:
        """Return a node's address, and the one of IPv6 beside it."""
        prefix = self.prefix_of(node)
        return (node.address,) if prefix is None else (node.address, beside(prefix, node.address))

    def relay_of(self, request: dhcp.Message) -> BootRelay | None:
        """Return the relay behind which the sender is; None for who is on the storage network.

        Who renews its lease asks without the relay and says its address instead, RFC 2131 section 4.3.2.  A relay of
        several networks may ask for all by one address of its own, and say which it is by option 82 (RFC 3527).
        """
        if request.giaddr != dhcp.UNSPECIFIED:
            link = request.relayed(dhcp.RelayAgent.LINK_SELECTION)
            if link is None or request.giaddr not in self.relays:
                return self.relays.get(request.giaddr)
            return next((relay for relay in self.table.relays if link in relay.subnet), None)
        return next((relay for relay in self.table.relays if request.ciaddr in relay.subnet), None)


def _holds(network: BootTable | BootRelay | ServerNic, address: IpAddress) -> bool:
    if isinstance(address, IPv4Address):
        return address in network.subnet
    return network.prefix is not None and address in network.prefix


def boot_answer(index: BootIndex, request: dhcp.Message, loaders: Container[str]) -> BootAnswer | None:
    """Return what the sender of ``request`` is given, None for no answer; ``loaders`` are the files that TFTP has."""
    table, who = index.table, asking(request)
    firmware = who.firmware
    relay = index.relay_of(request)
    if relay is None and request.giaddr != dhcp.UNSPECIFIED:
        return None
    subnet = relay.subnet if relay else table.subnet
    if relay is None and (nic := index.nics.get(request.chaddr)):
        addresses = nic.range if nic.address is None else (nic.address, nic.address)
        return None if addresses is None else BootAnswer(Scope.NIC, addresses, _nic_options(nic, firmware), nic=nic)
    node = index.nodes.get(request.chaddr)
    if node is not None and node.address in subnet:
        scope, addresses = Scope.NODE, (node.address, node.address)
    elif node is None and relay is None and table.discovery is not None and firmware is not Firmware.NONE:
        scope, addresses = Scope.DISCOVERY, table.discovery
    else:
        return None
    options: dict[int, bytes] = {Option.SUBNET_MASK: subnet.netmask.packed}
    if relay is not None:
        options[Option.ROUTER] = relay.router.packed
    if firmware in (Firmware.PXE, Firmware.HTTP):
        how, file, why = _loader(table, who, loaders)
        return BootAnswer(scope, addresses, options | how, file=file, why_no_file=why, node=node)
    if node is not None and node.server is not None and node.server.user is None:
        options[Option.ROOT_PATH] = root_path(table, node.server, table.address).encode()
        options[Option.IPXE_INITIATOR] = str(node.server.initiator).encode()
        return BootAnswer(scope, addresses, options | _no_proxy(), node=node)
    if firmware is Firmware.IPXE:
        url = script_url(table, table.address)
        return BootAnswer(scope, addresses, options | _no_proxy(), file=url, wants_token=True, node=node)
    return BootAnswer(scope, addresses, options, node=node)


def proxy_answer(index: BootIndex, request: dhcp.Message, loaders: Container[str]) -> BootAnswer | None:
    """Return what a node is to boot where another server gives it its address, None for no answer.

    iPXE has a script under ``auth: none`` too: of an offer without an address it takes a file name, and no root path
    alone.
    """
    table, who = index.table, asking(request)
    node = index.nodes.get(request.chaddr)
    if node is None or who.firmware is Firmware.NONE:
        return None
    addresses = (node.address, node.address)
    if who.firmware is Firmware.IPXE:
        return BootAnswer(Scope.NODE, addresses, {}, file=script_url(table, table.address), wants_token=True, node=node)
    options, file, why = _loader(table, who, loaders)
    return BootAnswer(Scope.NODE, addresses, options, file=file, why_no_file=why, node=node)


def script_url(table: BootTable, at: IpAddress) -> str:
    """Return the address of a script by HTTP, without its token; ``at`` is ours."""
    return f"http://{in_url(at)}:{table.http_port}/boot/"


def _files(table: BootTable, at: IpAddress) -> str:
    return f"http://{in_url(at)}:{table.http_port}/files"


def in_url(address: IpAddress) -> str:
    """Return an address as it stands in a URI, RFC 3986 section 3.2.2."""
    return f"[{address}]" if address.version == 6 else str(address)


def _loader(table: BootTable, who: Asking, loaders: Container[str]) -> tuple[dict[int, bytes], str, str | None]:
    """Return the options and the file name by which firmware fetches iPXE, or why there is none."""
    if who.loader is None:
        return {}, "", who.why_no_loader
    if (file := file_of(who.loader, loaders)) not in loaders:
        return {}, "", f"{file} is not among the files"
    if who.firmware is Firmware.HTTP:  # it takes no offer that does not say so, UEFI 2.10 section 24.7.3.1
        url = f"http://{table.address}:{table.http_port}/files/{file}"
        return {Option.VENDOR_CLASS: HTTP_CLIENT}, url, None
    return {Option.TFTP_SERVER_NAME: str(table.address).encode()}, file, None


def root_path(table: BootTable, server: BootServer, at: IpAddress) -> str:
    """Return the iSCSI root path of the server's disk at our address ``at``, RFC 4173 section 5."""
    return f"iscsi:{in_url(at)}:6:{table.iscsi_port}:0:{server.target}"


INSTALLER = "install.ipxe"
"""An iPXE script among the boot files, the operator's own, which puts a system on an empty disk."""


def boot_script(
    table: BootTable, node: BootNode, server: BootServer, at: IpAddress, times: int = 0, *, has_installer: bool = False
) -> str:
    """Return the iPXE script that boots ``server`` on ``node`` and, when the disk is lost, asks again for ever.

    The disk is reached at our address ``at``, of the kind by which the machine asks.  It uses only what the iPXE of
    2019 in Debian's network ROMs knows.  It holds the CHAP secret: for this node alone.  ``times``: how often the
    machine has come for it without a disk since; each makes it wait longer.  ``has_installer``: where the disk is there
    and nothing boots from it, the file ``INSTALLER`` does, with the disk in the firmware's boot table.

    The firmware's boot table (iBFT) that this iPXE leaves has no room for IPv6, but for the card's host name: there the
    system finds its address and the portal's, ``ADDRESS/PREFIX,PORTAL``.
    """
    path, pause = root_path(table, server, at), min(NODE_PAUSE_SECONDS << min(times, 8), LONGEST_PAUSE_SECONDS)
    lines = [
        "#!ipxe",
        f"echo Panloom: {node.name} boots {server.name}, epoch {server.epoch}",
        f"set initiator-iqn {server.initiator}",
        *([f"set username {server.user}", f"set password {server.secret}"] if server.user is not None else ()),
        *_names_for_ibft(table, node, at),
        f"sanboot {path} ||",
        # A disk that stays hooked keeps its drive number, and no later sanboot of it works.
        *(
            (f"sanhook {path} && chain --autofree {_files(table, at)}/{INSTALLER} ||", "sanunhook ||")
            if has_installer
            else ()
        ),
        f"echo Panloom: no disk of {server.name} from {at}; asking again in {pause} s",
        *(["clear username ||", "clear password ||"] if server.user is not None else ()),
        *ask_again(pause),
    ]
    return "\n".join(lines) + "\n"


def _names_for_ibft(table: BootTable, node: BootNode, at: IpAddress) -> tuple[str, ...]:
    if at.version == 4 or table.prefix is None:
        return ()
    return (f"set hostname {beside(table.prefix, node.address)}/{table.prefix.prefixlen},{at}",)


def wait_script(why: str, pause_seconds: int) -> str:
    """Return the iPXE script that says why the machine waits, sleeps, and asks again for ever."""
    return "\n".join(("#!ipxe", f"echo Panloom: {why}", *ask_again(pause_seconds))) + "\n"


def report_script(why: str, url: str, pause_seconds: int) -> str:
    """Return the iPXE script that says why the machine waits and reports its hardware to ``url``.

    What comes from there goes on in its place; where nothing comes it is a wait script.
    """
    report = f"chain --replace --autofree {report_address(url)} ||"
    return "\n".join(("#!ipxe", f"echo Panloom: {why}", report, *ask_again(pause_seconds))) + "\n"


def menu_script(menu: Menu) -> str:
    """Return the iPXE script that shows a menu and tells what was chosen; without an answer it asks again."""
    lines = ["#!ipxe", f"menu {menu.title}"]
    for item in menu.items:
        key = f"--key {item.key} " if item.key else ""
        lines.append(f"item {key}{item.label} {item.key or '-'}  {item.text}")
    milliseconds = max(1, round(menu.timeout_seconds * 1000))
    lines += [
        f"choose --default {menu.items[0].label} --timeout {milliseconds} choice || goto again",
        "dhcp netX || goto again",
        "isset ${filename} && chain --replace --autofree ${filename}/install?choice=${choice} ||",
        *ask_again(NODE_PAUSE_SECONDS),
    ]
    return "\n".join(lines) + "\n"


def inventory_script(table: BootTable, architecture: str, report: str) -> str:
    """Return the iPXE script that boots the inventory, which tells what the machine has and starts it again."""
    files = f"http://{table.address}:{table.http_port}/files"
    kernel, initramfs = inventory_files(architecture)
    words = (
        f"initrd={initramfs} console=ttyS0,115200 console=tty0 panic=10 quiet",
        "panloom.mac=${netX/mac} panloom.address=${netX/ip} panloom.mask=${netX/netmask}",
        f"panloom.report={report}",
    )
    lines = (
        "#!ipxe",
        "echo Panloom: this machine looks at what it has, and starts again",
        f"kernel {files}/{kernel} {' '.join(words)} || goto again",
        f"initrd {files}/{initramfs} || goto again",
        "boot || goto again",
        *ask_again(NODE_PAUSE_SECONDS),
    )
    return "\n".join(lines) + "\n"


def inventory_files(architecture: str) -> tuple[str, str]:
    """Return the names of the inventory's kernel and initramfs among the boot files."""
    return f"inventory-{architecture}.vmlinuz", f"inventory-{architecture}.cpio.gz"


def why_waiting(node: BootNode | None) -> str:
    """Return what the console of a machine without a server says."""
    if node is None:
        return "this machine is not known here; it waits to be approved"
    return f"{node.name} carries no server; it waits for one"


def pause_seconds(node: BootNode | None, times: int) -> int:
    """Return how long a machine sleeps that has waited ``times`` times: a spare little, a stranger ever longer."""
    return NODE_PAUSE_SECONDS if node is not None else min(1 + times, LONGEST_PAUSE_SECONDS)


def ask_again(pause: int) -> tuple[str, ...]:
    """Return the end of a script: its label ``again``, a pause, and whatever DHCP says then, for ever."""
    # netX is the interface that was booted from; "dhcp" alone would try each, with its time-out.
    return (
        ":again",
        f"sleep {pause} ||",
        "dhcp netX || goto again",
        "isset ${filename} && chain --replace --autofree ${filename} ||",
        "isset ${root-path} && sanboot ${root-path} ||",
        "goto again",
    )


def _no_proxy() -> dict[int, bytes]:
    return {Option.IPXE: dhcp.encode_options({dhcp.IPXE_NO_PROXY_DHCP: b"\1"})}


def _nic_options(nic: ServerNic, firmware: Firmware) -> dict[int, bytes]:
    options: dict[int, bytes] = {Option.SUBNET_MASK: nic.subnet.netmask.packed}
    if nic.router is not None:
        options[Option.ROUTER] = nic.router.packed
    if nic.dns:
        options[Option.DOMAIN_NAME_SERVER] = b"".join(server.packed for server in nic.dns)
    if nic.domain:
        options[Option.DOMAIN_NAME] = nic.domain.encode()
    return options | _no_proxy() if firmware is Firmware.IPXE else options
