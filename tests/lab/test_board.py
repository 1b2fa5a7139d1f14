"""An emulated machine's hardware in the kernel: its cable, its two identities, and what is left when the power goes."""

import asyncio
import socket
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface

import pytest

from panloom.errors import KernelError
from panloom.fabric.links import Address, Bridge, Links, Make
from panloom.lab.board import Bench
from panloom.values import MacAddress
from support.lab import Sniffer
from support.namespaces import LoopInside, namespace

HARDWARE, VIRTUAL = MacAddress.parse("52:54:00:77:00:01"), MacAddress.parse("02:50:4c:00:00:01")
STORAGE, FRONT = IPv4Interface("10.77.0.11/24"), IPv4Interface("10.1.0.11/24")
PORTAL, VISITOR = "10.77.0.1", "10.1.0.254"


@pytest.fixture
def lab():
    """A loop in a namespace, which is its ``inside``."""
    with namespace("board") as inside, LoopInside(inside) as loop:
        loop.inside = inside
        yield loop


@asynccontextmanager
async def plugged_in():
    """Make a bridge with addresses, and a machine at its port ``n1`` that is on and has both its identities."""
    async with Links() as links:
        addresses = [Address("lab0", IPv4Interface(f"{address}/24")) for address in (PORTAL, VISITOR)]
        await links.apply([Make(Bridge("lab0")), *map(Make, addresses)])
    async with Bench("lab0") as bench:
        board = await bench.plug_in("n1", HARDWARE)
        await bench.settle()
        await switch_on(bench, board)
        yield bench, board


async def switch_on(bench, board):
    await board.forget()
    await bench.open("n1")
    await board.give_storage_address(STORAGE)
    await board.give_os_address(await board.make_os_nic(0, VIRTUAL), FRONT, None)


@asynccontextmanager
async def conversation(board):
    """A connection from the machine's firmware to the control node; yields the machine's end and the other."""
    loop = asyncio.get_running_loop()
    with socket.create_server((PORTAL, 3260)) as listener:
        listener.setblocking(False)
        machine = board.socket(socket.AF_INET, socket.SOCK_STREAM)
        await loop.sock_connect(machine, (PORTAL, 3260))
        control, _ = await loop.sock_accept(listener)
        with machine, control:
            yield machine, control


def neighbours(lab):
    return lab.inside.run("ip", "neighbour", "show", "dev", "lab0").stdout.decode()


def test_it_has_a_hardware_and_a_virtual_identity(lab):
    async def work():
        loop = asyncio.get_running_loop()
        async with plugged_in() as (_, board), conversation(board) as (machine, control):
            assert control.getpeername()[0] == str(STORAGE.ip)
            await loop.sock_sendall(machine, b"hello")
            assert await loop.sock_recv(control, 10) == b"hello"
            with board.socket(socket.AF_INET, socket.SOCK_STREAM, of_os=True) as page:
                page.bind(("0.0.0.0", 80))
                page.listen()
                with socket.socket() as visitor:
                    visitor.setblocking(False)
                    await loop.sock_connect(visitor, (str(FRONT.ip), 80))
            return await asyncio.to_thread(neighbours, lab)

    known = lab.call(work())
    assert f"{STORAGE.ip} lladdr {HARDWARE}" in known
    assert f"{FRONT.ip} lladdr {VIRTUAL}" in known


def test_a_machine_without_power_says_no_farewell_and_begins_with_nothing(lab):
    async def work():
        async with plugged_in() as (bench, board):
            async with conversation(board) as (machine, control):
                await bench.close("n1")
                sniffer = Sniffer(lab.inside, "lab0", lambda frame, _: frame[6:12] == HARDWARE.to_octets())
                machine.close()
                await switch_on(bench, board)
                with pytest.raises(BlockingIOError):
                    control.recv(1)
                assert not [frame for _, frame in sniffer.close() if frame[23] == socket.IPPROTO_TCP]
            await board.forget()
            with board.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody, pytest.raises(OSError, match="unreachable"):
                nobody.sendto(b"", (PORTAL, 9))
            await switch_on(bench, board)
            async with conversation(board):
                pass

    lab.call(work())


def test_a_machine_that_hangs_keeps_its_link_and_passes_nothing(lab):
    async def work():
        loop = asyncio.get_running_loop()
        async with plugged_in() as (bench, board), conversation(board) as (machine, control):
            await bench.close("n1")
            assert "LOWER_UP" in (await asyncio.to_thread(lab.inside.run, "ip", "link", "show", "n1")).stdout.decode()
            await loop.sock_sendall(machine, b"late")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await loop.sock_recv(control, 10)
            await bench.open("n1")
            assert await loop.sock_recv(control, 10) == b"late"

    lab.call(work())


def test_plugging_in_again_takes_the_port_over_and_the_end_of_the_bench_takes_it_away(lab):
    async def work():
        async with plugged_in() as (bench, _):
            board = await bench.plug_in("n1", HARDWARE)
            await bench.settle()
            await switch_on(bench, board)
            async with conversation(board):
                pass
            with pytest.raises(KernelError, match="n2"):
                await bench.close("n2")

    lab.call(work())
    shown = lab.inside.run("ip", "link", "show", "lab0").stdout.decode()
    assert "lab0" in shown
