"""What would go wrong on this site, looked for before a server is trusted to it: ``panloom check``.

    documents ──▶ what should be there ─┐
                                        ├─▶ findings: where, what, how to mend it
    wire, portals, power, store ────────┘

Each part asks for itself, all at once; one that cannot be asked, or fails itself, is ``unknown`` and holds up no other.
What nobody could look at is no good news: a site is ``ok`` if all findings are.  Nothing is changed.  What this host
lacks, programs, disk space, clock, is ``panloom doctor``'s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

import msgspec

from panloom.boot.arp_probe import owners
from panloom.boot.dhcp_survey import MOST_SERVERS, offering
from panloom.control.edge import Edge
from panloom.control.observer import Observer
from panloom.control.power import PowerDriver
from panloom.control.world import World
from panloom.decide.preflight import MEND
from panloom.errors import PanloomError
from panloom.model.resources import Node, Platform, Resource, Server
from panloom.state.contract import Store
from panloom.values import MacAddress

PART_SECONDS = 20.0
"""More than each question within a part may take, so that a part tells which one had no answer."""
POWER_SECONDS = 8.0
TURN_SECONDS = 10.0
"""How long a node's driver waits for its turn, while others hang."""
ARP_SECONDS = 0.5
MOST_ASKED = 1024
"""Addresses: more probes at once are a flood."""
_AT_ONCE = 16
_CONNECT_SECONDS = 3.0
_SYS = Path("/sys/class/net")
_log = logging.getLogger("panloom.check")
Row = Mapping[str, Any]
Rows = Callable[[str], Awaitable[Sequence[Row]]]
Preflight = Callable[[Mapping[str, Resource]], Awaitable[Sequence[str]]]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; ``mend`` are words for a person, empty where nothing is wrong."""

    part: str
    where: str
    state: Literal["ok", "wrong", "unknown"]
    found: str = ""
    mend: str = ""


class SiteCheck:
    """Looks at a site; ``rows`` tells what the API shows of a kind."""

    def __init__(self, store: Store, observer: Observer, edge: Edge, preflight: Preflight) -> None:
        self._store = store
        self._observer = observer
        self._edge = edge
        self._preflight = preflight

    async def findings(self, rows: Rows) -> tuple[Finding, ...]:
        """Look at everything; takes some seconds."""
        world = await World.read(self._store)
        platform = world.platform
        if platform is None:
            mend = "write one and apply it; its form: panloom schema"
            return (Finding("platform", "documents", "wrong", "there is no Platform document", mend),)
        parts: dict[str, Awaitable[Iterable[Finding]]] = {
            "boot services": self._boot_services(platform),
            "MTU": asyncio.to_thread(_mtu, platform, world),
            "addresses": _addresses(platform, world),
            "DHCP": _dhcp(platform),
            "portal": _portal(platform),
            "power": self._power(world),
            "nodes": _nodes(rows),
            "images": self._images(rows),
            "spares": self._spares(world),
        }
        told = await asyncio.gather(*(_in_time(part, work) for part, work in parts.items()))
        return tuple(finding for findings in told for finding in findings)

    async def _boot_services(self, platform: Platform) -> Iterable[Finding]:
        where = f"{platform.storage.interface}, {platform.storage.address}"
        if self._edge.trouble:
            mend = "have the interface up with that address, and nobody else at the port"
            return (Finding("boot services", where, "wrong", self._edge.trouble, mend),)
        return (Finding("boot services", where, "ok", "open"),)

    async def _power(self, world: World) -> Iterable[Finding]:
        nodes, turn = world.all(Node).values(), asyncio.Semaphore(_AT_ONCE)

        async def ask(node: Node) -> Finding:
            driver, where = self._observer.driver(node), f"node {node.name}"
            if driver is None:
                return Finding("power", where, "ok", "none: a person switches it")
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await turn.acquire()
            except TimeoutError:
                mend = "mend the drivers that do not answer, and look again"
                return Finding("power", where, "unknown", "not asked: too many others take long", mend)
            try:
                return await _power_of(driver, where)
            finally:
                turn.release()

        return await asyncio.gather(*map(ask, nodes))

    async def _images(self, rows: Rows) -> Iterable[Finding]:
        await self._observer.volumes()  # where the store does not answer, nobody knows what is there
        found, there = [], 0
        for row in await rows("image"):
            bad = "a signature of it is bad" if row.get("signed") == "bad" else ""
            why = row.get("distrusted") or bad or ("" if row["state"] == "ready" else row["why"] or row["state"])
            there += not why
            if why:
                mend = f"see what is known of it: panloom show image {row['name']}"
                found.append(Finding("images", f"image {row['name']}", "wrong", why, mend))
        return found or (Finding("images", "store", "ok", f"{there} there, as their documents ask"),)

    async def _spares(self, world: World) -> Iterable[Finding]:
        wanted: dict[str, Resource] = {one.key: one for kind in (Node, Server) for one in world.all(kind).values()}
        warnings = await self._preflight(wanted)
        if not warnings:
            return (Finding("spares", "servers", "ok", "each that fails over has a machine to go to"),)
        return tuple(Finding("spares", "servers", "wrong", warning, MEND) for warning in warnings)


def state_of(findings: Iterable[Finding]) -> Literal["ok", "wrong", "unknown"]:
    """Return what a site is by its findings; what nobody could look at keeps it from being ``ok``."""
    states = {finding.state for finding in findings}
    return "wrong" if "wrong" in states else "unknown" if "unknown" in states else "ok"


async def _power_of(driver: PowerDriver, where: str) -> Finding:
    mend = "mend the driver or its address in the node's `power:`; a fence cannot cut its power"
    try:
        async with asyncio.timeout(POWER_SECONDS):
            return Finding("power", where, "ok", "on" if await driver.status() else "off")
    except TimeoutError:
        return Finding("power", where, "wrong", f"its driver did not answer within {POWER_SECONDS:g} s", mend)
    except PanloomError as error:
        return Finding("power", where, "wrong", str(error), mend)


async def _in_time(part: str, work: Awaitable[Iterable[Finding]]) -> Iterable[Finding]:
    try:
        async with asyncio.timeout(PART_SECONDS):
            return await work
    except TimeoutError:
        return (Finding(part, "", "unknown", f"no answer within {PART_SECONDS:g} s"),)
    except PanloomError as error:
        return (Finding(part, "", "unknown", str(error)),)
    except Exception as error:  # noqa: BLE001 - the top of this part: a fault of ours hides no other part's findings
        _log.exception("check=%r", part)
        why = f"the control process failed ({type(error).__name__}: {error}); see its log"
        return (Finding(part, "", "unknown", why),)


def _mtu(platform: Platform, world: World) -> Iterable[Finding]:
    """Compare the ports' largest frames with the interface's: a bridge sends none larger than its port takes."""
    interface = platform.storage.interface
    own = _mtu_of(interface)
    if own is None:
        return (Finding("MTU", interface, "wrong", "there is no such interface", "make it, or name another"),)
    found = []
    for node in world.all(Node).values():
        port = _mtu_of(node.port) if node.port else None
        if port is not None and port != own:
            mend = f"ip link set {node.port} mtu {own}, and what is behind it"
            told = f"{port} octets, and {interface} has {own}: large frames are lost, and boots stop after the login"
            found.append(Finding("MTU", f"{node.port} of node {node.name}", "wrong", told, mend))
    return found or (Finding("MTU", interface, "ok", f"{own} octets"),)


def _mtu_of(interface: str) -> int | None:
    try:
        return int((_SYS / interface / "mtu").read_text())
    except (OSError, ValueError):
        return None


async def _addresses(platform: Platform, world: World) -> Iterable[Finding]:
    expected: dict[IPv4Address, tuple[str, frozenset[MacAddress]]] = {}
    expected[platform.storage.address] = ("this control node", frozenset())
    for node in world.all(Node).values():
        expected[node.address] = (f"node {node.name}", frozenset((node.mac,)))
    for name, server in world.all(Server).items():
        record = world.server_records.get(name)
        macs = frozenset(MacAddress.parse(nic.mac) for nic in record.nics) if record else frozenset()
        here = [nic for nic in server.nics if not world.is_over_fabrics(server, nic)]
        expected.update({nic.address: (f"server {name}", macs) for nic in here if nic.address})
    asked = tuple(expected)[:MOST_ASKED]
    found = []
    for address, macs in sorted((await owners(platform.storage.interface, asked, ARP_SECONDS)).items()):
        whose, theirs = expected[address]
        if others := macs - theirs:
            told = f"{', '.join(map(str, sorted(others)))} has {address} too"
            mend = "take the address from that machine, or write another"
            found.append(Finding("addresses", whose, "wrong", told, mend))
    told = f"nobody else answers for {len(asked)} of {len(expected)}"
    return found or (Finding("addresses", platform.storage.interface, "ok", told),)


async def _dhcp(platform: Platform) -> Iterable[Finding]:
    interface, is_proxy = platform.storage.interface, platform.storage.dhcp == "proxy"
    others = sorted(await offering(interface))
    more = " and maybe more" if len(others) == MOST_SERVERS else ""
    told = f"{', '.join(map(str, others))}{more} offers addresses"
    if is_proxy and not others:
        mend = "start the DHCP server of this network, or write `dhcp:` without proxy"
        return (Finding("DHCP", interface, "wrong", "no server offers addresses, and `dhcp: proxy` gives none", mend),)
    if is_proxy:
        return (Finding("DHCP", interface, "ok", told),)
    if others:
        mend = "switch that server off, part the networks, or write `storage: {dhcp: proxy}`"
        return (Finding("DHCP", interface, "wrong", f"{told}: machines may take its offer", mend),)
    return (Finding("DHCP", interface, "ok", "no other server offers addresses"),)


async def _portal(platform: Platform) -> Iterable[Finding]:
    storage = platform.storage
    where = f"{storage.address}:{storage.iscsi_port}"
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(str(storage.address), storage.iscsi_port)
    except (OSError, TimeoutError) as error:
        why = f"nobody listens: {error}" if str(error) else f"no answer within {_CONNECT_SECONDS:g} s"
        mend = f"start the storage process with --portal {where}"
        return (Finding("portal", where, "wrong", why, mend),)
    writer.close()
    return (Finding("portal", where, "ok", "listens"),)


async def _nodes(rows: Rows) -> Iterable[Finding]:
    found = []
    for row in await rows("node"):
        if row["state"] in ("quarantined", "no port", "fenced", "unreachable") or (
            row["state"] == "in use" and row["why"]
        ):
            mend = f"see what is known of it: panloom show node {row['name']}"
            found.append(Finding("nodes", f"node {row['name']}", "wrong", f"{row['state']}: {row['why']}", mend))
    return found or (Finding("nodes", "documents", "ok", "each can carry a server"),)
