"""The block path on a system that lacks what only Linux has, and in either build: the same commands, the same disk."""

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from conformance import suite
from conformance.suite import Verdict
from panloom.initiator import Session
from panloom.values import Iqn
from support.builds import BUILDS
from support.target_process import TargetProcess

MIB = 1 << 20
OCTETS = 16 * MIB
USED = 4 * MIB
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")
TESTS = Path(__file__).parents[1]
MASKED = {
    "nothing": (),
    "sendfile": ("sendfile",),
    "all": ("epoll", "RWF_NOWAIT", "sendfile", "fallocate"),
}
FAMILIES = ("Read10", "Write10", "Unmap")
FIRST = """
import errno, os, select, sys
sys.path.insert(0, {tests!r})
def refused(name, code=errno.ENOSYS):
    def call(*arguments):
        print("masked", name, file=sys.stderr, flush=True)
        raise OSError(code, os.strerror(code))
    return call
for name in {masked!r}:
    if name == "epoll":
        del select.epoll
    elif name == "RWF_NOWAIT":
        preadv, refuse = os.preadv, refused(name, errno.EOPNOTSUPP)
        os.preadv = lambda fd, views, at, flags=0: refuse() if flags else preadv(fd, views, at)
    elif hasattr(os, name):
        setattr(os, name, refused(name))
from panloom.system_calls import SystemCalls, instead_of_the_kernel
if "fallocate" in {masked!r}:
    holes, zeros = refused("fallocate", errno.EOPNOTSUPP), refused("fallocate", errno.EOPNOTSUPP)
    masking = instead_of_the_kernel(SystemCalls(punch_hole=holes, zero_blocks=zeros))
    masking.__enter__()
from panloom.storage import iscsi_connection
from support.builds import hot_module
iscsi_connection.HotLoop = hot_module({build!r}).HotLoop
"""


async def stream(portal, target):
    """Write, give back, flush and read at random, some of it large; return what the disk must hold."""
    order, twin = random.Random(212), bytearray(USED)
    async with await Session.open(portal, initiator=N1, target=target) as session:
        await session.capacity(1)
        for number in range(120):
            octets = order.choice((512, 4096, 65536, 262144))
            at = order.randrange((USED - octets) // 512 + 1) * 512
            match number % 5:
                case 0 | 1:
                    twin[at : at + octets] = data = order.randbytes(octets)
                    await session.write(1, at, data, fua=number % 2 == 0)
                case 2:
                    await session.unmap(1, at, octets)
                    twin[at : at + octets] = bytes(octets)
                case _:
                    assert await session.read(1, at, octets) == twin[at : at + octets], (number, at, octets)
        await session.flush(1)
        assert await session.read(1, 0, USED) == twin
    return twin


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("build", BUILDS)
def test_cap_212_the_same_commands_without_what_only_linux_has(tmp_path, build, masked):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(OCTETS)
    first = FIRST.format(tests=str(TESTS), masked=MASKED[masked], build=build)
    with TargetProcess(tmp_path, "--lun", f"1={disk}", first=first) as target:
        twin = asyncio.run(stream(("127.0.0.1", target.ports[0]), Iqn(target.iqn)))
        with disk.open("rb") as file:
            assert hashlib.sha256(file.read(USED)).digest() == hashlib.sha256(twin).digest()
        if masked == "all":
            verdicts = [suite.run(family, [target.url(1)], 60) for family in FAMILIES]
            assert {result.verdict for said in verdicts for result in said.values()} == {Verdict.PASS}
        told = set(target.told.splitlines())
    used = {"all": {"RWF_NOWAIT", "fallocate"}, "sendfile": {"sendfile"}, "nothing": set()}[masked]
    assert told == {f"masked {name}" for name in used}
