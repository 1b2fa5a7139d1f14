"""An emulated machine's hardware: a NIC at the end of a cable, and two network namespaces to run software in.

     lab's namespace                 firmware, initiator                   the OS
    ┌──────────────┐                ┌──────────────────────────┐          ┌─────────────────┐
    │ lab0 ── n1 ══╪═════ veth ═════╪═ eth0, its hardware MAC, │─ macvlan ┼─ os0, a virtual │
    │  (bridge)    │                │  its storage address     │          │  MAC, addresses │
    └──────────────┘                └──────────────────────────┘          └─────────────────┘

Where the chassis has fabrics, the OS has a NIC at each as well: ``fa`` and ``fb``, at the ports ``n1-a`` and ``n1-b``.

The hardware stays when the power goes, and so does the link, as that of a NIC that waits to be woken.  A machine that
is off or hangs has a port that passes no frame, either way; it is closed before the machine's software ends, so that
nothing more leaves the machine, no FIN and no RST.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pyroute2.netlink.exceptions import NetlinkError

from panloom.decide.fabric_plan import changes
from panloom.errors import KernelError
from panloom.fabric.namespaces import new_namespace, within
from panloom.fabric.netlink import Netlink
from panloom.fabric.virtual_lans import VirtualLans
from panloom.values import MacAddress

NIC: Final = "eth0"
FABRIC_NICS: Final = ("fa", "fb")
_LIVE: Final = MacAddress(0x02_00_00_00_00_01)  # nobody's; it never sends
_POLL_SECONDS = 0.005
_QUIET: Final = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}  # linux/if_link.h: none
_BR_STATE_DISABLED, _BR_STATE_FORWARDING = 0, 3  # linux/if_bridge.h
_RTM_SETLINK, _IFLA_PROTINFO = 19, 12  # linux/rtnetlink.h, linux/if_link.h
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4  # linux/netlink.h
_AF_BRIDGE = 7  # linux/socket.h
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class _Requests(Netlink):
    """Single requests to the kernel of one namespace."""

    async def index(self, name: str) -> int:
        """Return an interface's number; KernelError if there is none of that name."""
        return int((await self.ask("link", "get", ifname=name))[0]["index"])

    async def ask(self, what: str, *words: str, **attributes: Any) -> Any:  # noqa: ANN401 - netlink's attributes
        """Send one request; KernelError with the kernel's words when it is refused."""
        try:
            return await getattr(self._route, what)(*words, **attributes)
        except NetlinkError as error:
            raise KernelError(f"{what} {' '.join(words)} {attributes}: {error}") from error


class Board:
    """One machine's hardware, seen from within: what its firmware and its OS do with it.

    The descriptors are those of its two namespaces; whoever has them can run the machine.
    """

    def __init__(self, mac: MacAddress, descriptors: tuple[int, int], *, has_fabrics: bool = False) -> None:
        self.mac = mac
        self.descriptors = descriptors
        self._has_fabrics = has_fabrics
        self._firmware, self._os = (Path(f"/proc/self/fd/{descriptor}") for descriptor in descriptors)

    @property
    def os_namespace(self) -> Path:
        """The namespace of the OS, as a file of this process."""
        return self._os

    def socket(self, family: int, kind: int, protocol: int = 0, *, of_os: bool = False) -> socket.socket:
        """Return a socket of the firmware's namespace or of the OS's, not blocking.

        A connection of the firmware's ends without a farewell, so that none is kept back until the next power-on.
        """
        with within(self._os if of_os else self._firmware):
            made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        if kind == socket.SOCK_STREAM and not of_os:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return made

    def close(self) -> None:
        """Give the hardware up: its cable goes with it, at both ends."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    async def forget(self) -> None:
        """Make the hardware as it is at power-on: no address, no NIC of the OS."""
        async with _Requests(self._os) as os_links:
            with suppress(KernelError):  # there is none after a first power-on
                await os_links.ask("link", "del", index=await os_links.index("os0"))
            await os_links.ask("link", "set", index=await os_links.index("lo"), state="up")
        async with _Requests(self._firmware) as links:
            nic = await links.index(NIC)
            await links.ask("flush_addr", index=nic)
            await links.ask("link", "set", index=nic, IFLA_AF_SPEC=_QUIET)
            await links.ask("link", "set", index=nic, state="up")
        if self._has_fabrics:
            await asyncio.to_thread(_forget_lans, self._os)
            async with _Requests(self._os) as links:
                for name in FABRIC_NICS:
                    index = await links.index(name)
                    await links.ask("flush_addr", index=index)
                    await links.ask("link", "set", index=index, IFLA_AF_SPEC=_QUIET)
                    await links.ask("link", "set", index=index, state="up")

    async def give_storage_address(self, address: IPv4Interface) -> None:
        """Give the NIC its address of scope 1, and no other."""
        async with _Requests(self._firmware) as links:
            await links.ask("flush_addr", index=await links.index(NIC))
        await _add_address(self._firmware, NIC, address)

    async def make_os_nic(self, number: int, mac: MacAddress) -> str:
        """Make a NIC of the OS, with a virtual MAC, and return its name; it is down."""
        name = f"os{number}"
        async with _Requests(self._firmware) as links:
            await links.ask(
                *("link", "add"),
                ifname=name,
                kind="macvlan",
                link=await links.index(NIC),
                macvlan_mode="bridge",
                address=str(mac),
                net_ns_fd=self.descriptors[1],
            )
        with within(self._os):
            Path(f"/proc/sys/net/ipv4/conf/{name}/arp_notify").write_text("1")  # tells the switches where this MAC is
        async with _Requests(self._os) as links:
            await links.ask("link", "set", index=await links.index(name), IFLA_AF_SPEC=_QUIET)
        return name

    async def raise_os_nic(self, name: str) -> None:
        """Bring a NIC of the OS up: it tells the network where its addresses are now."""
        async with _Requests(self._os) as links:
            await links.ask("link", "set", index=await links.index(name), state="up")

    async def give_os_address(self, name: str, address: IPv4Interface, router: IPv4Address | None) -> None:
        """Give a NIC of the OS an address, bring it up and, where it has one, use its router."""
        await _add_address(self._os, name, address)
        await self.raise_os_nic(name)
        if router is not None:
            async with _Requests(self._os) as links:
                with suppress(KernelError):  # the first NIC with a router has the default route
                    await links.ask("route", "add", dst="default", gateway=str(router))


class Bench:
    """The chassis side of emulated machines: plugs boards in at the bridges; an asynchronous context manager.

    ``fabrics``: the bridges of fabric A and B, where there are any.

    The boards are gone when it ends.  One more port is always open: a bridge without any has no carrier, and for up to
    a second after the first one opens it sends nothing.
    """

    def __init__(self, bridge: str, fabrics: Sequence[str] = ()) -> None:
        self._bridge = bridge
        self._fabrics = fabrics
        self._links = _Requests(None)
        self._boards: dict[str, Board] = {}

    async def __aenter__(self) -> Self:
        await self._links.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for board in self._boards.values():
            board.close()
        await self._links.__aexit__(kind, error, traceback)

    async def plug_in(self, port: str, mac: MacAddress) -> Board:
        """Make a board and a cable from it to ``port`` of the bridge; an older cable goes."""
        board = Board(mac, (new_namespace(), new_namespace()), has_fabrics=bool(self._fabrics))
        self._boards[port] = board
        firmware, system = board.descriptors
        await self._cable(port, self._bridge, {"ifname": NIC, "address": str(mac), "net_ns_fd": firmware})
        for name, bridge, nic in zip(self._ports(port)[1:], self._fabrics, FABRIC_NICS, strict=False):
            await self._cable(name, bridge, {"ifname": nic, "net_ns_fd": system})
        await board.forget()
        return board

    async def _cable(self, port: str, bridge: str, far_end: Mapping[str, object]) -> None:
        """Make a cable that ends at a port of a bridge; an older one goes."""
        with suppress(KernelError):
            await self._links.ask("link", "del", index=await self._links.index(port))
        await self._links.ask("link", "add", ifname=port, kind="veth", peer=far_end)
        index, master = await self._links.index(port), await self._links.index(bridge)
        await self._links.ask("link", "set", index=index, IFLA_AF_SPEC=_QUIET)
        await self._links.ask("link", "set", index=index, master=master, state="up")

    def _ports(self, port: str) -> tuple[str, ...]:
        """Return the ports of the board that is plugged in at ``port``: that one, and those at the fabrics."""
        return (port, *(f"{port}-{letter}" for letter in "ab"[: len(self._fabrics)]))

    async def settle(self) -> None:
        """Close the ports of all boards once the bridge has noticed their links: from then on it leaves them alone."""
        live = f"{self._bridge}-live"
        if live not in self._boards:
            await self.plug_in(live, _LIVE)
        for port in self._boards:
            for name in self._ports(port):
                await self._until_noticed(name)
        for port in self._boards.keys() - {live}:
            await self.close(port)

    async def _until_noticed(self, port: str) -> None:
        """Wait until a link is known to be up, which takes up to a second."""
        while True:
            (link,) = await self._links.ask("link", "get", ifname=port)
            if link.get("operstate") == "UP":
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def close(self, port: str) -> None:
        """Let no frame pass at a board's ports from now on, in or out."""
        for name in self._ports(port):
            _set_port_state(await self._links.index(name), _BR_STATE_DISABLED)

    async def open(self, port: str) -> None:
        """Let frames pass."""
        for name in self._ports(port):
            _set_port_state(await self._links.index(name), _BR_STATE_FORWARDING)


def _forget_lans(namespace: Path) -> None:
    with VirtualLans(namespace) as lans:
        lans.apply(changes(lans.observe(), ()))


def _set_port_state(index: int, state: int) -> None:
    """Set a bridge port's state, which pyroute2 cannot: RTM_SETLINK with the one octet of old in IFLA_PROTINFO."""
    attribute = struct.pack("=HHB3x", 5, _IFLA_PROTINFO, state)
    body = struct.pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0) + attribute
    head = struct.pack("=IHHII", 16 + len(body), _RTM_SETLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(head + body)
        (number,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if number:
        raise KernelError(f"the bridge port {index} cannot be put into state {state}: {os.strerror(-number)}")


async def _add_address(namespace: Path, name: str, address: IPv4Interface) -> None:
    async with _Requests(namespace) as links:
        index = await links.index(name)
        await links.ask("addr", "replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
