"""The persistent sequence counter of virtual MACs: raised and durable before the address is used by anybody.

    /record/mac-counter/SERIAL    the last counter given, in decimal

A crash between the two leaves a gap, never a repetition.
"""

from panloom.decide.mac_address import VirtualMac
from panloom.errors import ConflictError
from panloom.state.contract import ABSENT, Store
from panloom.values import MacAddress

PREFIX = "/record/mac-counter/"


class MacCounter:
    """Gives virtual MACs; several control nodes may share one store, or one serial."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def allocate(self, serial: int) -> MacAddress:
        """Return an address that nobody has had; ValueError when the counter of ``serial`` is used up."""
        key = f"{PREFIX}{serial}"
        while True:
            entry = await self._store.get(key)
            mac = VirtualMac(serial, (int(entry.value) if entry else 0) + 1)
            address = mac.to_mac()
            try:
                await self._store.commit(
                    expect={key: entry.revision if entry else ABSENT}, put={key: str(mac.counter).encode()}
                )
            except ConflictError:
                continue
            return address
