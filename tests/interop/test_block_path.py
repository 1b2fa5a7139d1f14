"""The block path as a whole: processes, devices, kernel and file systems of others at both of its ends."""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

import panloom
from panloom.initiator import discover
from panloom.protocol.iscsi_initiator_keys import Wishes
from panloom.protocol.iscsi_initiator_login import LoginRefusedError
from panloom.protocol.iscsi_keys import RECEIVE_OCTETS
from panloom.protocol.scsi_pages import REVISION
from panloom.storage.exports import Access, ExportedLun
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.iscsi import FINAL
from support.checked_use import MIB, N1, checked, made, node, opened
from support.initiator import LINUX_KEYS, Initiator, connect
from support.standing import memory, standing
from support.storage_process import StorageProcess, free_port
from support.target_process import TargetProcess
from support.tgtd import TARGET as TGTD_TARGET
from support.tgtd import Tgtd
from support.traced import Traced
from support.waiting_async import eventually

SHOP = "iqn.2026-11.dev.panloom:shop.web1"
READS = {"pread64", "preadv", "preadv2"}
WRITES = {"pwrite64", "pwritev", "pwritev2"}
RECEIVES = {"recvfrom", "recvmsg"}
SENDS = {"sendto", "sendmsg"}
NEVER_SLOW = "from panloom.storage import sending as here; here.SLOW_NANOSECONDS = 1 << 62"  # though traced
RUNTIME = {"futex", "epoll_wait", "getpid", "clock_nanosleep", "restart_syscall", "poll", "ppoll"}


def test_cap_033_the_management_channel_takes_connections_with_no_device_there(tmp_path):
    with StorageProcess(tmp_path) as process:

        async def calls(client):
            return await client.status()

        status = process.run(calls)
        assert (status.exports, status.sessions) == ((), ())
        assert status.portals == (f"127.0.0.1:{process.port}",)
        found = asyncio.run(discover(("127.0.0.1", process.port), initiator=N1))
        assert found == ()
        assert process.run(calls) == status


@pytest.mark.parametrize("writes", [False, True], ids=["read", "write"])
def test_cap_040_an_io_is_one_receive_one_call_to_the_medium_and_one_send(tmp_path, writes):
    count, medium = 200, WRITES if writes else READS
    data = os.urandom(4096)

    async def there():
        async with await opened(target.ports[0], target.iqn) as session:
            await session.write(1, 0, data * count)
            with Traced(target.process.pid, tmp_path) as traced:
                for number in range(count):
                    if writes:
                        await session.write(1, number * 4096, data)
                    else:
                        assert await session.read(1, number * 4096, 4096) == data
            return traced.calls

    disk = made(tmp_path / "disk")
    with TargetProcess(tmp_path, "--lun", f"1={disk}", first=NEVER_SLOW) as target:
        calls = asyncio.run(there())
    (connection,) = (thread for thread, said in calls.items() if medium & said.keys())
    said = calls.pop(connection)
    assert set(said) <= medium | RECEIVES | SENDS | RUNTIME
    assert sum(said[name] for name in medium) == count
    pings = count // 10  # of a session that is silent while strace attaches
    # It waits in one when strace comes, which then may show as restart_syscall.
    assert count - 1 <= sum(said[name] for name in RECEIVES) <= count + pings
    assert count <= sum(said[name] for name in SENDS) <= count + pings
    assert set().union(*calls.values()) <= RUNTIME, "another thread or process has a part in it"


class Relay:
    """Between an initiator and a target: the data segments of the PDUs that either sends, by operation code."""

    def __init__(self, port):
        self._port = port
        self.segments = {}
        self._conversations = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._conversations)

    async def _connected(self, reader, writer):
        self._conversations.add(asyncio.current_task())
        back_reader, forth = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._copy(reader, forth), self._copy(back_reader, writer))

    async def _copy(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(48)
                ahs, octets = iscsi.header_lengths(header)
                self.segments.setdefault(header[0] & 0x3F, []).append(octets)
                writer.write(header + await reader.readexactly(ahs + octets + -octets % 4))
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(("burst", "frame"), [(65536, 65536), (MIB, RECEIVE_OCTETS)], ids=["short", "long"])
def test_cap_041_a_message_larger_than_a_frame_is_cut_and_put_together(burst, frame):
    """A write is cut where a burst ends, and where the target takes no more in a frame; so is a read, the other way."""
    data = random.Random(3).randbytes(3 * MIB)
    wishes = Wishes(initial_r2t=True, immediate_data=False, first_burst_length=4096, max_burst_length=burst)

    async def there():
        async with Relay(here.portal[1]) as relay, await opened(relay.port, here.target, wishes=wishes) as session:
            await session.capacity(1)
            relay.segments.clear()
            await session.write(1, MIB, data)
            assert relay.segments[iscsi.DataOut.OPCODE] == [frame] * (len(data) // frame)
            assert relay.segments[iscsi.ScsiCommand.OPCODE] == [0]
            found = await session.read(1, MIB, len(data))
            assert relay.segments[iscsi.DataIn.OPCODE] == [frame] * (len(data) // frame)
            assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()

    with standing(*memory(1, octets=8 * MIB)) as here:
        here.target = "iqn.2026-11.dev.panloom:standing"
        asyncio.run(there())


@pytest.mark.parametrize("version", [1, 2, 255])
def test_cap_042_a_handshake_of_another_version_is_refused_cleanly(version):
    with standing(*memory(1)) as here:
        portal = f"127.0.0.1:{here.portal[1]}"
        names = {"InitiatorName": str(N1), "TargetName": "iqn.2026-11.dev.panloom:standing"}
        with Initiator(connect(portal), names) as initiator:
            keys = iscsi_text({**names, **LINUX_KEYS})
            initiator.send(
                iscsi.LoginRequest(
                    flags=FINAL | 7, version_min=version, version_max=version, isid=bytes(6), initiator_task_tag=1,
                    cmd_sn=1, data=keys,
                )
            )  # fmt: skip
            answer = initiator.receive()
            assert (answer.status_class, answer.status_detail) == (2, 5)  # RFC 7143 section 11.13.5
            assert initiator.receive() is None
        with Initiator(connect(portal), names) as initiator:
            initiator.log_in_plainly()


def iscsi_text(keys):
    return b"".join(f"{key}={value}\0".encode() for key, value in keys.items())


@contextlib.contextmanager
def loop_device(path):
    """A file as a block device of the kernel's."""
    device = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=True).stdout
    try:
        yield device.strip()
    finally:
        subprocess.run(["losetup", "--detach", device.strip()], check=True)


@contextlib.contextmanager
def device(kind, directory):
    """Yield the name of a device of a kind."""
    with contextlib.ExitStack() as stack:
        match kind:
            case "file":
                yield str(made(directory / "disk"))
            case "block":
                yield stack.enter_context(loop_device(made(directory / "loop")))
            case "memory":
                yield "mem:8M"
            case "remote":
                other = stack.enter_context(Tgtd(directory, 8 * MIB))
                yield f"iscsi://127.0.0.1:{other.port}/{TGTD_TARGET}/1"


@pytest.mark.parametrize("single", [True, False], ids=["single-device", "host-module"])
@pytest.mark.parametrize("kind", ["file", "block", "memory", "remote"])
def test_cap_043_any_device_works_with_any_module_in_front(tmp_path, kind, single):
    """As one program that serves it, and as the storage process under a control node's channel.

    The remote unit is one that gives no space back.
    """
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(device(kind, tmp_path))
        if single:
            target = stack.enter_context(TargetProcess(tmp_path, "--lun", f"0={name}"))
            port, iqn = target.ports[0], target.iqn
        else:
            process = stack.enter_context(StorageProcess(tmp_path))
            port, iqn = process.port, SHOP

            async def calls(client):
                await client.export(SHOP, [ExportedLun(0, device=name)], 1, Access(None))

            process.run(calls)

        async def there():
            async with await opened(port, iqn) as session:
                assert (await session.capacity(0)).octets == 8 * MIB
                await checked(session, 0, start=0, octets=2 * MIB, seed=kind, thin=kind != "remote")

        asyncio.run(there())


def test_cap_044_four_machines_share_three_devices(tmp_path):
    luns = [part for number in (1, 2, 3) for part in ("--lun", f"{number}={made(tmp_path / f'disk{number}')}")]

    async def client(number):
        async with await opened(target.ports[0], target.iqn, initiator=node(number)) as session:
            for lun in (1, 2, 3):  # a quarter of each is one machine's own
                quarter = 2 * MIB
                await checked(session, lun, start=number * quarter, octets=quarter, seed=10 * number + lun, rounds=16)

    async def there():
        await asyncio.gather(*(client(number) for number in range(4)))

    with TargetProcess(tmp_path, *luns) as target:
        asyncio.run(there())


def test_cap_045_exports_come_grow_and_go_while_sessions_are_live(tmp_path):
    with StorageProcess(tmp_path) as process:

        async def there():
            from panloom.storage.client import StorageClient

            client = StorageClient(process.socket)
            await client.create_volume("shop.web1", None, 8 * MIB)
            await client.export(SHOP, [ExportedLun(0, volume="shop.web1")], 1, Access(str(N1)))
            async with await opened(process.port, SHOP) as session:
                stop = asyncio.Event()

                async def load():
                    seed = 0
                    while not stop.is_set():
                        await checked(session, 0, start=0, octets=MIB, seed=seed, rounds=8)
                        seed += 1
                    return seed

                loading = asyncio.create_task(load())
                for number in (2, 3):
                    other = f"iqn.2026-11.dev.panloom:shop.web{number}"
                    await client.export(other, [ExportedLun(0, device="mem:4M")], 1, Access(str(node(number))))
                    async with await opened(process.port, other, initiator=node(number)) as another:
                        await checked(another, 0, start=0, octets=MIB, seed=number, rounds=8)
                    await client.unexport(other, 1)
                    with pytest.raises(LoginRefusedError):
                        await opened(process.port, other, initiator=node(number))
                await client.grow_volume("shop.web1", 16 * MIB)
                assert (await session.capacity(0)).octets == 16 * MIB
                await checked(session, 0, start=8 * MIB, octets=MIB, seed=99)
                stop.set()
                assert await loading > 0
                assert session.logins == 1
            await client.close()

        asyncio.run(there())


def newer(directory, revision):
    """Return Python that loads another release of ours: the same, but for the revision that INQUIRY tells."""
    shutil.copytree(Path(panloom.__file__).parent, directory / "panloom", ignore=shutil.ignore_patterns("__pycache__"))
    pages = directory / "panloom/protocol/scsi_pages.py"
    text = pages.read_text()
    assert f'REVISION = "{REVISION}"' in text
    pages.write_text(text.replace(f'REVISION = "{REVISION}"', f'REVISION = "{revision}"'))
    return f"import sys; sys.path.insert(0, {str(directory)!r})"


async def revision_of(session):
    """Return the product revision level (SPC-4 r37 6.6.2)."""
    outcome = await session.execute(1, scsi_cdb.encode(scsi_cdb.Inquiry(0, 0, 96)), data_in_octets=96, insistent=True)
    return outcome.data[32:36].decode().strip()


def test_cap_045_a_newer_module_takes_over_open_sessions(tmp_path):
    """It takes the place of the older one under load: calls without an answer are made again, nothing is lost."""
    disk = made(tmp_path / "disk")
    releases = {REVISION: "", "2": newer(tmp_path / "two", "2"), "3": newer(tmp_path / "three", "3")}
    port = free_port()

    def start(stack, revision):
        first = releases[revision]
        return stack.enter_context(TargetProcess(tmp_path, "--lun", f"1={disk}", ports=(port,), first=first))

    async def there(stack):
        target = await asyncio.to_thread(start, stack, REVISION)
        session = await opened(port, target.iqn, reconnect_seconds=60)
        stop = asyncio.Event()

        async def load():
            seed = 0
            while not stop.is_set():
                await checked(session, 1, start=0, octets=MIB, seed=seed, rounds=8)
                seed += 1

        loading = asyncio.create_task(load())
        assert await revision_of(session) == REVISION
        for revision in ("2", "3", REVISION):
            logins = session.logins
            assert await asyncio.to_thread(target.end) == 0
            target = await asyncio.to_thread(start, stack, revision)
            await eventually(lambda logins=logins: session.logins > logins, "the session has come back")
            assert await revision_of(session) == revision
        stop.set()
        await loading
        await session.close()
        assert await asyncio.to_thread(target.end) == 0

    with contextlib.ExitStack() as stack:
        asyncio.run(there(stack))
