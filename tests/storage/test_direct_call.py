"""The direct call between the wire and a device: which part knows what, and what stands between them."""

import asyncio
import os
import random
import socket
import sys
import threading
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from panloom.errors import UnavailableError
from panloom.initiator import Session
from panloom.storage import sending
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import NoFile
from panloom.storage.frame import Callback, Operation, answer
from panloom.storage.hot import build
from panloom.storage.local_transport import LocalTransport
from panloom.storage.remote_transport import RemoteTransport
from panloom.storage.stand_alone import NoStore
from support import blocks
from support.file_target import TARGET as FILE_TARGET
from support.file_target import FileDisk, FileManager
from support.standing import INITIATOR, MIB, TARGET, export, memory, standing
from support.storage_sessions import NOTHING, PlainConnection
from support.waiting import until


async def use(session, lun=1, seed=b"\1"):
    """Write, flush, read and give back through every command that the wire has for it."""
    data = seed * 8192
    await session.write(lun, 4096, data)
    await session.write(lun, 65536, data, fua=True)
    await session.flush(lun)
    assert await session.read(lun, 4096, len(data)) == data
    await session.unmap(lun, 4096, len(data))
    assert await session.read(lun, 4096, len(data)) == bytes(len(data))


def test_cap_028_the_remote_transport_serves_another_connection_manager(tmp_path):
    manager = FileManager({1: FileDisk(tmp_path / "disk", MIB // 512)})
    transport = RemoteTransport((("127.0.0.1", 0),), manager)
    transport.start()

    async def there():
        async with await Session.open(transport.addresses[0], initiator=INITIATOR, target=FILE_TARGET) as session:
            await use(session)

    try:
        asyncio.run(there())
    finally:
        transport.stop()
    assert {call for call, _, _ in manager.disks[1].calls} == {"read", "write", "flush", "unmap"}


class Pretended:
    """In the place of the Local Transport: any LUN is the same disk, and what it is asked for is written down."""

    def __init__(self, disk):
        self.disk, self.connected, self.disconnected = disk, [], []

    def platforms(self):
        """There are none."""
        return ()

    def open_devices(self, luns):
        """Nothing has to be opened."""

    def apply_limits(self, luns):
        """It is as quick as it can be."""

    def connect(self, target, lun, epoch):
        self.connected.append((target, lun.lun, epoch))
        return self.disk.descriptor

    def disconnect(self, descriptor):
        self.disconnected.append(descriptor)

    def shut_down(self):
        """Nothing is open."""


def test_cap_028_the_connection_manager_asks_another_local_transport(tmp_path):
    local = Pretended(FileDisk(tmp_path / "disk", 8))
    manager = ConnectionManager(NoStore(), NoFile(), lambda _: None, local_transport=local)
    manager.export(export(*memory(1, 5), epoch=3))
    admission = manager.admit(INITIATOR, TARGET, NOTHING, PlainConnection(INITIATOR, target=TARGET))
    assert admission.descriptors == {1: local.disk.descriptor, 5: local.disk.descriptor}
    assert local.connected == [(str(TARGET), 1, 3), (str(TARGET), 5, 3)]
    manager.gone(admission.session_id, "closed")
    assert len(local.disconnected) == 2


def test_cap_028_another_remote_transport_calls_the_local_transport():
    local = LocalTransport(NoStore())
    (lun,) = memory(1)
    unit = local.connect(str(TARGET), lun, 1)
    blocks.write(unit, 512, b"x" * 512)
    into = bytearray(512)
    blocks.read(unit, 512, into)
    assert into == b"x" * 512
    local.disconnect(unit)
    local.shut_down()


class Sealed:
    """An opaque context: whoever looks at it is told off."""

    def __init__(self, inner):
        object.__setattr__(self, "inner", inner)

    def __getattribute__(self, name):
        raise AssertionError(f"the Remote Transport looks at {name} of a context")


def test_cap_030_a_context_is_each_devices_own_and_opaque_to_the_remote_transport():
    contexts = {}

    def seal(lun, descriptor):
        contexts[lun] = descriptor.context

        def handler(context, frame):
            descriptor.send_handler(object.__getattribute__(context, "inner"), frame)

        return replace(descriptor, context=Sealed(descriptor.context), send_handler=handler)

    async def there():
        async with await here.session() as session:
            for lun in (1, 2, 3):
                await use(session, lun)

    with standing(*memory(1, 2, 3), change=seal) as here:
        asyncio.run(there())
    assert len({id(context) for context in contexts.values()}) == 3


def test_cap_031_it_listens_before_anybody_connects_and_not_after_its_end():
    with standing() as here:
        portal = here.portal
        socket.create_connection(portal, timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(portal, timeout=10)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_cap_032_each_device_has_a_descriptor_with_a_send_handler_and_a_context(count):
    with standing() as here:
        here.export(export(*memory(*range(count))))
        admission = here.admit(INITIATOR, TARGET, NOTHING, PlainConnection(INITIATOR, target=TARGET))
        assert len(admission.descriptors) == count
        for lun, descriptor in admission.descriptors.items():
            assert callable(descriptor.send_handler)
            assert descriptor.context is not None
            assert descriptor.blocks * descriptor.block_octets == MIB + lun * 4096
        here.gone(admission.session_id, "closed")


def test_cap_034_either_side_may_start_first_and_start_again(tmp_path):
    disk = FileDisk(tmp_path / "disk", MIB // 512)
    manager = FileManager({1: disk})
    with socket.create_server(("127.0.0.1", 0)) as server:
        portal = server.getsockname()  # free again from here on

    def start():
        transport = RemoteTransport((portal,), manager)
        transport.start()
        return transport

    async def opened():
        return await Session.open(portal, initiator=INITIATOR, target=FILE_TARGET, reconnect_seconds=60)

    async def there():
        with pytest.raises(UnavailableError):  # the initiator first: told so, and it may try again
            await opened()
        transport = start()
        session = await opened()
        await use(session)
        await asyncio.to_thread(transport.stop)
        writing = asyncio.create_task(session.write(1, 0, b"w" * 512))  # nobody is there
        transport = start()
        await writing
        assert session.logins == 2
        await session.abort()  # without a word, as a machine that loses power
        again = await opened()
        assert await again.read(1, 0, 512) == b"w" * 512
        await again.close()
        await asyncio.to_thread(transport.stop)

    asyncio.run(there())


def test_cap_035_only_what_is_exported_is_advertised_and_the_rest_is_refused_by_name():
    private = replace_name(TARGET, "private")

    async def there():
        from panloom.initiator import discover
        from panloom.protocol.iscsi_initiator_login import LoginRefusedError

        found = await discover(here.portal, initiator=INITIATOR)
        assert [target.name for target in found] == [TARGET]
        async with await here.session() as session:
            assert await session.luns() == (1,)
        for name in (private, replace_name(TARGET, "absent")):
            with pytest.raises(LoginRefusedError):
                await here.session(target=name)

    with standing(*memory(1)) as here:
        here.export(export(*memory(2), target=private, access=None))
        asyncio.run(there())
        assert any(str(private) in str(event.target) for event in here.events if event.event == "refused")


def replace_name(iqn, name):
    """Return another target of the same authority."""
    return type(iqn)(f"{iqn.name.rpartition(':')[0]}:{name}")


def test_cap_036_the_connection_holds_the_managers_own_descriptor():
    async def there():
        async with await here.session() as session:
            await use(session)
            (connection,) = here.transport._connections
            (known,) = here.manager._sessions.values()
            assert known.descriptors.keys() == {1, 2}
            for lun, descriptor in known.descriptors.items():
                assert connection._admission.descriptors[lun] is descriptor

    with standing(*memory(1, 2)) as here:
        asyncio.run(there())


class Recorder:
    """In the place of a send handler, and in that of each frame's callback."""

    def __init__(self):
        self.sent, self.returned = [], []

    def __call__(self, lun, descriptor):
        def send(context, frame):
            theirs, self_ = frame.context, self
            assert isinstance(theirs, Callback)
            self_.sent.append((context is descriptor.context, frame, threading.get_ident(), modules()))

            def back(context, frame):
                self_.returned.append((frame, threading.get_ident(), modules()))
                frame.context = theirs
                answer(frame)

            frame.context = Callback(back, None)
            descriptor.send_handler(descriptor.context, frame)

        return replace(descriptor, send_handler=send)


def modules():
    """Return where the calls on this thread's stack are, the innermost first, down to the connection's thread."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        found.append((frame.f_globals["__name__"], frame.f_code.co_name))
        frame = frame.f_back
    return found


def test_cap_037_038_a_request_and_its_reply_are_plain_calls_on_the_connections_thread(monkeypatch):
    monkeypatch.setattr(sending, "SLOW_NANOSECONDS", 1 << 62)  # however busy this machine is
    recorder = Recorder()

    async def there():
        async with await here.session() as session:
            await use(session)
            (connection,) = here.transport._connections
            thread = connection._thread.ident
        assert len(recorder.sent) >= 6
        assert [sent[1] for sent in recorder.sent] == [returned[0] for returned in recorder.returned]
        for (own_context, frame, sender, callers), (_, returner, back_callers) in zip(
            recorder.sent, recorder.returned, strict=True
        ):
            assert own_context
            assert sender == returner
            if frame.operation not in (Operation.READ, Operation.WRITE):
                continue  # what may take long, as a flush, has a thread of its unit's
            assert sender == thread
            for each in (callers, back_callers):
                between = {module for module, _ in each} - {__name__, "threading"}
                assert all(module.startswith("panloom.storage.") for module in between), between
                assert build() == "compiled" or ("panloom.storage.hot", "run") in each
        assert {sent[1].operation for sent in recorder.sent} >= {Operation.READ, Operation.WRITE}

    with standing(*memory(1), change=recorder) as here:
        asyncio.run(there())


def test_cap_037_the_receive_handler_is_among_the_callers_in_either_build(caplog):
    """What a send handler raises comes through its callers, those that are compiled included."""

    class FaultError(Exception):
        pass

    def faulty(lun, descriptor):
        def send(context, frame):
            if frame.operation is Operation.READ:
                raise FaultError
            descriptor.send_handler(context, frame)

        return replace(descriptor, send_handler=send)

    def raised():
        return [record.exc_info for record in caplog.records if record.exc_info and record.exc_info[0] is FaultError]

    async def there():
        async with await here.session() as session:
            await session.write(1, 0, bytes(4096))
            with pytest.raises(UnavailableError):
                await session.read(1, 0, 4096)

    with standing(*memory(1), change=faulty) as here:
        asyncio.run(there())
        ((_, _, trace), *_) = until(raised, "the fault is logged")
    callers = [(Path(each.filename).name, each.name.rpartition(".")[2]) for each in traceback.extract_tb(trace)]
    assert [name for file, name in callers if file == "hot.py"][-2:] == ["_read_plain", "_call"]
    assert callers[-1] == ("test_direct_call.py", "send")


class Later:
    """A slow medium: frames are answered from another thread, not in their order.

    ``contexts``: what each frame's context was when it came, and what it was again after it had been called back.
    """

    def __init__(self, at_once):
        self.held, self.lock, self.ended = [], threading.Condition(), False
        self.contexts = []
        self.most_alike = 0  # sessions of which a frame was held at the same time under one context
        self.at_once = at_once
        self.order = random.Random(7)
        self.thread = threading.Thread(target=self.run)
        self.mixed = 0

    def __call__(self, lun, descriptor):
        def send(context, frame):
            theirs = frame.context

            def back(_, frame):
                frame.context = theirs
                answer(frame)
                self.contexts.append((theirs.context, frame.context))

            frame.context = Callback(back, None)
            with self.lock:
                self.held.append((descriptor, context, frame, theirs.context))
                alike = Counter(tag for _, tag in {(id(held[0]), held[3]) for held in self.held})
                self.most_alike = max(self.most_alike, *alike.values())
                self.lock.notify_all()

        return replace(descriptor, send_handler=send)

    def run(self):
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.held or self.ended)
                self.lock.wait_for(lambda: len(self.held) >= self.at_once or self.ended, timeout=0.003)
                if all(frame.octets == 512 for _, _, frame, _ in self.held):  # both have begun to read: however late
                    self.lock.wait_for(lambda: self.most_alike > 1 or self.ended, timeout=10)
                if not self.held:
                    return
                taken, self.held = self.held, []
            before = list(taken)
            self.order.shuffle(taken)
            self.mixed += taken != before
            for descriptor, context, frame, _ in taken:
                descriptor.send_handler(context, frame)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with self.lock:
            self.ended = True
            self.lock.notify_all()
        self.thread.join()


def test_cap_039_a_thousand_requests_out_of_order_and_each_reply_has_its_own_context():
    """Two initiators number their tasks alike: equal contexts are under way at the same time."""
    content = os.urandom(MIB)

    async def ask(session, lun, numbers):
        async def one(number):
            offset = numbers[number] * 512
            assert await session.read(lun, offset, 512) == content[offset : offset + 512]

        for start in range(0, 500, 16):
            await asyncio.gather(*(one(number) for number in range(start, min(start + 16, 500))))

    async def there():
        sessions = [await here.session(initiator=replace_name(INITIATOR, f"node.n{number}")) for number in (1, 2)]
        await sessions[0].write(1, 0, content)
        order = random.Random(1)
        picks = [[order.randrange(MIB // 512) for _ in range(500)] for _ in sessions]
        await asyncio.gather(*(ask(session, 1, numbers) for session, numbers in zip(sessions, picks, strict=True)))
        for session in sessions:
            await session.close()

    with Later(8) as later, standing(*memory(1), change=later) as here:
        asyncio.run(there())
    assert later.mixed > 20
    assert later.most_alike == 2
    assert len(later.contexts) >= 1000
    assert all(restored == saved for saved, restored in later.contexts)
    until(lambda: not later.thread.is_alive(), "the slow medium has ended")
