"""What a machine says of its hardware before anybody knows it, in its DHCP requests and in a report of its firmware.

    DHCP    options 93 and 97, RFC 4578 sections 2.1 and 2.3      architecture, UUID
    report  GET /boot/TOKEN/hardware?manufacturer=…&product=…     what iPXE reads in SMBIOS 3.6 tables, and its NIC

    query        iPXE setting                     SMBIOS structure
    cpu          smbios/4.16.0                    Processor Information, section 7.5: version of the first socket
    cores0 …     smbios/0.4.35.1 …                the same: core count, a socket each
    memory0 …    smbios/0.19.4.8 …                Memory Array Mapped Address, section 7.20: first and last KiB

All of it is said by the machine itself, and none of it proved: it serves to choose, and never to admit.
"""

import re
import uuid
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from panloom.values import Iqn, MacAddress
from panloom.wire import dhcp
from panloom.wire.dhcp import Option

ARCHITECTURES = ("x86-64", "arm64")
LONGEST_WORD = 64
SOCKETS = 4
MEMORY_RANGES = 4
MOST_NICS = 8
_PXE_ARCHITECTURES = {0: "x86-64", 6: "x86", 7: "x86-64", 9: "x86-64", 11: "arm64", 16: "x86-64", 19: "arm64"}  # IANA
_EFI_ARCHITECTURES = (6, 7, 9, 11, 16, 19)
_BUILDS = {"x86_64": "x86-64", "i386": "x86-64", "arm64": "arm64"}  # iPXE for a BIOS is 32-bit code on any PC
_UNPRINTABLE = re.compile(r"[^ -~]")
_MAC_OCTETS = 6
_NOWHERE = 0xFFFFFFFF  # SMBIOS 3.6 section 7.20: see the extended fields


class Hardware(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine says of itself; empty and 0 where it says nothing."""

    architecture: str = ""
    firmware: str = ""  # bios or efi
    uuid: str = ""
    vendor: str = ""
    product: str = ""
    serial: str = ""
    processor: str = ""
    cores: int = 0
    memory_octets: int = 0
    nic: str = ""
    nics: tuple[str, ...] = ()  # their MACs, as far as its firmware, or the inventory's kernel, knows them
    links: tuple[str, ...] = ()  # of these, those with a link, as the inventory saw them
    disks: tuple[str, ...] = ()  # name, size, model; of the inventory too
    initiator: str = ""  # the name its own initiator was set to, if it was

    def over(self, earlier: "Hardware") -> "Hardware":
        """Return this, and what only ``earlier`` tells."""
        names = self.__struct_fields__
        return Hardware(**{name: getattr(self, name) or getattr(earlier, name) for name in names})


def hardware_of_request(request: dhcp.Message) -> Hardware:
    """Return what a DHCP request tells."""
    options = request.options
    kind = int.from_bytes(options[Option.CLIENT_ARCHITECTURE][:2]) if Option.CLIENT_ARCHITECTURE in options else None
    machine = options.get(Option.CLIENT_MACHINE, b"")
    return hardware_of(kind, machine[1:] if not machine[:1].strip(b"\0") else b"")


def hardware_of(architecture: int | None, machine: bytes = b"") -> Hardware:
    """Return what the number of an architecture, IANA's, and a UUID as octets tell; empty for none."""
    return Hardware(
        architecture=_PXE_ARCHITECTURES.get(architecture, "") if architecture is not None else "",
        firmware="" if architecture is None else "efi" if architecture in _EFI_ARCHITECTURES else "bios",
        uuid=str(uuid.UUID(bytes=machine)) if len(machine) == 16 and any(machine) else "",
    )


_SETTINGS = {
    "manufacturer": "manufacturer:uristring",
    "product": "product:uristring",
    "serial": "serial:uristring",
    "uuid": "uuid",  # as octets, which a URI's string would be made of, it may hold a NUL and end the address
    "arch": "buildarch:uristring",
    "platform": "platform:uristring",
    "nic": "netX/chip:uristring",
    "cpu": "smbios/4.16.0:uristring",
    "initiator": "initiator-iqn:uristring",
    **{f"nic{number}": f"net{number}/mac:hexraw" for number in range(MOST_NICS)},
    **{f"cores{number}": f"smbios/{number}.4.35.1:hexraw" for number in range(SOCKETS)},
    **{f"memory{number}": f"smbios/{number}.19.4.8:hexraw" for number in range(MEMORY_RANGES)},
}
"""Word of the report → iPXE's setting."""


def report_address(url: str) -> str:
    """Return the address, in a script of iPXE's, from which a machine fetches when it reports to ``url``."""
    return f"{url}?" + "&".join(f"{word}=${{{setting}}}" for word, setting in _SETTINGS.items())


def words_of(query: str) -> Mapping[str, str]:
    """Return the words of a report's query, in which iPXE leaves a + as it is."""
    pairs = (part.partition("=") for part in query.split("&"))
    return {word: unquote(value, errors="replace") for word, _, value in pairs}


def hardware_of_report(words: Mapping[str, str]) -> Hardware:
    """Return what a report tells; a word that is none, or too long, tells nothing."""

    def text(word: str) -> str:
        return _UNPRINTABLE.sub("", words.get(word, "")).strip()[:LONGEST_WORD]

    return Hardware(
        architecture=_BUILDS.get(text("arch"), ""),
        firmware={"pcbios": "bios", "efi": "efi"}.get(text("platform"), ""),
        uuid=uuid_in(text("uuid")),
        vendor=text("manufacturer"),
        product=text("product"),
        serial=text("serial"),
        processor=text("cpu"),
        cores=sum(int.from_bytes(_octets(text(f"cores{number}"))[:1]) for number in range(SOCKETS)),
        memory_octets=sum(_mapped(_octets(text(f"memory{number}"))) for number in range(MEMORY_RANGES)),
        nic=text("nic"),
        nics=tuple(filter(None, (_mac(text(f"nic{number}")) for number in range(MOST_NICS)))),
        initiator=_iqn(text("initiator")),
    )


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _mapped(octets: bytes) -> int:
    """Return how much memory a mapped range holds."""
    if len(octets) != 8:
        return 0
    first, last = (int.from_bytes(octets[start : start + 4], "little") for start in (0, 4))
    return (last + 1 - first) << 10 if first <= last < _NOWHERE else 0


def _mac(text: str) -> str:
    octets = _octets(text)
    return str(MacAddress.from_octets(octets)) if len(octets) == _MAC_OCTETS and any(octets) else ""


def uuid_in(text: str) -> str:
    """Return a UUID as it is written, nothing where that is none, or all zero."""
    try:
        found = uuid.UUID(text)
    except ValueError:
        return ""
    return str(found) if found.int else ""


def _iqn(text: str) -> str:
    try:
        return str(Iqn.parse(text))
    except ValueError:
        return ""
