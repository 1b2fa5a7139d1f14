"""What a machine reports that has booted the inventory: a small Linux that looks at all of it.

    arch=x86_64                          cpu=Intel(R) Xeon(R)         cores=16            memory=68719476736
    manufacturer=Dell Inc.               product=PowerEdge R640       serial=7XK2         uuid=4c4c4544-…
    nic=52:54:00:77:00:01 1 virtio_net   one line each: MAC, whether it has a link, driver
    disk=sda 240057409536 SAMSUNG MZ7L   one line each: name, octets, model

The agent of a running server (``node.agent``) tells the same again and again, and of its system:

    system=Debian GNU/Linux 12           kernel=6.1.0-38-cloud-amd64      failed=nginx.service    one line for each unit

Like what firmware tells (``hardware``) it is said by the machine itself, and none of it proved.
"""

import re
from collections.abc import Mapping

import msgspec

from panloom.decide.hardware import LONGEST_WORD, MOST_NICS, Hardware, uuid_in
from panloom.values import MacAddress, format_size

LONGEST_REPORT = 1 << 16  # octets
MOST_DISKS = 64
MOST_UNITS = 16
_ARCHITECTURES = {"x86_64": "x86-64", "aarch64": "arm64"}
_UNPRINTABLE = re.compile(r"[^ -~]")
_LARGEST = 1 << 62


class System(msgspec.Struct, frozen=True):
    """What a server's own system says of itself, and when: ``at`` is monotonic, under the epoch that it runs in."""

    epoch: int
    at: float
    system: str = ""
    kernel: str = ""
    failed_units: tuple[str, ...] = ()


def system_of_report(report: str, *, epoch: int, at: float) -> System:
    """Return what a report tells of the system that sends it."""
    lines = [_UNPRINTABLE.sub("", line).partition("=") for line in report.splitlines()]
    words = {word: value.strip()[:LONGEST_WORD] for word, _, value in reversed(lines)}
    failed = [value.strip()[:LONGEST_WORD] for word, _, value in lines if word == "failed"]
    return System(epoch, at, words.get("system", ""), words.get("kernel", ""), tuple(failed[:MOST_UNITS]))


def hardware_of_inventory(report: str) -> Hardware:
    """Return what a report tells; a line that makes no sense tells nothing."""
    lines = [_UNPRINTABLE.sub("", line).partition("=") for line in report.splitlines()]
    words: Mapping[str, str] = {word: value.strip()[:LONGEST_WORD] for word, _, value in reversed(lines)}
    nics = [nic for word, _, value in lines if word == "nic" and (nic := _nic(value.split())) is not None]
    disks = [disk for word, _, value in lines if word == "disk" and (disk := _disk(value.split(None, 2)))]
    return Hardware(
        architecture=_ARCHITECTURES.get(words.get("arch", ""), ""),
        uuid=uuid_in(words.get("uuid", "")),
        vendor=words.get("manufacturer", ""),
        product=words.get("product", ""),
        serial=words.get("serial", ""),
        processor=words.get("cpu", ""),
        cores=_number(words.get("cores", "")),
        memory_octets=_number(words.get("memory", "")),
        nics=tuple(mac for mac, _ in nics[:MOST_NICS]),
        links=tuple(mac for mac, has_link in nics[:MOST_NICS] if has_link),
        disks=tuple(disks[:MOST_DISKS]),
    )


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    return number if number < _LARGEST else 0


def _nic(words: list[str]) -> tuple[str, bool] | None:
    try:
        return str(MacAddress.parse(words[0])), words[1] == "1"
    except (ValueError, IndexError):
        return None


def _disk(words: list[str]) -> str:
    octets = _number(words[1]) if len(words) > 1 else 0
    return " ".join((words[0], format_size(octets), *words[2:]))[:LONGEST_WORD].strip() if octets else ""
