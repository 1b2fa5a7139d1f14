"""What becomes of the fragments of a datagram, of which only the first tells the ports: RFC 791 section 3.2.

    first ──▶ its fate is decided, and is that of all that follow, and of those that came before it
    later ──▶ the first has been seen: its fate          not yet: held until it comes

Nobody waits for longer than a reassembly would, and what is held is bounded.
"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar

from panloom.wire.ethernet import Packet

PATIENCE_SECONDS: Final = 30.0
MOST_DATAGRAMS: Final = 64
MOST_HELD: Final = 48  # fragments of one datagram: 64 KiB at 1500 octets, and some

Fate = TypeVar("Fate")
_Key = tuple[bytes, bytes, int, int | None]


class _Datagram(Generic[Fate]):
    def __init__(self, since: float) -> None:
        self.since = since
        self.fate: Fate | None = None
        self.held: list[bytes] = []


class Fragments(Generic[Fate]):
    """The datagrams of which fragments are under way; ``lost`` counts frames that nobody's first came for."""

    def __init__(self) -> None:
        self.lost = 0
        self._datagrams: OrderedDict[_Key, _Datagram[Fate]] = OrderedDict()  # the oldest first

    @property
    def deadline(self) -> float | None:
        """When ``handle_timer`` is wanted next."""
        oldest = next(iter(self._datagrams.values()), None)
        return None if oldest is None else oldest.since + PATIENCE_SECONDS

    def decide(self, packet: Packet, fate: Fate, *, now: float) -> tuple[bytes, ...]:
        """Note the fate of a first fragment's datagram; return the frames that waited for it."""
        held = self._datagrams.pop(_key(packet), None)
        made = self._begin(packet, now)
        made.fate = fate
        return tuple(held.held) if held is not None else ()

    def fate_of(self, packet: Packet, frame: bytes, *, now: float) -> Fate | None:
        """Return the fate of a later fragment; None: its first has not come, and the frame is held."""
        known = self._datagrams.get(_key(packet)) or self._begin(packet, now)
        if known.fate is None:
            if len(known.held) < MOST_HELD:
                known.held.append(frame)
            else:
                self.lost += 1
        return known.fate

    def handle_timer(self, *, now: float) -> None:
        """Give up what has waited too long."""
        while (deadline := self.deadline) is not None and deadline <= now:
            self._forget_oldest()

    def _begin(self, packet: Packet, now: float) -> _Datagram[Fate]:
        while len(self._datagrams) >= MOST_DATAGRAMS:
            self._forget_oldest()
        made = self._datagrams[_key(packet)] = _Datagram[Fate](now)
        return made

    def _forget_oldest(self) -> None:
        _, oldest = self._datagrams.popitem(last=False)
        self.lost += len(oldest.held)


def _key(packet: Packet) -> _Key:
    return packet.source, packet.destination, packet.protocol, packet.datagram
