"""An optical image over iSCSI: libiscsi sees a disc, QEMU reads it to the octet, and nobody writes to it."""

import random
import subprocess

import pytest

from support.target_process import TargetProcess

OCTETS = 3_000 * 2048


@pytest.fixture
def disc(tmp_path):
    (tmp_path / "disc.iso").write_bytes(random.Random(1).randbytes(OCTETS))
    with TargetProcess(tmp_path, "--lun", f"1={tmp_path / 'disc.iso'}") as target:
        yield target


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_cap_211_libiscsi_sees_a_disc(disc):
    code, told = run("iscsi-inq", disc.url(1))
    assert code == 0, told
    assert "Device Type:DIRECT_ACCESS" not in told.replace(" ", "")
    assert "MMC" in told
    code, told = run("iscsi-ls", "-s", f"iscsi://127.0.0.1:{disc.ports[0]}")
    assert "Lun:1" in told.replace(" ", "")


def test_cap_211_qemu_reads_it_to_the_octet(disc, tmp_path):
    code, told = run("qemu-img", "convert", "-f", "raw", "-O", "raw", disc.url(1), str(tmp_path / "copy"))
    assert code == 0, told
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "disc.iso").read_bytes()


def test_cap_211_nobody_writes_to_it(disc, tmp_path):
    code, told = run("qemu-io", "-f", "raw", "-c", "write 0 2048", disc.url(1))
    assert code != 0 or "rror" in told, told
    assert (tmp_path / "disc.iso").read_bytes() == random.Random(1).randbytes(OCTETS)
