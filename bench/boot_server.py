"""Panloom's boot services alone, as benchmarks serve from them: DHCP, TFTP and HTTP over a store of their own.

    scripts/run python bench/boot_server.py '{"interface": …, "store": …, …}'        (``Settings``)

Says "ready" on standard output and serves until it is killed.
"""

import asyncio
import logging
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from panloom.boot.services import BootServices
from panloom.decide.boot_answer import BootNode, BootRelay, BootTable
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress


class Settings(msgspec.Struct, frozen=True):
    """What is served; ``nodes`` machines are known, from ``first_mac`` and ``first_address`` on."""

    interface: str
    store: str  # its directory must be on a disk: leases are synced there
    address: str = "10.77.0.1"
    subnet: str = "10.77.0.0/16"
    files: str | None = None
    relay: str | None = None  # whose network is ``relayed``
    relayed: str = "10.64.0.0/16"
    nodes: int = 0
    first_mac: str = "00:0c:01:02:03:04"
    first_address: str = "10.64.1.0"


def table(settings: Settings) -> BootTable:
    mac, address = MacAddress.parse(settings.first_mac).number, IPv4Address(settings.first_address)
    router = IPv4Network(settings.relayed)[1]
    return BootTable(
        interface=settings.interface,
        address=IPv4Address(settings.address),
        subnet=IPv4Network(settings.subnet),
        relays=(BootRelay(IPv4Address(settings.relay), IPv4Network(settings.relayed), router),)
        if settings.relay
        else (),
        nodes=tuple(BootNode(f"n{i}", MacAddress(mac + i), address + i) for i in range(settings.nodes)),
    )


async def serve(settings: Settings) -> None:
    logging.basicConfig(level=logging.INFO, filename=f"{settings.store}.log", format="%(asctime)s %(name)s %(message)s")
    store = await SqliteStore.open(Path(settings.store))
    files = Path(settings.files) if settings.files else None
    services = BootServices(table(settings), store, lambda _event: None, files)
    await services.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Settings)))
