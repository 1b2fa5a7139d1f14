"""What an image may be captured from, as people write it.

shop/web1                                 a volume, or a server's disk, as it is now
shop/web1@before                          a snapshot
iscsi://10.0.0.5:3260/iqn.2001-01.com.example:old/1      a unit of another target; no port is 3260, no unit is 0
"""

import re
from ipaddress import ip_address

import msgspec

from panloom.values import Iqn

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_VOLUME = re.compile(rf"({_LABEL})/({_LABEL})(?:@({_LABEL}))?")
_TARGET = re.compile(r"iscsi://(\[[0-9a-fA-F:]+\]|[0-9.]+)(?::([0-9]{1,5}))?/([^/]+)(?:/([0-9]{1,5}))?")
PATTERN = rf"{_LABEL}/{_LABEL}(?:@{_LABEL})?|iscsi://.+"
ISCSI_PORT = 3260  # RFC 7143 section 13.2


class VolumeDonor(msgspec.Struct, frozen=True):
    """A volume of ours, as the storage process calls it, and the snapshot of it, None for what it holds now."""

    volume: str
    snapshot: str | None


class TargetDonor(msgspec.Struct, frozen=True):
    """A unit of any iSCSI target."""

    portal: tuple[str, int]
    target: Iqn
    lun: int


def parse_donor(text: str) -> VolumeDonor | TargetDonor:
    """Read a donor; ValueError says how to write one."""
    if match := _VOLUME.fullmatch(text):
        volume = f"{match[1]}.{match[2]}"
        return VolumeDonor(volume, f"{volume}@{match[3]}" if match[3] else None)
    if match := _TARGET.fullmatch(text):
        port, lun = int(match[2] or ISCSI_PORT), int(match[4] or 0)
        if 0 < port < 65536 and lun < 16384:
            address = str(ip_address(match[1].strip("[]")))
            return TargetDonor((address, port), Iqn.parse(match[3]), lun)
    raise ValueError(f"{text!r}: write PAN/VOLUME, PAN/VOLUME@SNAPSHOT, or iscsi://ADDRESS:PORT/TARGET/LUN")
