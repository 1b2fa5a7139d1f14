"""The real boot services in the control node's namespace of a chassis, with a real store, and what they reported."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import msgspec

from panloom.boot.services import BootServices
from panloom.decide.boot_answer import BootEvent, BootNode, BootServer, BootTable, ServerNic
from panloom.state.sqlite import SqliteStore
from panloom.values import Iqn, MacAddress, beside
from panloom.wire.router_advertisement import link_local
from support.namespaces import Chassis, LoopInside, Namespace, machines
from support.waiting import until

ADDRESS = IPv4Address("10.77.0.1")
FRONT = IPv4Network("10.99.0.0/24")
MACS = {"n1": "52:54:00:77:00:01", "n2": "52:54:00:77:00:02", "stranger": "52:54:00:77:00:99"}
VIRTUAL_MAC = MacAddress.parse("02:50:4c:00:00:01")
SECRET = "correct-horse-battery-9"


def server(epoch: int = 1, *, chap: bool = True, node: str = "n1") -> BootServer:
    """Return shop/web1 as node ``node`` carries it."""
    return BootServer(
        name="shop/web1",
        epoch=epoch,
        target=Iqn("iqn.2026-11.dev.panloom:shop.web1"),
        initiator=Iqn(f"iqn.2026-11.dev.panloom:node.{node}"),
        user=f"shop.web1.{epoch}" if chap else None,
        secret=SECRET if chap else None,
    )


def table(*, n1: BootServer | None = None, n2: BootServer | None = None, nics: bool = True) -> BootTable:
    """Return a table of two nodes and one virtual NIC of shop/web1."""
    return BootTable(
        interface="br0",
        address=ADDRESS,
        subnet=IPv4Network("10.77.0.0/24"),
        discovery=(IPv4Address("10.77.0.200"), IPv4Address("10.77.0.203")),
        nodes=(
            BootNode("n1", MacAddress.parse(MACS["n1"]), IPv4Address("10.77.0.51"), n1),
            BootNode("n2", MacAddress.parse(MACS["n2"]), IPv4Address("10.77.0.52"), n2),
        ),
        nics=(
            ServerNic(
                server="shop/web1",
                mac=VIRTUAL_MAC,
                lan="front",
                subnet=FRONT,
                range=(IPv4Address("10.99.0.10"), IPv4Address("10.99.0.19")),
                router=IPv4Address("10.99.0.1"),
                dns=(IPv4Address("10.99.0.2"), IPv4Address("10.99.0.3")),
                domain="front.example",
            ),
        )
        if nics
        else (),
    )


PREFIX, FRONT_PREFIX = IPv6Network("2001:db8:77::/64"), IPv6Network("2001:db8:99::/64")
IPV6 = {name: beside(PREFIX, IPv4Address(address)) for name, address in (("n1", "10.77.0.51"), ("n2", "10.77.0.52"))}
"""The nodes' addresses where the storage network has a prefix."""


def with_ipv6(here: BootTable) -> BootTable:
    """Return a table whose networks have IPv6 beside IPv4."""
    nics = (msgspec.structs.replace(nic, prefix=FRONT_PREFIX) for nic in here.nics)
    return msgspec.structs.replace(here, prefix=PREFIX, nics=tuple(nics))


def speak_ipv6(machine: Namespace, interface: str = "eth0") -> IPv6Address:
    """Give a machine the link-local address that its MAC makes, at once, and return it."""
    address = link_local(MacAddress.parse(machine.mac(interface)))
    machine.ip(f"-6 address flush dev {interface} scope link")  # the kernel's own, which it is still asking about
    machine.ip(f"address add {address}/64 dev {interface} nodad")
    return address


class RunningServices:
    """Boot services that answer on br0; ``events`` is what they have reported so far."""

    def __init__(self, chassis: Chassis, inside: LoopInside, services: BootServices, events: list[BootEvent]) -> None:
        self.chassis = chassis
        self.events = events
        self._inside = inside
        self._services = services

    def replace(self, table: BootTable) -> None:
        """Replace the table, in the services' own thread."""
        self._inside.call(self._in_loop(lambda: self._services.replace(table)))

    def login_seen(self, initiator: Iqn, epoch: int) -> None:
        """Report a login, in the services' own thread."""
        self._inside.call(self._in_loop(lambda: self._services.login_seen(initiator, epoch)))

    def wait_for(self, kind: str, *, after: int = 0, seconds: float = 10.0) -> BootEvent:
        """Return the first event of ``kind`` from number ``after`` on."""
        return until(
            lambda: next((event for event in self.events[after:] if event.kind == kind), None),
            f"event {kind} among {[msgspec.structs.astuple(event) for event in self.events]}",
            seconds=seconds,
        )

    async def _in_loop(self, work: Callable[[], None]) -> None:
        work()


@contextmanager
def boot_services(
    directory: Path, start: BootTable, *, macs: Mapping[str, str] = MACS, files: Path | None = None
) -> Iterator[RunningServices]:
    """Run boot services over a store in ``directory`` until the block ends."""
    with machines(macs) as chassis:
        if start.prefix is not None:
            chassis.control.ip(f"address add {start.ipv6_address}/{start.prefix.prefixlen} dev br0 nodad")
        with running_in(chassis, directory, start, files=files) as running:
            yield running


@contextmanager
def running_in(
    chassis: Chassis, directory: Path, start: BootTable, *, files: Path | None = None
) -> Iterator[RunningServices]:
    """Run boot services in a chassis that stays when they stop."""
    events: list[BootEvent] = []
    with LoopInside(chassis.control) as inside:

        async def begin() -> tuple[SqliteStore, BootServices]:
            store = await SqliteStore.open(directory / "state.sqlite")
            services = BootServices(start, store, events.append, files)
            await services.start()
            return store, services

        async def end(store: SqliteStore, services: BootServices) -> None:
            await services.stop()
            await store.close()

        store, services = inside.call(begin())
        try:
            yield RunningServices(chassis, inside, services, events)
        finally:
            inside.call(end(store, services))
