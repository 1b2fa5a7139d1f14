"""Firmware and boot loaders as Debian packages them: where they were unpacked, else where Debian installs them."""

import os
from pathlib import Path

from panloom.errors import UnavailableError

LOADER = "snponly.efi"
INSTALLED = Path("/")


def ovmf() -> Path:
    """Return UEFI firmware for QEMU's ``-bios``."""
    return _find("usr/share/ovmf/OVMF.fd", "ovmf")


def loader() -> Path:
    """Return the iPXE that UEFI firmware fetches by its own PXE."""
    return _find(f"usr/lib/ipxe/{LOADER}", "ipxe")


def _find(path: str, package: str) -> Path:
    unpacked = Path(os.environ.get("PANLOOM_PACKAGES", ".cache/debian")).absolute()
    for found in (unpacked / path, INSTALLED / path):
        if found.exists():
            return found
    raise UnavailableError(f"{unpacked / path} is missing; run: scripts/setup test, or: apt install {package}")
