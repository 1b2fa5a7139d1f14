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
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import msgspec

from panloom.wire import dhcp
from panloom.wire.dhcp import Option

BIOS_LOADER = "undionly.kpxe"
EFI_LOADER = "snponly.efi"
ARM64_LOADER = "snponly-arm64.efi"
HTTP_CLIENT = b"HTTPClient"
PXE_CLIENT = b"PXEClient"
_PXE_LOADERS: Mapping[int, str] = MappingProxyType({0: BIOS_LOADER, 7: EFI_LOADER, 9: EFI_LOADER, 11: ARM64_LOADER})
_HTTP_LOADERS: Mapping[int, str] = MappingProxyType({16: EFI_LOADER, 17: EFI_LOADER, 19: ARM64_LOADER})


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
    vendor_class = request.options.get(Option.VENDOR_CLASS, b"")
    if vendor_class.startswith(HTTP_CLIENT):
        return Firmware.HTTP
    return Firmware.PXE if vendor_class.startswith(PXE_CLIENT) else Firmware.NONE


def asking(request: dhcp.Message) -> Asking:
    """Return what asks, and the loader by which it becomes iPXE."""
    firmware = firmware_of(request)
    if firmware is Firmware.IPXE or firmware is Firmware.NONE:
        return Asking(firmware)
    loaders = _PXE_LOADERS if firmware is Firmware.PXE else _HTTP_LOADERS
    octets = request.options.get(Option.CLIENT_ARCHITECTURE, b"\0\0")
    named = [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]
    for architecture in named:
        if architecture in loaders:
            return Asking(firmware, loaders[architecture])
    words = ", ".join(map(str, named[:8]))
    return Asking(firmware, None, f"no loader for {firmware.value} of architecture {words} (option 93)")
