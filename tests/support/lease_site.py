"""What surrounds a plain DHCP server of either kind: its durable leases, a clock, and what it sends and tells."""

from collections.abc import Callable
from typing import Any

from panloom.protocol.dhcp_leases import Holder


class LeaseSite:
    """A server that ``make`` makes, anew at each restart; ``decode`` reads what it sends."""

    def __init__(self, make: Callable[[], Any], decode: Callable[[bytes], Any]) -> None:
        self._make = make
        self._decode = decode
        self.server = make()
        self.durable: dict[Any, Holder] = {}
        self.now = 100.0
        self.sent: list = []  # datagrams
        self.events: list = []

    def store(self) -> list:
        """Make all leases durable that wait for it, and return the replies."""
        for write in self.server.leases_to_store():
            if write.mac is None:
                self.durable.pop(write.address, None)
            else:
                self.durable[write.address] = Holder(write.mac, write.client)
                self.server.stored(write, now=self.now)
        return self.collect()

    def collect(self) -> list:
        """Return the replies that the server has sent since."""
        self.events += self.server.events()
        datagrams = self.server.packets_to_send()
        self.sent += datagrams
        return [self._decode(datagram.octets) for datagram in datagrams]

    def restart(self) -> None:
        self.server = self._make()
        self.server.found(self.durable.items(), now=self.now)

    @property
    def last(self):
        return self.events[-1]
