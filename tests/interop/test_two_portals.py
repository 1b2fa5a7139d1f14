"""Two portals of one target, each at the end of a cable of its own, one of IPv4 and one of IPv6.

control 10.78.0.1 ═══ port-host ═══ eth0 10.78.0.2        host
        2001:db8:78::1 ═ second ═══ eth1 2001:db8:78::2
"""

import asyncio
import random
from contextlib import contextmanager

import pytest

from panloom.initiator import Paths, Session, Timing
from panloom.values import Iqn
from support.command_line import PANLOOM
from support.namespaces import LoopInside, machines
from support.target_process import IQN
from support.waiting import until

OCTETS, PIECE, DEPTH = 4 << 20, 16384, 8
FIRST, SECOND = ("10.78.0.1", 3260), ("2001:db8:78::1", 3260)
HOST = Iqn("iqn.2026-11.dev.panloom:node.host")
IMPATIENT = Timing(login_seconds=5.0, ping_seconds=0.5, answer_seconds=1.0, reconnect_seconds=60.0)


@contextmanager
def two_cables(directory):
    """Yield the chassis, with the target listening at both portals."""
    with (directory / "disk").open("wb") as file:
        file.truncate(OCTETS)
    with machines({"host": "52:54:00:78:00:01"}, address="10.78.0.1/24") as chassis:
        control, host = chassis.control, chassis["host"]
        host.ip("address add 10.78.0.2/24 dev eth0")
        control.ip(f"link add second type veth peer name eth1 netns {host.name}")
        for place, interface, address in ((control, "second", SECOND[0]), (host, "eth1", "2001:db8:78::2")):
            place.ip(f"link set {interface} up")
            place.ip(f"address add {address}/64 dev {interface} nodad")
        portals = ("--portal", f"{FIRST[0]}:{FIRST[1]}", "--portal", f"[{SECOND[0]}]:{SECOND[1]}")
        said = directory / "target.out"
        with said.open("wb") as out:
            control.start(*PANLOOM, "target", *portals, "--lun", f"1={directory}/disk", stdout=out)
        until(lambda: said.read_text().count("listening ") == 2, "the target listens at both portals", seconds=60)
        yield chassis


@pytest.fixture
def chassis(tmp_path):
    with two_cables(tmp_path) as made:
        yield made


def test_cap_078_a_disk_is_reached_through_either_portal(chassis):
    content = random.Random(78).randbytes(PIECE)

    async def there():
        async with await Session.open(FIRST, initiator=HOST, target=Iqn(IQN)) as session:
            await session.write(1, 0, content, fua=True)
        async with await Session.open(SECOND, initiator=HOST, target=Iqn(IQN), connect=Paths(SECOND)) as session:
            assert await session.read(1, 0, PIECE) == content

    with LoopInside(chassis["host"]) as inside:
        inside.call(there(), seconds=60)


@pytest.mark.parametrize("cut", ["IPv4", "IPv6"])
def test_cap_078_when_the_path_in_use_is_cut_io_goes_on_by_the_other(chassis, cut, tmp_path):
    """The cable is pulled under writes, which makes the path silent; all are answered, and all are on the disk."""
    used, other, port = (FIRST, SECOND, "port-host") if cut == "IPv4" else (SECOND, FIRST, "second")
    content = random.Random(cut).randbytes(OCTETS)

    async def there():
        paths = Paths(used, other)
        options = {"timing": IMPATIENT, "connect": paths}
        async with await Session.open(used, initiator=HOST, target=Iqn(IQN), **options) as session:
            assert paths.here == used
            for first in range(0, OCTETS, DEPTH * PIECE):
                offsets = range(first, min(first + DEPTH * PIECE, OCTETS), PIECE)
                writes = [asyncio.create_task(session.write(1, at, content[at : at + PIECE])) for at in offsets]
                if first == OCTETS // 2:
                    await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.to_thread(chassis.control.ip, f"link set {port} down")
                await asyncio.gather(*writes)
            assert paths.here == other
            assert await session.read(1, 0, OCTETS) == content
            await session.flush(1)

    with LoopInside(chassis["host"]) as inside:
        inside.call(there(), seconds=120)
    assert (tmp_path / "disk").read_bytes() == content


def test_discovery_names_both_portals(chassis):
    """RFC 7143 appendix C: an address of IPv6 stands in brackets."""
    found = chassis["host"].run("iscsi-ls", f"iscsi://{FIRST[0]}:{FIRST[1]}").stdout.decode()
    assert "Portal:10.78.0.1:3260,1" in found
    assert "Portal:[2001:db8:78::1]:3260,1" in found
