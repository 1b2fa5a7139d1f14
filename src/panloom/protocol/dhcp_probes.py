"""Who else uses an address that is about to be lent: RFC 2131 section 2.2, by ARP probes (RFC 5227 section 2.1).

    begin ──▶ probe, 50 ms, probe, 50 ms ──▶ ended: nobody answered
                │
                └── somebody answered: the server ends it

RFC 5227 has a host ask three times within 7 s, which no machine's boot can wait for; whoever hears us at all answers
within the fraction of a millisecond that its kernel takes.
"""

from collections import deque
from ipaddress import IPv4Address

from panloom.protocol.dhcp_leases import Lease

PROBE_SECONDS = 0.1
_PROBES = 2
_PAUSE_SECONDS = PROBE_SECONDS / _PROBES
_Turn = tuple[float, int, IPv4Address, Lease]  # when, how many have been sent, for what


class Probes:
    """The addresses that are being asked for."""

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque()  # in the order of time, as each pause is as long
        self._to_send: list[IPv4Address] = []

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""
        return self._turns[0][0] if self._turns else None

    def begin(self, address: IPv4Address, lease: Lease, *, now: float) -> None:
        """Ask for an address in favour of a lease."""
        self._send(address, lease, 1, now)

    def handle_timer(self, *, now: float) -> tuple[tuple[IPv4Address, Lease], ...]:
        """Ask again where it is time; return the leases for whose addresses that has ended."""
        ended = []
        while self._turns and self._turns[0][0] <= now:
            _, sent, address, lease = self._turns.popleft()
            if sent < _PROBES:
                self._send(address, lease, sent + 1, now)
            else:
                ended.append((address, lease))
        return tuple(ended)

    def to_send(self) -> tuple[IPv4Address, ...]:
        """Return the addresses to ask for now."""
        to_send, self._to_send = tuple(self._to_send), []
        return to_send

    def _send(self, address: IPv4Address, lease: Lease, sent: int, now: float) -> None:
        self._to_send.append(address)
        self._turns.append((now + _PAUSE_SECONDS, sent, address, lease))
