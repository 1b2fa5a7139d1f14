"""The inventory's files: the same each time, whole, and nothing where a package is missing."""

import gzip

import pytest

from panloom.errors import UnavailableError
from panloom.lab.inventory import make_inventory
from support.command_line import CommandLine
from support.lab import PACKAGES


def test_the_same_packages_give_the_same_octets_and_the_drivers_come_after_what_they_need(tmp_path):
    said = CommandLine(tmp_path, tmp_path / "no.sock")("node", "inventory", "--packages", str(PACKAGES), str(tmp_path))
    assert (said.code, said.data.splitlines()) == (
        0,
        [str(tmp_path / name) for name in ("inventory-x86-64.vmlinuz", "inventory-x86-64.cpio.gz")],
    )
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_inventory(PACKAGES, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    archive = gzip.decompress(before["inventory-x86-64.cpio.gz"])
    assert b"panloom.report" in archive
    assert archive.index(b"-failover.ko\0") < archive.index(b"-net_failover.ko\0") < archive.index(b"-virtio_net.ko\0")
    assert b"iscsi_tcp" not in archive


def test_what_is_missing_is_said_so_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "files").mkdir()
    with pytest.raises(UnavailableError, match="there is no kernel below"):
        make_inventory(tmp_path, tmp_path / "files")
    assert list((tmp_path / "files").iterdir()) == []
    with pytest.raises(UnavailableError, match="cannot be written: No such file"):
        make_inventory(PACKAGES, tmp_path / "nowhere")
