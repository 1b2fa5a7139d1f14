"""What runs on a machine that asks for an address, and which file lets it go on: RFC 4578, UEFI 2.10 section 24.7.

    option 60 begins with   option 93                     what it is given
    (options 77, 175: iPXE)                               a script or a root path, ``decide.boot_answer``
    PXEClient               0, or none                    undionly.kpxe, by TFTP
    PXEClient               7, 9 (EFI BC)                 snponly.efi, by TFTP
    PXEClient               11                            snponly-arm64.efi, by TFTP
    HTTPClient              16, 17 (EFI BC)               snponly.efi, as an address of HTTP; option 60 says HTTPClient
    HTTPClient              19                            snponly-arm64.efi, likewise

The numbers are those of IANA's registry "Processor Architecture Types", 7 as firmware means it since RFC 4578's errata.
Firmware that names several architectures can start files of each: the first that has a loader counts.

Where a shim and what it starts lie among the boot files, UEFI is given the shim, for Secure Boot (docs/secure-boot.md).
It then asks by itself, in the place that it came from, for its second stage: an iPXE that the site has signed.

    snponly.efi             shimx64.efi ▶ grubx64.efi
    snponly-arm64.efi       shimaa64.efi ▶ grubaa64.efi

DHCPv6 has the same in options 16, 61 (RFC 5970 section 3.3) and 15.  OVMF and iPXE send no option 61, but name their
architecture in the text of option 16: ``PXEClient:Arch:00007:UNDI:003000``.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

import msgspec

from panloom.wire import dhcp, dhcpv6
from panloom.wire.dhcp import Option

BIOS_LOADER = "undionly.kpxe"
EFI_LOADER = "snponly.efi"
ARM64_LOADER = "snponly-arm64.efi"
SHIMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {EFI_LOADER: ("shimx64.efi", "grubx64.efi"), ARM64_LOADER: ("shimaa64.efi", "grubaa64.efi")}
)
"""Of a loader: the shim in its place, and the name by which that asks for its second stage."""
HTTP_CLIENT = b"HTTPClient"
PXE_CLIENT = b"PXEClient"
_PXE_LOADERS: Mapping[int, str] = MappingProxyType({0: BIOS_LOADER, 7: EFI_LOADER, 9: EFI_LOADER, 11: ARM64_LOADER})
_HTTP_LOADERS: Mapping[int, str] = MappingProxyType({16: EFI_LOADER, 17: EFI_LOADER, 19: ARM64_LOADER})
_ARCHITECTURE = re.compile(rb"Client:Arch:([0-9]{1,5})")


class Firmware(Enum):
    """What runs on the machine that asks."""

    IPXE = "iPXE"
    PXE = "PXE"
    HTTP = "HTTP boot"
    NONE = "no boot firmware"


class Asking(msgspec.Struct, frozen=True):
    """The firmware that asks; ``loader`` None if nothing is known that it can start."""

    firmware: Firmware
    loader: str | None = None
    why_no_loader: str = ""


def firmware_of(request: dhcp.Message) -> Firmware:
    """Tell iPXE from firmware of the machine's own; iPXE says so in option 77 or 175."""
    if Option.IPXE in request.options or b"iPXE" in request.options.get(Option.USER_CLASS, b""):
        return Firmware.IPXE
    return _firmware([request.options.get(Option.VENDOR_CLASS, b"")])


def ipv6_firmware_of(request: dhcpv6.Message) -> Firmware:
    """Tell iPXE from firmware of the machine's own; iPXE says so in option 15."""
    if b"iPXE" in dhcpv6.user_classes(request):
        return Firmware.IPXE
    return _firmware(dhcpv6.vendor_classes(request))


def asking(request: dhcp.Message) -> Asking:
    """Return what asks, and the loader by which it becomes iPXE."""
    return _asking(firmware_of(request), _numbers(request.options.get(Option.CLIENT_ARCHITECTURE, b"\0\0")))


def ipv6_asking(request: dhcpv6.Message) -> Asking:
    """Return what asks by DHCPv6, and the loader by which it becomes iPXE."""
    return _asking(ipv6_firmware_of(request), ipv6_architectures(request))


def ipv6_architectures(request: dhcpv6.Message) -> Sequence[int]:
    """Return the architectures that the sender names, in option 61 or in the text of option 16."""
    octets = request.option(dhcpv6.Option.CLIENT_ARCHITECTURE)
    if octets is not None:
        return _numbers(octets)
    return [int(found[1]) for text in dhcpv6.vendor_classes(request) if (found := _ARCHITECTURE.search(text))]


def file_of(loader: str, files: Container[str]) -> str:
    """Return the file that firmware is given for a loader: a shim, if that and its second stage are among ``files``."""
    shim = SHIMS.get(loader)
    return shim[0] if shim is not None and all(name in files for name in shim) else loader


def _firmware(vendor_classes: Iterable[bytes]) -> Firmware:
    for text in vendor_classes:
        if text.startswith(HTTP_CLIENT):
            return Firmware.HTTP
        if text.startswith(PXE_CLIENT):
            return Firmware.PXE
    return Firmware.NONE


def _asking(firmware: Firmware, named: Sequence[int]) -> Asking:
    if firmware is Firmware.IPXE or firmware is Firmware.NONE:
        return Asking(firmware)
    loaders = _PXE_LOADERS if firmware is Firmware.PXE else _HTTP_LOADERS
    for architecture in named:
        if architecture in loaders:
            return Asking(firmware, loaders[architecture])
    words = ", ".join(map(str, named[:8])) or "unknown"
    return Asking(firmware, None, f"no loader for {firmware.value} of architecture {words} (option 93)")


def _numbers(octets: bytes) -> Sequence[int]:
    return [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]
