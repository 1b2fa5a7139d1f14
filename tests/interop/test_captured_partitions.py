"""A donor with partitions and file systems that runs and writes while its disk is captured, and what boots from that.

The donor writes into the blocks of a file, as a program on it would, one write after the other; sfdisk, e2fsck and
debugfs look at what was captured.
"""

import json
import re
import subprocess
from uuid import UUID

import pytest

from panloom.golden.debian import Built, grub_configuration
from panloom.golden.disk import write_disk
from support.control_node import control_node, pan, run_panloom
from support.played_machine import TAG_BLOCKS
from support.volume_reader import read_volume
from support.waiting import until

MIB, SECTOR, BLOCK = 1 << 20, 512, 4096
ROOT = UUID("6b9f2c1e-3a44-4a0e-9d55-0a1b2c3d4e5f")
MARKER = "what the donor said of itself"
WITHOUT_SIZE = ("    disk: {size: 1MiB}\n", "")
pytestmark = pytest.mark.timeout(180)


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


def make_disk(directory):
    """Make a disk of three partitions whose root holds a marker and a file to write into; return it."""
    root, efi = directory / "root", directory / "efi"
    for folder in (root / "boot/grub", root / "usr/lib/grub/i386-pc", root / "srv", efi / "EFI/BOOT"):
        folder.mkdir(parents=True)
    (root / "boot/grub/core.img").write_bytes(b"core".ljust(3000, b"\x01"))
    (root / "boot/grub/grub.cfg").write_text(grub_configuration(ROOT))
    (root / "usr/lib/grub/i386-pc/boot.img").write_bytes(b"\xeb".ljust(512, b"\x02"))
    (root / "srv/marker").write_text(MARKER)
    (root / "srv/written").write_bytes(b"." * TAG_BLOCKS * SECTOR)
    (efi / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"MZ")
    disk = directory / "donor.img"
    write_disk(Built(root, efi, "http://deb.example/debian", 1, "00"), disk, octets=96 * MIB, root_uuid=ROOT)
    return disk


def partitions(disk):
    """Return the partitions of a disk, as sfdisk finds them: name → first sector and number of sectors."""
    found = json.loads(run("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    return {one["name"]: (one["start"], one["size"]) for one in found}


def cut_out(disk, name, path):
    """Write one partition of a disk to a file of its own, and return that."""
    start, size = partitions(disk)[name]
    with disk.open("rb") as file:
        file.seek(start * SECTOR)
        path.write_bytes(file.read(size * SECTOR))
    return path


def sector_of(disk, file, directory):
    """Return the sector of the disk where a file of its root begins; it lies there in one piece."""
    blocks = run("debugfs", "-R", f"blocks {file}", cut_out(disk, "root", directory / "part")).split()
    numbers = [int(block) for block in blocks]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return partitions(disk)["root"][0] + numbers[0] * BLOCK // SECTOR


def assert_of_one_moment(octets, tagged):
    """The file holds, of all that was written one after the other, everything up to one write, and nothing after it."""
    found = {}
    for place in range(TAG_BLOCKS):
        match = re.match(rb"shop/web1:1:([0-9]+)\0", octets[place * SECTOR : (place + 1) * SECTOR])
        found[place] = int(match[1]) if match else None
    newest = max(counter for counter in found.values() if counter is not None)
    expected = dict.fromkeys(range(TAG_BLOCKS))
    expected.update({counter % TAG_BLOCKS: counter for counter in tagged if counter <= newest})
    assert found == expected


def test_cap_063_068_a_running_machines_disk_is_captured_as_of_one_moment_partition_by_partition(tmp_path):
    disk = make_disk(tmp_path)
    with control_node(tmp_path, nodes=2) as control:
        control.start()
        assert run_panloom(control, "image", "import", str(disk), "donor")[0] == 0
        control.apply(pan("shop", "web1").replace("image: web", "image: donor").replace(*WITHOUT_SIZE))
        machine = control[control.until_up("shop/web1")["node"]]
        machine.tag_lba = sector_of(disk, "/srv/written", tmp_path)
        machine.beacons = machine.writes = True
        until(lambda: len(machine.tagged) > 3 * TAG_BLOCKS, "the donor has written its file several times over")
        before = len(machine.tagged)
        assert run_panloom(control, "image", "capture", "shop/web1", "golden")[0] == 0
        until(lambda: len(machine.tagged) > before + TAG_BLOCKS, "the donor writes on")
        assert machine.runs("shop/web1", 1)
        (captured,) = (control.directory / "store" / "images").glob("golden@1.*")
        assert partitions(captured) == partitions(disk)
        for name in ("bios", "esp"):
            there, here = cut_out(disk, name, tmp_path / "there"), cut_out(captured, name, tmp_path / "here")
            assert there.read_bytes() == here.read_bytes()
        part = cut_out(captured, "root", tmp_path / "captured")
        run("e2fsck", "-fn", part)
        assert run("debugfs", "-R", "cat /srv/marker", part).decode() == MARKER
        assert_of_one_moment(run("debugfs", "-R", "cat /srv/written", part), list(machine.tagged))
        # a machine that boots from it has the donor's files
        control.apply(pan("copy", "web2").replace("image: web", "image: golden").replace(*WITHOUT_SIZE), "copy.yaml")
        assert control[control.until_up("copy/web2")["node"]].runs("copy/web2")
        booted = tmp_path / "booted.img"
        booted.write_bytes(read_volume(control.directory / "store", "copy.web2"))
        part = cut_out(booted, "root", tmp_path / "booted")
        assert run("debugfs", "-R", "cat /srv/marker", part).decode() == MARKER
