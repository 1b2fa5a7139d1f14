"""The persistent sequence counter of virtual MACs (``control.sequence``), one for each serial."""

from panloom.control.sequence import next_of
from panloom.decide.mac_address import VirtualMac
from panloom.state.contract import Store
from panloom.values import MacAddress

PREFIX = "/record/mac-counter/"


class MacCounter:
    """Gives virtual MACs; several control nodes may share one store, or one serial."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def allocate(self, serial: int) -> MacAddress:
        """Return an address that nobody has had; ValueError when the counter of ``serial`` is used up."""
        return await next_of(self._store, f"{PREFIX}{serial}", lambda count: VirtualMac(serial, count).to_mac())
