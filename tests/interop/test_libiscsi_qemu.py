"""QEMU's tools through libiscsi against our target: patterns, FUA, flush, discard, convert both ways and compare."""

import random
import subprocess

import pytest

from panloom.protocol.chap import Credentials
from support.file_target import TARGET, FileDisk, FileManager, serving

OCTETS = 32 << 20
WEB1 = Credentials("web1", "secret-of-web1")


def run(*command):
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(params=[Credentials(), WEB1], ids=["none", "chap"])
def manager(request, tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", OCTETS // 512)}, wanted=request.param)


@pytest.fixture
def url(manager):
    user = f"{manager.wanted.user}%{manager.wanted.secret}@" if manager.wanted.user else ""
    with serving(manager) as portal:
        yield f"iscsi://{user}{portal}/{TARGET}/0"


def test_patterns(url, manager):
    commands = (
        *("write -P 1 0 64k", "write -P 2 64k 1M", "write -P 3 512 512", "writev -P 4 2M 4k 8k 512"),
        *("write -f -P 5 4M 256k", "write -P 6 5M 5M", "flush", "read -P 1 1k 63k", "read -P 3 512 512"),
        *("read -P 2 64k 1M", "read -P 4 2M 12800", "read -P 5 4M 256k", "read -P 6 5M 5M"),
        *("discard 64k 64k", "read -P 0 64k 64k", "read -P 2 128k 960k", "write -z 5M 1M", "read -P 0 5M 1M"),
        *("write -z -u 7M 1M", "read -P 0 7M 1M", "read -P 6 6M 1M", "read -P 6 8M 2M", "read -P 0 31M 1M"),
    )
    told = run("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), url)
    assert "verification failed" not in told
    disk = manager.disks[0]
    assert disk.content(512, 1024) == b"\3" * 512 + b"\1" * 512
    assert ("flush", 0, 0) in disk.calls
    assert any(call == "unmap" for call, _, _ in disk.calls)


def test_many_writes_at_once(url):
    run("qemu-img", "bench", "-f", "raw", "-w", "-c", "2000", "-d", "32", "-s", "4096", "--flush-interval", "500", url)


def test_convert_both_ways_and_compare(url, tmp_path):
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    pieces = random.Random(1)  # content with holes, the same in every run
    with source.open("wb") as file:
        file.truncate(OCTETS)
        for _ in range(40):
            file.seek(pieces.randrange(OCTETS - 700_000))
            file.write(pieces.randbytes(pieces.randrange(1, 700_000)))
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), url)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), url)
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", url, str(back))
    assert back.read_bytes() == source.read_bytes()
