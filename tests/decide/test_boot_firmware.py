"""Each architecture of IANA's registry is told its loader, or that there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.decide.boot_firmware import (
    ARM64_LOADER,
    BIOS_LOADER,
    EFI_LOADER,
    Asking,
    Firmware,
    asking,
    file_of,
    firmware_of,
)
from panloom.wire.dhcp import MessageType, Option
from support.boot_chassis import MACS
from support.dhcp_client import DhcpClient

PXE, HTTP = b"PXEClient:Arch:00007:UNDI:003016", b"HTTPClient:Arch:00016:UNDI:003001"


def request(**options):
    """Return a DISCOVER with these options."""
    given_options = {getattr(Option, name.upper()): value for name, value in options.items()}
    return DhcpClient(MACS["n1"], given_options).message(MessageType.DISCOVER)


def test_both_ways_in_which_ipxe_names_itself_are_read():
    assert firmware_of(request(ipxe=b"\xb0\1\1", vendor_class=PXE)) is Firmware.IPXE
    assert firmware_of(request(user_class=b"\4iPXE", vendor_class=HTTP)) is Firmware.IPXE
    assert firmware_of(request(user_class=b"iPXE")) is Firmware.IPXE
    assert firmware_of(request(vendor_class=PXE)) is Firmware.PXE
    assert firmware_of(request(vendor_class=HTTP)) is Firmware.HTTP
    assert firmware_of(request(vendor_class=b"udhcp 1.35")) is Firmware.NONE
    assert firmware_of(request()) is Firmware.NONE


@pytest.mark.parametrize(
    ("vendor_class", "architectures", "loader"),
    [
        (PXE, (0,), "undionly.kpxe"),
        (PXE, (7,), "snponly.efi"),
        (PXE, (9,), "snponly.efi"),
        (PXE, (11,), "snponly-arm64.efi"),
        (HTTP, (16,), "snponly.efi"),
        (HTTP, (17,), "snponly.efi"),
        (HTTP, (19,), "snponly-arm64.efi"),
        (PXE, (6, 7), "snponly.efi"),  # 32 bits, or 64: the first that we have
        (PXE, (16,), None),  # says PXE, and what only HTTP boot says
        (HTTP, (7,), None),
        (PXE, (6,), None),
        (PXE, (10,), None),
        (PXE, (27,), None),  # RISC-V of 64 bits
    ],
)
def test_the_loader_is_that_of_the_architecture(vendor_class, architectures, loader):
    octets = b"".join(number.to_bytes(2, "big") for number in architectures)
    found = asking(request(vendor_class=vendor_class, client_architecture=octets))
    assert found.loader == loader
    assert (loader is None) == ("no loader for" in found.why_no_loader)


def test_a_shim_is_given_where_it_and_what_it_starts_are_there():
    assert file_of(EFI_LOADER, {EFI_LOADER, "shimx64.efi", "grubx64.efi"}) == "shimx64.efi"
    assert file_of(EFI_LOADER, {"shimx64.efi", "grubx64.efi"}) == "shimx64.efi"
    assert file_of(ARM64_LOADER, {ARM64_LOADER, "shimaa64.efi", "grubaa64.efi"}) == "shimaa64.efi"


@pytest.mark.parametrize("files", [{"shimx64.efi"}, {"grubx64.efi"}, {"shimaa64.efi", "grubaa64.efi"}, set()])
def test_half_a_shim_or_one_of_another_architecture_is_not_given(files):
    assert file_of(EFI_LOADER, {EFI_LOADER, *files}) == EFI_LOADER


def test_bios_is_given_no_shim():
    assert file_of(BIOS_LOADER, {"shimx64.efi", "grubx64.efi"}) == BIOS_LOADER


def test_a_bios_of_before_rfc_4578_says_no_architecture():
    assert asking(request(vendor_class=b"PXEClient")).loader == "undionly.kpxe"


@given(
    st.binary(max_size=32),
    st.binary(max_size=32),
    st.integers(0, 100).flatmap(lambda n: st.binary(min_size=2 * n, max_size=2 * n)),
)
def test_any_firmware_is_told_something(vendor_class, user_class, architectures):
    options = {"vendor_class": vendor_class, "user_class": user_class, "client_architecture": architectures}
    assert isinstance(asking(request(**options)), Asking)
