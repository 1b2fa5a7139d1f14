"""The boot services of one interface, as the control process sees them.

    start ──▶ DHCP :67 (beside another server :4011 too), TFTP :69, HTTP :http_port, router advertisement;
              where the storage network has a prefix, TFTP, HTTP and DHCPv6 :547 at our address of IPv6
    replace   other machines, servers and epochs, from this very moment
    stop  ──▶ all sockets closed

They decide nothing: what each machine is given stands in the BootTable.
"""

import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from panloom.boot.advertiser import Advertiser
from panloom.boot.desk import BootDesk
from panloom.boot.dhcp import DhcpService
from panloom.boot.dhcp_proxy import DhcpProxyService
from panloom.boot.dhcpv6 import Dhcpv6Service
from panloom.boot.file_root import FileRoot
from panloom.boot.http import HttpService
from panloom.boot.tftp import TftpService
from panloom.decide.boot_answer import BootEvent, BootTable
from panloom.state.contract import Store
from panloom.values import Iqn

_TOKEN_OCTETS = 18  # 144 bits, 24 characters of a file name


class BootServices:
    """DHCP, TFTP, HTTP and router advertisement on the table's interface.

    ``report`` is called in the event loop for each BootEvent; ``files`` is the directory that TFTP and HTTP hand out.
    """

    def __init__(
        self, table: BootTable, store: Store, report: Callable[[BootEvent], None], files: Path | None = None
    ) -> None:
        root = FileRoot(files)
        self._desk = BootDesk(table, root, report, lambda: secrets.token_urlsafe(_TOKEN_OCTETS))
        self._place = _place(table)
        # DHCP comes last: whoever has an address finds everything else there.
        ours = table.ipv6_address
        addresses = (table.address,) if ours is None else (table.address, ours)
        self._services = (
            Advertiser(table, self._desk),
            *(TftpService(table, address, root, self._desk) for address in addresses),
            *(HttpService(table, address, root, self._desk) for address in addresses),
            *(() if ours is None else (Dhcpv6Service(table, ours, store, self._desk),)),
            DhcpProxyService(table, self._desk) if table.is_proxy else DhcpService(table, store, self._desk),
        )

    async def start(self) -> None:
        """Open all sockets, or none and raise UnavailableError (interface, address or store missing)."""
        async with AsyncExitStack() as opened:
            for service in self._services:
                opened.push_async_callback(service.stop)
                await service.start()
            opened.pop_all()

    async def stop(self) -> None:
        """Close all sockets; harmless when nothing is open."""
        for service in reversed(self._services):
            await service.stop()

    def replace(self, table: BootTable) -> None:
        """Answer from ``table`` from now on; ValueError if it names another interface, address, port or way."""
        if _place(table) != self._place:
            raise ValueError(f"these services are open at {self._place}")
        self._desk.replace(table)

    def login_seen(self, initiator: Iqn | str, epoch: int) -> None:
        """End the boot token of a machine whose initiator has logged in under ``epoch``."""
        self._desk.login_seen(initiator if isinstance(initiator, Iqn) else Iqn.parse(initiator), epoch)


def _place(table: BootTable) -> tuple[object, ...]:
    return (table.interface, table.address, table.ipv6_address, table.http_port, table.is_proxy)
