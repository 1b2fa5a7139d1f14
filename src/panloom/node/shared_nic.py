"""One network card for a disk and for the network of an operating system, in user space.

    split    Card ── BusDriver ──┬── StorageDriver ── a TCP/IP stack of its own, an iSCSI session
                                 └── VirtualNic ───── the system's namespace: its eth0

    merged   Card ── MergedDriver ─── VirtualNic ──── the system's namespace: its eth0
                     (both in one: a TCP/IP stack of its own, an iSCSI session)

A virtual NIC knows the card as something that frames can be handed to, and nothing else.  It may go down, be deleted by
the system, and come back as often as anybody likes: the disk's stack and session are not its own.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from enum import Enum
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from panloom.errors import KernelError, UnavailableError
from panloom.fabric.frame_ports import Card, Frame, Link, Tap
from panloom.fabric.namespaces import new_namespace, within
from panloom.initiator import Session
from panloom.protocol.shared_nic import Address, ByMac, ByPort, Identity
from panloom.values import Iqn, MacAddress

STORAGE: Final = "storage"
STORAGE_INTERFACE: Final = "storage0"
_FRAMES_A_TURN: Final = 64  # of one interface, before the others have theirs
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_UNPRIVILEGED: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NO_IPV6: Final = Path(f"/proc/sys/net/ipv6/conf/{STORAGE_INTERFACE}/disable_ipv6")

Kind = Literal["storage", "network"]
NicKind = Literal["integration", "passthrough"]
"""A virtual NIC's link is its own, always there; or it is the card's: carrier, MTU and speed."""
Deliver = Callable[[Frame], bool]


class Step(Enum):
    """What a driver between a bus and a network does, in the order of a command and its answer."""

    ENCAPSULATE = "a command is put into the protocol of its network"
    SEND_COMMAND = "a frame of the disk's stack is sent"
    OFFER = "an interface is offered to a stack"
    SEND_NETWORK = "a frame that the system handed over is sent"
    DISTINGUISH = "a frame that came in is told to be a stack's"


Note = Callable[[Step, str], None]


class Part(msgspec.Struct, frozen=True):
    """One object of a shared card: what it holds, and whom it speaks to."""

    name: str
    card: str | None  # the network card that it holds
    peer: str | None  # the object that it hands its frames to


class Bus(Protocol):
    """What a driver that holds a card offers to the others."""

    @property
    def name(self) -> str:
        """What it is called in ``Part``."""

    def attach(self, identity: Identity, deliver: Deliver, kind: Kind) -> None:
        """Let a stack send, and have what is for it; ValueError if frames could not be told from another's."""

    def detach(self, stack: str) -> None:
        """Let a stack be no more; one that is not there is no error."""

    def send(self, stack: str, frame: Frame) -> None:
        """Send a frame of a stack, if it may."""

    def follow(self, stack: str, told: Callable[[Link], None]) -> None:
        """Tell an attached stack what the card's link is like, now and whenever that changes."""


def _note_nothing(_step: Step, _what: str) -> None:
    pass


class _Stack(msgspec.Struct, frozen=True):
    identity: Identity
    deliver: Deliver
    kind: Kind


class BusDriver:
    """Holds a card, and tells whose its frames are.

    ``counts``: frames by stack and ``in``, ``out``, ``refused`` (its interface is down) or ``absent`` (it has none).
    """

    def __init__(self, card: Card, separation: ByMac | ByPort, *, note: Note = _note_nothing) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.separation = separation
        self._card = card
        self._note = note
        self._stacks: dict[str, _Stack] = {}
        self._followers: dict[str, Callable[[Link], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(card, self._receive)
        self._loop.add_reader(card.link_changes, self._tell_followers)

    @property
    def name(self) -> str:
        """What it is called."""
        return "bus driver"

    @property
    def mtu(self) -> int:
        """The card's, in octets."""
        return self._card.mtu

    def attach(self, identity: Identity, deliver: Deliver, kind: Kind) -> None:
        """Let a stack send, and have what is for it; ValueError if frames could not be told from another's."""
        stacks = {**self._stacks, identity.stack: _Stack(identity, deliver, kind)}
        if len(stacks) == len(self._stacks):
            raise ValueError(f"there is a stack {identity.stack} already")
        self._separate(stacks)
        self._note(Step.OFFER, identity.stack)

    def detach(self, stack: str) -> None:
        """Let a stack be no more; one that is not there is no error."""
        self._followers.pop(stack, None)
        self._separate({name: one for name, one in self._stacks.items() if name != stack})

    def follow(self, stack: str, told: Callable[[Link], None]) -> None:
        """Tell an attached stack what the card's link is like, now and whenever that changes."""
        self._followers[stack] = told
        self._tell_followers()

    def send(self, stack: str, frame: Frame) -> None:
        """Send a frame of a stack, if it may."""
        sender = self._stacks.get(stack)
        if sender is None or not self.separation.may_send(stack, frame.octets):
            return
        self._note(Step.SEND_COMMAND if sender.kind == "storage" else Step.SEND_NETWORK, stack)
        self.counts[stack, "out" if self._card.send(frame) else "refused"] += 1

    def describe(self) -> Part:
        """Tell what this object holds."""
        return Part(self.name, self._card.name, None)

    def close(self) -> None:
        """Let go of the card."""
        self._loop.remove_reader(self._card)
        self._loop.remove_reader(self._card.link_changes)
        if self._timer is not None:
            self._timer.cancel()
        self._card.close()

    def _separate(self, stacks: dict[str, _Stack]) -> None:
        if isinstance(self.separation, ByMac):
            self.separation.replace(one.identity for one in stacks.values())
        self._stacks = stacks

    def _tell_followers(self) -> None:
        try:
            link = self._card.link()
        except KernelError:  # a card that was taken out has no carrier, if it had any before
            link = Link(carrier=False, mtu=self._card.mtu, speed=None)
        for told in self._followers.values():
            told(link)

    def _receive(self) -> None:
        for _ in range(_FRAMES_A_TURN):
            frame = self._card.receive()
            if frame is None:
                return
            for delivery in self.separation.receive(frame.octets, now=self._loop.time()):
                # A fragment that was held has nothing left to be done.
                self._deliver(delivery.stack, frame if delivery.frame is frame.octets else Frame(delivery.frame))
            self._set_timer()

    def _deliver(self, name: str, frame: Frame) -> None:
        self._note(Step.DISTINGUISH, name)
        stack = self._stacks.get(name)
        if stack is None:
            self.counts[name, "absent"] += 1
        else:
            self.counts[name, "in" if stack.deliver(frame) else "refused"] += 1

    def _set_timer(self) -> None:
        deadline = self.separation.deadline
        if deadline is not None and self._timer is None:
            self._timer = self._loop.call_at(deadline, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.separation.handle_timer(now=self._loop.time())
        self._set_timer()


class _End:
    """A stack's interface: what it sends is handed to the bus, and what the bus has for it appears there."""

    def __init__(self, bus: Bus, identity: Identity, tap: Tap, kind: Kind) -> None:
        self.stack = identity.stack
        self.tap = tap
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        bus.attach(identity, tap.send, kind)
        self._loop.add_reader(tap, self._forward)

    def close(self) -> None:
        self._bus.detach(self.stack)
        self._loop.remove_reader(self.tap)
        self.tap.close()

    def _forward(self) -> None:
        for _ in range(_FRAMES_A_TURN):
            frame = self.tap.receive()
            if frame is None:
                break
            self._bus.send(self.stack, frame)
        if self.tap.is_gone:
            self._loop.remove_reader(self.tap)
            self._bus.detach(self.stack)


class VirtualNic:
    """An ordinary network interface in a system's namespace; it knows the bus, and no card.

    ``kept_ports``: TCP ports that no socket of the system can have.
    """

    def __init__(
        self,
        bus: Bus,
        namespace: Path | None,
        name: str,
        identity: Identity,
        *,
        mtu: int,
        kind: NicKind = "integration",
        kept_ports: range = range(0),
    ) -> None:
        self._bus = bus
        self._name = name
        with ExitStack() as opened:
            self._kept = _keep(namespace, kept_ports, opened)
            tap = Tap(namespace, name, identity.mac, mtu=mtu)
            opened.callback(tap.close)
            self._end = _End(bus, identity, tap, "network")
            opened.pop_all()
        if kind == "passthrough":
            bus.follow(identity.stack, tap.be_like)

    @property
    def stack(self) -> str:
        """Whose it is."""
        return self._end.stack

    @property
    def is_gone(self) -> bool:
        """Whether the system has deleted it."""
        return self._end.tap.is_gone

    def describe(self) -> Part:
        """Tell what this object holds."""
        return Part(f"virtual NIC {self._name}", None, self._bus.name)

    def close(self) -> None:
        """Take the interface away from the system."""
        self._end.close()
        for held in self._kept:
            held.close()


class StorageDriver:
    """A disk over iSCSI, by a TCP/IP stack that belongs to it alone."""

    def __init__(
        self,
        bus: Bus,
        mac: MacAddress,
        address: IPv4Interface,
        *,
        mtu: int,
        ports: range = range(0),
        stack: str = STORAGE,
        note: Note = _note_nothing,
    ) -> None:
        self._bus = bus
        self._note_step = note
        self._session: Session | None = None
        with ExitStack() as opened:
            self._descriptor = new_namespace()
            opened.callback(os.close, self._descriptor)
            self._namespace = Path(f"/proc/self/fd/{self._descriptor}")
            tap = Tap(self._namespace, STORAGE_INTERFACE, mac, mtu=mtu)
            opened.callback(tap.close)
            with within(self._namespace):
                with suppress(FileNotFoundError):  # a kernel without IPv6
                    _NO_IPV6.write_text("1")
                if ports:
                    _UNPRIVILEGED.write_text("0")  # below that, no port is given out
                    _PORT_RANGE.write_text(f"{ports.start} {ports[-1]}")
            self._end = _End(bus, Identity(stack, mac), tap, "storage")
            opened.callback(bus.detach, stack)
            tap.give_address(address)
            opened.pop_all()

    @property
    def name(self) -> str:
        """What it is called."""
        return "storage driver"

    @property
    def session(self) -> Session:
        """The session with the target; UnavailableError before ``log_in``."""
        if self._session is None:
            raise UnavailableError("there is no session yet; log in first")
        return self._session

    async def log_in(
        self,
        portal: tuple[str, int],
        *,
        initiator: Iqn,
        target: Iqn,
        isid: bytes | None = None,
        user: str | None = None,
        secret: str | None = None,
    ) -> None:
        """Connect to the disk; errors as ``Session.open``."""
        self._session = await Session.open(
            portal, initiator=initiator, target=target, isid=isid, user=user, secret=secret, connect=self._connect
        )

    async def read(self, lun: int, offset_octets: int, octets: int) -> bytes:
        """Return whole blocks; errors as ``Session.read``."""
        self._note_step(Step.ENCAPSULATE, f"READ of {octets} octets at {offset_octets} of unit {lun}")
        return await self.session.read(lun, offset_octets, octets)

    async def write(self, lun: int, offset_octets: int, data: bytes, *, fua: bool = False) -> None:
        """Write whole blocks; errors as ``Session.write``."""
        self._note_step(Step.ENCAPSULATE, f"WRITE of {len(data)} octets at {offset_octets} of unit {lun}")
        await self.session.write(lun, offset_octets, data, fua=fua)

    def describe(self) -> Part:
        """Tell what this object holds."""
        return Part(self.name, None, self._bus.name)

    async def log_out(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def close(self) -> None:
        """Remove the stack."""
        self._end.close()
        os.close(self._descriptor)

    async def _connect(self, address: str, port: int) -> socket.socket:
        with within(self._namespace):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        with ExitStack() as opened:
            opened.callback(made.close)
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            opened.pop_all()
        return made


class MergedDriver(StorageDriver, BusDriver):
    """A disk over iSCSI, by the driver that holds the card itself."""

    def __init__(
        self,
        card: Card,
        separation: ByMac | ByPort,
        mac: MacAddress,
        address: IPv4Interface,
        *,
        ports: range = range(0),
        note: Note = _note_nothing,
    ) -> None:
        BusDriver.__init__(self, card, separation, note=note)
        StorageDriver.__init__(self, self, mac, address, mtu=card.mtu, ports=ports, note=note)

    def describe(self) -> Part:
        """Tell what this object holds."""
        return Part(self.name, self._card.name, None)

    def close(self) -> None:
        """Remove the stack and let go of the card."""
        StorageDriver.close(self)
        BusDriver.close(self)


class SharedNic:
    """A card with its drivers, and the virtual NICs that come and go.

    ``separation``: a new ``ByMac()``, or ``ByPort`` with the storage ``ports`` of its rule.  For one event loop.
    """

    def __init__(
        self,
        card: Card,
        separation: ByMac | ByPort,
        mac: MacAddress,
        address: IPv4Interface,
        *,
        layout: Literal["split", "merged"],
        ports: range = range(0),
        note: Note = _note_nothing,
    ) -> None:
        self.bus: BusDriver
        self.disk: StorageDriver
        self._drivers: tuple[BusDriver | StorageDriver, ...]
        self._ports = ports
        self._nics: dict[str, VirtualNic] = {}
        if layout == "merged":
            merged = MergedDriver(card, separation, mac, address, ports=ports, note=note)
            self.bus, self.disk, self._drivers = merged, merged, (merged,)
        else:
            self.bus = BusDriver(card, separation, note=note)
            with ExitStack() as opened:
                opened.callback(self.bus.close)
                self.disk = StorageDriver(self.bus, mac, address, mtu=card.mtu, ports=ports, note=note)
                opened.pop_all()
            self._drivers = (self.bus, self.disk)

    def plug(
        self,
        namespace: Path | None,
        name: str,
        mac: MacAddress,
        *,
        stack: str = "os",
        addresses: Iterable[Address] = (),
        kind: NicKind = "integration",
    ) -> VirtualNic:
        """Give a system an interface; one that it deleted is made anew.  KernelError: the kernel refuses."""
        older = self._nics.get(stack)
        if older is not None:
            if not older.is_gone:
                raise KernelError(f"{stack} has its interface; unplug it first")
            self.unplug(stack)
        identity = Identity(stack, mac, frozenset(addresses))
        made = VirtualNic(self.bus, namespace, name, identity, mtu=self.bus.mtu, kind=kind, kept_ports=self._ports)
        self._nics[stack] = made
        return made

    def unplug(self, stack: str = "os") -> None:
        """Take a system's interface away."""
        self._nics.pop(stack).close()

    def parts(self) -> tuple[Part, ...]:
        """Tell what objects there are, the one that holds the card first."""
        return tuple(part.describe() for part in (*self._drivers, *self._nics.values()))

    async def close(self) -> None:
        """Log out and remove everything."""
        for stack in tuple(self._nics):
            self.unplug(stack)
        await self.disk.log_out()
        for driver in reversed(self._drivers):
            driver.close()


def _keep(namespace: Path | None, ports: range, opened: ExitStack) -> tuple[socket.socket, ...]:
    """Hold TCP ports of a namespace, so that nobody there can have them; KernelError if somebody has one."""
    kept = []
    for port in ports:
        with within(namespace):
            holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.callback(holder.close)
        try:
            holder.bind(("0.0.0.0", port))
        except OSError as error:
            raise KernelError(f"TCP port {port} is for storage, and somebody has it: {error.strerror}") from error
        kept.append(holder)
    return tuple(kept)
