"""The boot services as a process of its own, which can be killed:  python tests/support/boot_process.py DIRECTORY

They stand in the namespace they are started in, at br0, over ``DIRECTORY/state.sqlite``, and serve ``DIRECTORY/files``.
Machines 0, 2, 4 … are nodes with an address each; the others are unknown and share a range with one address for each.
Says "ready" and serves until it is killed.
"""

import asyncio
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from panloom.boot.services import BootServices
from panloom.decide.boot_answer import BootNode, BootTable
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress

MOST = 64  # machines
ADDRESS = IPv4Address("10.77.0.1")
NODES, RANGE = IPv4Address("10.77.1.0"), IPv4Address("10.77.2.0")
_MAC = 0x525400770000


def mac_of(number: int) -> MacAddress:
    """Return the MAC of a machine."""
    return MacAddress(_MAC + number)


def table() -> BootTable:
    """Return what is served."""
    return BootTable(
        interface="br0",
        address=ADDRESS,
        subnet=IPv4Network("10.77.0.0/16"),
        discovery=(RANGE, RANGE + MOST // 2 - 1),
        nodes=tuple(BootNode(f"n{number}", mac_of(number), NODES + number) for number in range(0, MOST, 2)),
    )


async def _serve(directory: Path) -> None:
    store = await SqliteStore.open(directory / "state.sqlite")
    await BootServices(table(), store, lambda _event: None, directory / "files").start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
