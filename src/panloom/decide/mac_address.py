"""Virtual MAC addresses: whose they are is written in them, so two control nodes never give the same one.

 octet   0      1      2      3      4      5
       ┌──────┬─────────────┬────────────────────┐
       │  02  │   serial    │      counter       │
       └──────┴─────────────┴────────────────────┘
02       locally administered, individual (IEEE 802-2014 section 8.2)
serial   of the control node that defined the address, 0 … 65535
counter  from that control node's persistent sequence, 0 … 2^24-1; never given twice
"""

from typing import Final, Self

import msgspec

from panloom.values import MacAddress

LAST_SERIAL: Final = (1 << 16) - 1
LAST_COUNTER: Final = (1 << 24) - 1

_LOCAL_INDIVIDUAL: Final = 0x02


class VirtualMac(msgspec.Struct, frozen=True, gc=False):
    """The three fields of a virtual MAC address; the first is always 02."""

    serial: int
    counter: int

    def to_mac(self) -> MacAddress:
        """Return the address; ``ValueError`` if a field is too large, as the counter is at the sequence's end."""
        if not 0 <= self.serial <= LAST_SERIAL:
            raise ValueError(f"the serial of a control node is 0 … {LAST_SERIAL}, not {self.serial}")
        if not 0 <= self.counter <= LAST_COUNTER:
            raise ValueError(f"serial {self.serial} has given all its {LAST_COUNTER} virtual MACs; set a new serial")
        return MacAddress(_LOCAL_INDIVIDUAL << 40 | self.serial << 24 | self.counter)

    @classmethod
    def from_mac(cls, mac: MacAddress) -> Self:
        """Return the fields of an address; ``ValueError`` if no control node can have defined it."""
        if mac.number >> 40 != _LOCAL_INDIVIDUAL:
            raise ValueError(f"{mac} is no virtual MAC; those begin with {_LOCAL_INDIVIDUAL:02x}")
        return cls(mac.number >> 24 & LAST_SERIAL, mac.number & LAST_COUNTER)
