"""Virtual MAC addresses: given by a control node, never twice (line 105).

octet    0           1   2        3   4   5
      ┌──────────┬────────────┬───────────────┐
      │   0x02   │   serial   │    counter    │
      └──────────┴────────────┴───────────────┘
locally administered, unicast    of the control node   of its persistent sequence counter, from 1
"""

import msgspec

from panloom.values import MacAddress

LOCAL_UNICAST = 0x02  # IEEE 802-2014 section 8.2: U/L bit set, I/G bit clear
MAX_SERIAL = (1 << 16) - 1
MAX_COUNTER = (1 << 24) - 1


class VirtualMac(msgspec.Struct, frozen=True):
    """The fields of a virtual MAC."""

    serial: int
    counter: int

    def to_mac(self) -> MacAddress:
        """Return the address; ValueError if a field is out of range (the counter: after 16 million addresses)."""
        if not 0 <= self.serial <= MAX_SERIAL:
            raise ValueError(f"a control node's serial is 0 … {MAX_SERIAL}, not {self.serial}")
        if not 0 < self.counter <= MAX_COUNTER:
            raise ValueError(f"the counter of virtual MACs is 1 … {MAX_COUNTER}, not {self.counter}")
        return MacAddress(LOCAL_UNICAST << 40 | self.serial << 24 | self.counter)

    @classmethod
    def of(cls, mac: MacAddress) -> "VirtualMac":
        """Read the fields back; ValueError if the address is not one that a control node gives."""
        if mac.number >> 40 != LOCAL_UNICAST:
            raise ValueError(f"{mac} is no virtual MAC: its first octet is not 02")
        return cls(serial=mac.number >> 24 & MAX_SERIAL, counter=mac.number & MAX_COUNTER)
