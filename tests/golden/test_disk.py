"""A tree becomes a disk: what is in it is found by other programs, in the places where firmware looks."""

import hashlib
import os
import struct
import subprocess
from uuid import UUID

import pytest

from panloom.errors import UnavailableError
from panloom.golden.debian import Built, grub_configuration
from panloom.golden.disk import boot_record, located_core, write_disk

MIB = 1 << 20
ROOT = UUID("6b9f2c1e-3a44-4a0e-9d55-0a1b2c3d4e5f")


@pytest.fixture
def built(tmp_path):
    root, efi = tmp_path / "root", tmp_path / "efi"
    for directory in (root / "boot/grub", root / "usr/lib/grub/i386-pc", root / "etc", efi / "EFI/BOOT"):
        directory.mkdir(parents=True)
    (root / "boot/grub/core.img").write_bytes(b"core".ljust(3000, b"\x01"))
    (root / "boot/grub/grub.cfg").write_text(grub_configuration(ROOT))
    (root / "usr/lib/grub/i386-pc/boot.img").write_bytes(b"\xeb".ljust(512, b"\x02"))
    (root / "etc/secret").write_text("of root's")
    (root / "etc/secret").chmod(0o600)
    (root / "vmlinuz").symlink_to("boot/vmlinuz-6")
    (efi / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"MZ")
    return Built(root, efi, "http://deb.example/debian", 1, "00")


def test_other_programs_find_all_that_is_in_the_tree(built, tmp_path):
    disk = tmp_path / "disk.img"
    digest = write_disk(built, disk, octets=256 * MIB, root_uuid=ROOT)
    assert digest == hashlib.sha256(disk.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.img", "efi", "root"]
    part = tmp_path / "part"
    with disk.open("rb") as file:
        file.seek(66 * MIB)
        part.write_bytes(file.read(188 * MIB))
    assert run("e2fsck", "-fn", part).returncode == 0
    assert b"of root's" in run("debugfs", "-R", "cat /etc/secret", part).stdout
    assert b"Mode:  0600" in run("debugfs", "-R", "stat /etc/secret", part).stdout
    assert run("mtype", "-i", f"{disk}@@2M", "::EFI/BOOT/BOOTX64.EFI").stdout == b"MZ"


def test_bios_is_led_from_the_first_sector_to_the_whole_of_grub(built, tmp_path):
    disk = tmp_path / "disk.img"
    write_disk(built, disk, octets=256 * MIB, root_uuid=ROOT)
    octets = disk.read_bytes()[: 3 * MIB]
    (core_at,) = struct.unpack_from("<Q", octets, 0x5C)
    first = octets[core_at * 512 :]
    rest_at, rest, segment = struct.unpack_from("<QHH", first, 0x1F4)
    assert (core_at, rest_at, rest, segment) == (2048, 2049, 5, 0x820)  # 3000 octets are 6 sectors
    assert first[:4] == b"core"
    assert octets[0x66:0x68] == b"\x90\x90"


def test_what_is_too_large_is_refused_and_leaves_no_disk(built, tmp_path):
    (built.root / "large").write_bytes(b"\x01" * 200 * MIB)
    with pytest.raises(UnavailableError, match="mke2fs"):
        write_disk(built, tmp_path / "disk.img", octets=256 * MIB, root_uuid=ROOT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["efi", "root"]
    with pytest.raises(UnavailableError, match=r"core\.img"):
        located_core(bytes(2 * MIB), 2048, 2048)
    assert len(boot_record(bytes(512), 2048)) == 440


def run(*command):
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK": "1"}
    return subprocess.run(command, capture_output=True, env=environment, check=False)
