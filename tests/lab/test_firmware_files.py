"""Firmware is found where packages were unpacked, and named where it is not."""

import pytest

from panloom.errors import UnavailableError
from panloom.lab.firmware_files import loader, ovmf


def test_unpacked_packages_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("PANLOOM_PACKAGES", str(tmp_path))
    for name in ("usr/share/ovmf/OVMF.fd", "usr/lib/ipxe/snponly.efi"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert (ovmf(), loader()) == (tmp_path / "usr/share/ovmf/OVMF.fd", tmp_path / "usr/lib/ipxe/snponly.efi")


@pytest.mark.parametrize(("find", "package"), [(ovmf, "ovmf"), (loader, "ipxe")])
def test_what_is_nowhere_is_named_with_what_brings_it(tmp_path, monkeypatch, find, package):
    monkeypatch.setenv("PANLOOM_PACKAGES", str(tmp_path))
    monkeypatch.setattr("panloom.lab.firmware_files.INSTALLED", tmp_path / "nowhere")
    with pytest.raises(UnavailableError, match=f"run: scripts/setup test, or: apt install {package}"):
        find()
