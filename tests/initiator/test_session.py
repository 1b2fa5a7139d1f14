"""Sessions with the Remote Transport over real sockets: what callers see."""

import asyncio
import contextlib
import errno
import random
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.errors import MalformedError, RefusedError, UnavailableError
from panloom.initiator import CommandError, FoundTarget, LoginRefusedError, Session, Timing, discover
from panloom.initiator.session import decode_targets
from panloom.protocol.chap import Credentials
from panloom.values import Iqn
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi_text import Portal
from panloom.wire.scsi_cdb import Operation
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.waiting import until

BLOCKS = 65536
WEB1 = Credentials("web1", "secret-of-web1")


@pytest.fixture
def manager(tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", BLOCKS), 3: FileDisk(tmp_path / "facts", 8, read_only=True)})


@pytest.fixture
def portal(manager):
    with serving(manager) as portal:
        address, port = portal.rsplit(":", 1)
        yield address, int(port)


def session_at(portal, **options):
    return Session.open(portal, initiator=INITIATOR, target=TARGET, **options)


def run(portal, talk, **options):
    """Run a coroutine function of a session with the portal, within a deadline."""

    async def within():
        async with asyncio.timeout(30), await session_at(portal, **options) as session:
            return await talk(session)

    return asyncio.run(within())


def test_a_session_from_login_to_its_end(manager, portal):
    async def talk(session):
        assert await session.luns() == (0, 3)
        assert await session.capacity(0) == (BLOCKS, 512)
        await session.write(0, 5 * 512, b"x" * 1024)
        assert await session.read(0, 4 * 512, 2048) == bytes(512) + b"x" * 1024 + bytes(512)
        await session.flush(0)
        await session.unmap(0, 5 * 512, 512)
        assert await session.read(0, 5 * 512, 1024) == bytes(512) + b"x" * 512
        assert session.logins == 1

    run(portal, talk)
    until(lambda: manager.ended == [("s1", "logout")], "the end is told")
    assert [call for call, _, _ in manager.disks[0].calls] == ["write", "read", "flush", "unmap", "read"]


def test_chap(manager, portal):
    manager.wanted = WEB1

    async def talk(session):
        return await session.read(0, 0, 512)

    assert run(portal, talk, user="web1", secret="secret-of-web1") == bytes(512)
    for user, secret in (("web1", "guessed"), (None, None)):
        with pytest.raises(LoginRefusedError, match="authentication failed") as caught:
            run(portal, talk, user=user, secret=secret)
        assert caught.value.status == (2, 1)


@pytest.mark.parametrize(("header", "data"), [(True, True), (True, False), (False, True), (False, False)])
def test_digests(portal, header, data):
    async def talk(session):
        await session.write(0, 0, b"x" * 65536)
        assert await session.read(0, 0, 65536) == b"x" * 65536
        return session.agreed

    wishes = {True: ("CRC32C", "None"), False: ("None", "CRC32C")}
    agreed = run(portal, talk, header_digest=wishes[header], data_digest=wishes[data])
    assert (agreed.header_digest, agreed.data_digest) == (header, data)
    assert run(portal, talk, header_digest=("CRC32C",)).header_digest


def test_a_target_without_a_secret_proves_nothing_so_who_insists_stays_out(manager, portal):
    manager.wanted = WEB1
    with pytest.raises(RefusedError):
        run(portal, None, user="web1", secret="secret-of-web1", target_secret="secret-of-the-target")


def test_who_is_not_known_is_told_so(manager, portal):
    manager.initiator = Iqn("iqn.2026-11.dev.panloom:node.n9")
    with pytest.raises(LoginRefusedError, match="may not use the target"):
        run(portal, None)


def test_many_at_once(manager, portal):
    octets = random.Random(3).randbytes(4 << 20)

    async def talk(session):
        at = range(0, len(octets), 4096)
        await asyncio.gather(*(session.write(0, offset, octets[offset : offset + 4096]) for offset in at))
        pieces = await asyncio.gather(*(session.read(0, offset, 4096) for offset in at))
        assert b"".join(pieces) == octets
        assert await session.read(0, 0, len(octets)) == octets
        await session.write(0, 8 << 20, octets)
        assert await session.read(0, 0, 16 << 20) == octets + bytes(4 << 20) + octets + bytes(4 << 20)

    run(portal, talk)
    assert manager.disks[0].content(8 << 20, len(octets)) == octets


def test_what_a_unit_refuses(manager, portal):
    async def talk(session):
        with pytest.raises(CommandError, match=r"unit 0: READ of 2 blocks at 65535: .* sense 05/2100") as caught:
            await session.read(0, (BLOCKS - 1) * 512, 1024)
        assert caught.value.sense.code == scsi_sense.LBA_OUT_OF_RANGE.code
        with pytest.raises(CommandError, match=r"unit 3: WRITE of 1 blocks at 0: .* sense 07/2700"):
            await session.write(3, 0, bytes(512))
        with pytest.raises(CommandError, match=r"unit 9: .* sense 05/2500"):
            await session.capacity(9)
        manager.disks[0].error = errno.EIO
        with pytest.raises(CommandError, match="sense 03/0C00"):
            await session.write(0, 0, bytes(512))
        for offset, octets in ((1, 512), (0, 511), (-512, 512)):
            with pytest.raises(ValueError, match="no whole blocks of 512 octets"):
                await session.read(0, offset, octets)

    run(portal, talk)


def test_any_command(portal):
    async def talk(session):
        inquiry = scsi_cdb.encode(scsi_cdb.Inquiry(0, 0, 255))
        outcome = await session.execute(0, inquiry, data_in_octets=255)
        assert outcome.status == 0
        assert outcome.data[8:15] == b"PANLOOM"
        assert outcome.residual == 255 - len(outcome.data)
        ready = scsi_cdb.encode(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
        outcome = await session.execute(0, ready)
        assert (outcome.status, str(outcome.sense)) == (2, "06/2900")
        with pytest.raises(ValueError, match="in both directions"):
            await session.execute(0, ready, b"x", 1)
        await session.reset_unit(0)
        assert str((await session.execute(0, ready)).sense) == "06/2903"
        assert (await session.execute(0, ready)).status == 0

    run(portal, talk)


def test_a_buffer_may_change_once_write_has_begun(manager, portal):
    async def talk(session):
        await session.read(0, 0, 512)
        data = bytearray(b"x" * (1 << 20))
        write = asyncio.create_task(session.write(0, 0, data))
        await asyncio.sleep(0)
        data[:] = bytes(len(data))
        await write

    run(portal, talk)
    assert manager.disks[0].content(0, 1 << 20) == b"x" * (1 << 20)


def test_a_cancelled_read_upsets_no_other(portal):
    async def talk(session):
        await session.write(0, 0, b"x" * 4096)
        reads = [asyncio.create_task(session.read(0, 0, 4096)) for _ in range(64)]
        await asyncio.sleep(0)
        for read in reads[::2]:
            read.cancel()
        assert await asyncio.gather(*reads[1::2]) == [b"x" * 4096] * 32
        assert all(read.cancelled() for read in reads[::2])
        assert session.logins == 1

    run(portal, talk)


def test_a_connection_that_is_shut_down_comes_back(manager, portal):
    async def talk(session):
        for number in range(1, 4):
            writes = [
                asyncio.create_task(session.write(0, offset, bytes([number]) * 65536))
                for offset in range(0, 4 << 20, 65536)
            ]
            await writes[0]
            for connection in tuple(manager.connections.values()):
                connection.shut_down()
            await asyncio.gather(*writes)
            assert await session.read(0, 0, 4 << 20) == bytes([number]) * (4 << 20)
        assert session.logins == 4

    run(portal, talk)
    isids = {connection.facts.isid for connection in manager.connections.values()}
    assert len(isids) <= 1


def test_a_take_over_by_another_session_of_the_initiator_ends_in_a_refusal(manager, portal):
    async def talk(session):
        await session.read(0, 0, 512)
        manager.initiator = Iqn("iqn.2026-11.dev.panloom:node.n9")
        for connection in tuple(manager.connections.values()):
            connection.shut_down()
        with pytest.raises(LoginRefusedError, match="may not use the target"):
            await session.read(0, 0, 512)

    run(portal, talk)


def test_close_ends_what_is_under_way_and_later_calls(portal):
    async def talk():
        session = await session_at(portal)
        read = asyncio.create_task(session.read(0, 0, 4096))
        await asyncio.sleep(0)
        await session.close()
        for each in (read, session.read(0, 0, 512), session.flush(0)):
            with pytest.raises(UnavailableError, match="the session is closed"):
                await each
        await session.close()

    asyncio.run(talk())


def test_abort_leaves_without_a_logout(manager, portal):
    async def talk():
        session = await session_at(portal)
        await session.read(0, 0, 512)
        await session.abort()

    asyncio.run(talk())
    until(lambda: manager.ended, "the end is told")
    assert manager.ended[0][1] != "logout"


def test_discovery(manager, portal):
    async def find(**options):
        return await discover(portal, initiator=INITIATOR, **options)

    (found,) = asyncio.run(find())
    assert found.name == TARGET
    assert [(each.address, each.port, each.group) for each in found.portals] == [(*portal, 1)]
    manager.wanted = WEB1
    assert asyncio.run(find()) == ()
    assert asyncio.run(find(user="web1", secret="secret-of-web1")) == (found,)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", ()),
        (b"TargetName=iqn.2026-11.a:b\0", (FoundTarget(Iqn("iqn.2026-11.a:b"), (Portal("192.0.2.1"),)),)),
        (
            b"TargetName=iqn.2026-11.a:b\0TargetAddress=192.0.2.2:3261,1\0TargetAddress=[::1],2\0TargetName=eui.0123456789abcdef\0",
            (
                FoundTarget(Iqn("iqn.2026-11.a:b"), (Portal("192.0.2.2", 3261, 1), Portal("::1", 3260, 2))),
                FoundTarget(Iqn("eui.0123456789abcdef"), (Portal("192.0.2.1"),)),
            ),
        ),
    ],
)
def test_known_texts_of_discovery(text, found):
    assert decode_targets(text, Portal("192.0.2.1")) == found


@given(st.binary(max_size=80) | st.text("TargetNameAddress=\0iqn.2026-11:b,", max_size=80).map(str.encode))
def test_any_text_of_discovery_decodes_or_is_malformed(text):
    try:
        decode_targets(text, Portal("192.0.2.1"))
    except MalformedError as error:
        assert str(error)


def test_nobody_listens():
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: "):
        run(("127.0.0.1", 1), None)


def test_a_connector_of_the_callers_own(portal):
    asked = []

    async def connect(address, port):
        asked.append((address, port))
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
        return connection

    async def talk(session):
        return await session.read(0, 0, 512)

    assert run(portal, talk, connect=connect) == bytes(512)
    assert asked == [portal]


def test_a_local_address(manager, portal):
    async def talk(session):
        (connection,) = manager.connections.values()
        return connection.facts.peer

    assert run(portal, talk, local_address="127.0.0.9").startswith("127.0.0.9:")


@contextlib.contextmanager
def scripted(script):
    """Listen at a port whose connections are given to ``script``, in a thread; yield the portal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


IMPATIENT = Timing(login_seconds=0.3, ping_seconds=0.1, answer_seconds=0.1, command_seconds=0.3, reconnect_seconds=0.5)


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"", UnavailableError),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", MalformedError),
        (random.Random(4).randbytes(4096), MalformedError),
        (bytes(48), MalformedError),
    ],
)
@pytest.mark.parametrize("then", ["hang", "close"])
def test_what_is_no_target_is_refused_in_time(octets, error, then):
    def script(connection):
        connection.sendall(octets)
        if then == "close":
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    with scripted(script) as portal, pytest.raises(error) as caught:
        run(portal, None, timing=IMPATIENT)
    assert str(caught.value)


def test_a_target_that_falls_silent_is_given_up_in_time():
    def script(connection):
        login = connection.recv(4096)
        answer = iscsi.LoginResponse(
            flags=iscsi.FINAL | 7, isid=login[8:14], tsih=1, initiator_task_tag=0, stat_sn=1, exp_cmd_sn=1, max_cmd_sn=9
        )
        connection.sendall(iscsi.encode(answer))
        while connection.recv(4096):
            pass

    async def talk(session):
        with pytest.raises(UnavailableError, match=r"no way back in 0.5 s; at last: no answer to a ping in 0.1 s"):
            await session.read(0, 0, 512)

    with scripted(script) as portal:
        run(portal, talk, timing=IMPATIENT)


def test_a_caller_who_loses_patience_leaves_nothing_behind():
    def script(connection):
        while connection.recv(4096):
            pass

    async def talk(portal):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await session_at(portal)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    with scripted(script) as portal:
        assert asyncio.run(talk(portal)) == []
