"""A target on another subnet, far away: a router whose next network takes shorter frames, and a cable of 25 ms.

┌ near ─────┐      ┌ router ─────────────┐      ┌ line ────────┐      ┌ far ──────┐
│ 10.88.1.2 ├──────┤ 10.88.1.1 10.88.2.1 ├──────┤ 25 ms a way  ├──────┤ 10.88.2.2 │
└───────────┘ 1400 └─────────────────────┘ 1500 └──────────────┘ 1500 └───────────┘
"""

import hashlib
import random
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.namespaces import namespace
from support.target_process import TargetProcess

BENCH = Path(__file__).parents[2] / "bench"
CHECKSUMMED = "import sys; sys.path.insert(0, sys.argv[1]); import delay_line; delay_line.checksummed(sys.argv[2])"
OCTETS = 64 << 20
LONG_READ_OCTETS, PIECE_OCTETS = 1_000_000_000 // 512 * 512, 1 << 20


@pytest.fixture
def places():
    with ExitStack() as stack:
        near, router, line, far = (stack.enter_context(namespace(name)) for name in ("near", "router", "line", "far"))
        router.ip(f"link add r0 mtu 1400 type veth peer name n0 netns {near.name}")
        router.ip(f"link add r1 type veth peer name d0 netns {line.name}")
        far.ip(f"link add f0 type veth peer name d1 netns {line.name}")
        ends = ((near, "n0", "10.88.1.2"), (router, "r0", "10.88.1.1"), (router, "r1", "10.88.2.1"))
        for place, interface, address in (*ends, (far, "f0", "10.88.2.2")):
            place.ip(f"address add {address}/24 dev {interface}")
            place.ip(f"link set {interface} up")
        for interface in ("d0", "d1"):
            line.ip(f"link set {interface} up")
        for place, interface in ((router, "r1"), (far, "f0")):
            place.run(sys.executable, "-c", CHECKSUMMED, BENCH, interface)
        near.ip("route add default via 10.88.1.1")
        far.ip("route add default via 10.88.2.1")
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        words = (BENCH / "delay_line.py", "d0", "d1", "--seconds", "0.025")
        assert line.start(sys.executable, *words, stdout=-1).stdout.readline() == b"ready\n"
        yield near, far


def test_cap_205_a_target_may_be_far_away_behind_a_router(places, tmp_path):
    near, far = places
    content = random.Random(205).randbytes(OCTETS)
    (tmp_path / "disk").write_bytes(content)
    prefix = tuple(far.command())
    with TargetProcess(tmp_path, "--lun", f"1={tmp_path / 'disk'}", prefix=prefix, address="10.88.2.2") as target:
        near.run("qemu-img", "convert", "-f", "raw", "-O", "raw", target.url(1), tmp_path / "copy", seconds=120)
        assert (tmp_path / "copy").read_bytes() == content
        assert b"mtu 1400" in far.run("ip", "route", "get", "10.88.1.2").stdout  # the router had to say so


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_cap_205_a_gigabyte_comes_from_far_away_with_the_same_checksum(places, tmp_path):
    near, far = places
    content, written = random.Random(205), hashlib.sha256()
    with (tmp_path / "disk").open("wb") as file:
        for at in range(0, LONG_READ_OCTETS, PIECE_OCTETS):
            piece = content.randbytes(min(PIECE_OCTETS, LONG_READ_OCTETS - at))
            written.update(piece)
            file.write(piece)
    prefix = tuple(far.command())
    with TargetProcess(tmp_path, "--lun", f"1={tmp_path / 'disk'}", prefix=prefix, address="10.88.2.2") as target:
        words = ("qemu-img", "convert", "-f", "raw", "-O", "raw", target.url(1), tmp_path / "copy")
        near.run(*words, seconds=900)
    with (tmp_path / "copy").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == written.hexdigest()
