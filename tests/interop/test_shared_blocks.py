"""A store on btrfs and XFS, which share blocks, and on tmpfs, which cannot: the same octets, and less space."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
TESTS = Path(__file__).parents[1]
MAKE = {"btrfs": ("mkfs.btrfs", "-q"), "xfs": ("mkfs.xfs", "-q")}


def measured(tmp_path, kind):
    """Make a file system in a file, mount it in a namespace that ends with the process, and measure in there."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if kind == "tmpfs":
        mount = f"mount -t tmpfs -o size=400M none {mounted}"
    else:
        disk = tmp_path / "disk"
        with disk.open("wb") as file:
            file.truncate(400 * MIB)
        subprocess.run([*MAKE[kind], str(disk)], check=True, capture_output=True)
        mount = f"mount -t {kind} -o loop {disk} {mounted}"
    inside = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    done = subprocess.run(
        [*inside, sys.executable, "-m", "support.shared_blocks", str(mounted)],
        cwd=TESTS, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_images_and_flattened_volumes_share_their_blocks(tmp_path, kind):
    found = measured(tmp_path, kind)
    assert found["equal"]
    assert found["import"] < 2 * MIB
    assert found["flatten"] < 2 * MIB
    assert 7 * MIB < found["write over what was shared"] < 12 * MIB
    assert found["unmap"] < -6 * MIB
    assert found["thick"] > 30 * MIB  # its own, so that writing to it never needs more


def test_where_blocks_cannot_be_shared_they_are_copied(tmp_path):
    found = measured(tmp_path, "tmpfs")
    assert found["equal"]
    assert found["import"] >= 24 * MIB
    assert found["flatten"] >= 24 * MIB
    assert found["unmap"] < -14 * MIB
