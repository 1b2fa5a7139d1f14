"""What one unit keeps waiting delays no other of the session, nor NOPs, and is answered later; digests."""

import errno
import os
import socket
import threading

import pytest

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.storage.frame import Operation, StaleEpochError, answer
from panloom.wire import iscsi, scsi_cdb
from panloom.wire.crc32c import digest
from panloom.wire.iscsi import DataIn, NopIn, NopOut, Reject, ScsiCommand, ScsiResponse
from panloom.wire.scsi_cdb import BlockCommand
from panloom.wire.scsi_cdb import Operation as Code
from support import iscsi_peer
from support.builds import BUILDS, hot_module
from support.iscsi_peer import LINUX, Conversation, MemoryDisk


@pytest.fixture(autouse=True, scope="module", params=BUILDS)
def loop(request):
    """Have every conversation here served by each build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iscsi_peer, "HotLoop", hot_module(request.param).HotLoop)
        yield


class LateDisk(MemoryDisk):
    """A disk that keeps its frames until ``go``, and then answers them from another thread, the last one first."""

    def __init__(self, blocks=64):
        super().__init__(blocks)
        self.kept, self.go = [], threading.Event()
        self._do = self.descriptor.send_handler
        self._changing = threading.Lock()
        object.__setattr__(self.descriptor, "send_handler", self.keep)
        self._thread = None

    def keep(self, context, frame):
        with self._changing:
            self.kept.append(frame)
            if self._thread is None:
                self._thread = threading.Thread(target=self._answer, args=(context,))
                self._thread.start()

    def _answer(self, context):
        assert self.go.wait(60)
        while True:
            with self._changing:
                if not self.kept:
                    self._thread = None
                    return
                frame = self.kept.pop()
            self._do(context, frame)


class ExtentDisk(MemoryDisk):
    """A disk whose READs are answered by where they stand in a file."""

    def __init__(self, path, blocks=1024):
        super().__init__(blocks)
        path.write_bytes(self.octets)
        self.fd = os.open(path, os.O_RDWR)
        self.errors_at = {}
        self._do = self.descriptor.send_handler
        object.__setattr__(self.descriptor, "send_handler", self.send)

    def send(self, context, frame):
        if frame.operation is Operation.READ and frame.takes_extent:
            frame.file, frame.at = self, frame.offset
            answer(frame)
        else:
            self._do(context, frame)

    def close(self):
        os.close(self.fd)


@pytest.fixture
def extents(tmp_path):
    disk = ExtentDisk(tmp_path / "disk")
    yield disk
    disk.close()


class Talk:
    """A conversation over a real socket, answered while it goes on."""

    def __init__(self, disks, parameters=LINUX):
        self._ours, theirs = socket.socketpair()
        self.parameters = parameters
        self.conversation = Conversation([], disks, parameters=parameters, wire=theirs, threads=True)
        self._theirs = theirs
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.cmd_sn = 0
        self.raised = None

    def _run(self):
        try:
            self.why = self.conversation.loop.run()
        except (StaleEpochError, OSError) as error:
            self.raised = error

    def command(self, code, lba, blocks, *, lun=0, data=b"", bits=0):
        """Say a command; return its tag."""
        self.cmd_sn += 1
        flags = iscsi.FINAL | (iscsi.WRITE if data else iscsi.READ if blocks and code in READS else 0)
        expected = len(data) or (blocks * 512 if flags & iscsi.READ else 0)
        self.say(
            ScsiCommand(
                flags=flags, lun=iscsi.lun_field(lun), initiator_task_tag=self.cmd_sn, cmd_sn=self.cmd_sn,
                expected_data_transfer_length=expected, cdb=scsi_cdb.encode(BlockCommand(code, bits, lba, blocks)),
                data=data,
            )
        )  # fmt: skip
        return self.cmd_sn

    def nop(self):
        self.cmd_sn += 1
        self.say(NopOut(initiator_task_tag=self.cmd_sn, cmd_sn=self.cmd_sn))
        return self.cmd_sn

    def say(self, pdu):
        octets = iscsi.encode(pdu)
        ahs, data = iscsi.header_lengths(octets[:48])
        head, body = octets[: 48 + ahs], octets[48 + ahs :]
        head += digest(head) if self.parameters.header_digest else b""
        body += digest(body) if data and self.parameters.data_digest else b""
        self._ours.sendall(head + body)

    def hear(self):
        """Return the next PDU, its digests checked; None at the end."""
        header = self._exactly(48)
        if not header:
            return None
        if self.parameters.header_digest:
            assert self._exactly(4) == digest(header)
        _, octets = iscsi.header_lengths(header)
        body = self._exactly(octets + -octets % 4)
        if octets and self.parameters.data_digest:
            assert self._exactly(4) == digest(body)
        return iscsi.decode(header, b"", body[:octets])

    def _exactly(self, octets):
        found = b""
        while len(found) < octets:
            more = self._ours.recv(octets - len(found))
            if not more:
                return b""
            found += more
        return found

    def __enter__(self):
        self._ours.settimeout(30)
        return self

    def __exit__(self, *_):
        self._ours.close()
        self._thread.join()
        self._theirs.close()


READS = (Code.READ_10, Code.READ_16)


@pytest.mark.parametrize("code", [Code.READ_10, Code.WRITE_10, Code.SYNCHRONIZE_CACHE_10])
def test_a_unit_that_answers_late_delays_neither_others_nor_nops(code):
    late, quick = LateDisk(), MemoryDisk()
    with Talk({0: late, 1: quick}) as talk:
        data = b"w" * 512 if code is Code.WRITE_10 else b""
        slow = talk.command(code, 3, 0 if code is Code.SYNCHRONIZE_CACHE_10 else 1, data=data)
        others = [
            talk.command(Code.READ_10, 1, 2, lun=1),
            talk.nop(),
            talk.command(Code.WRITE_10, 5, 1, lun=1, data=b"o" * 512),
        ]
        heard = [talk.hear() for _ in others]
        assert [each.initiator_task_tag for each in heard] == others
        assert [type(each) for each in heard] == [DataIn, NopIn, ScsiResponse]
        late.go.set()
        answered = talk.hear()
        assert answered.initiator_task_tag == slow
        assert answered.stat_sn == heard[-1].stat_sn + 1
        if code is Code.READ_10:
            assert answered.data == b"\3" * 512
        if code is Code.WRITE_10:
            assert late.octets[3 * 512 : 4 * 512] == data


def test_many_late_answers_each_have_their_own_data():
    late = LateDisk()
    with Talk({0: late}) as talk:
        tags = {talk.command(Code.READ_10, lba, 1): lba for lba in range(20)}
        writes = {talk.command(Code.WRITE_10, 30 + lba, 1, data=bytes([100 + lba]) * 512): lba for lba in range(20)}
        late.go.set()
        heard = [talk.hear() for _ in range(40)]
        assert {each.initiator_task_tag for each in heard} == {*tags, *writes}
        for each in heard:
            if isinstance(each, DataIn):
                assert each.data == bytes([tags[each.initiator_task_tag]]) * 512
        assert [each.stat_sn for each in heard] == list(range(1, 41))
    assert late.octets[30 * 512 : 50 * 512] == b"".join(bytes([100 + lba]) * 512 for lba in range(20))


@pytest.mark.parametrize("copies", [True, False])
def test_the_input_is_left_to_a_late_write_that_was_not_copied(copies):
    late, buffers = LateDisk(), []

    def keep(context, frame):
        buffers.append(frame.data.obj)
        if copies:
            frame.data = memoryview(bytes(frame.data))
        late.keep(context, frame)

    object.__setattr__(late.descriptor, "send_handler", keep)
    with Talk({0: late}) as talk:
        tags = [talk.command(Code.WRITE_10, lba, 1, data=bytes([100 + lba]) * 512) for lba in range(20)]
        late.go.set()
        assert sorted(talk.hear().initiator_task_tag for _ in tags) == tags
    assert late.octets[: 20 * 512] == b"".join(bytes([100 + lba]) * 512 for lba in range(20))
    assert len({id(buffer) for buffer in buffers}) == (1 if copies else 20)


def test_a_late_read_of_many_pieces():
    late = LateDisk(4096)
    late.go.set()
    with Talk({0: late}, SessionParameters(False, True, 8192, 65536, 65536)) as talk:
        talk.command(Code.READ_10, 7, 200)
        heard = [talk.hear()]
        while not heard[-1].flags & iscsi.DATA_IN_STATUS:
            heard.append(talk.hear())
        assert b"".join(each.data for each in heard) == late.octets[7 * 512 : 207 * 512]


def test_a_session_ends_when_its_last_frame_is_back():
    late = LateDisk()
    talk = Talk({0: late})
    with talk:
        talk.command(Code.WRITE_10, 3, 1, data=b"w" * 512)
        talk.nop()
        assert isinstance(talk.hear(), NopIn)
        talk._ours.shutdown(socket.SHUT_WR)
        assert talk._thread.is_alive()
        late.go.set()
        talk._thread.join()  # with an answer or without: whoever hung up may have missed it
        assert late.octets[3 * 512] == ord("w")


def test_a_late_write_that_is_fenced_off_is_never_answered():
    late = LateDisk()
    late.fenced = True
    with Talk({0: late}) as talk:
        talk.command(Code.WRITE_10, 3, 1, data=b"w" * 512)
        late.go.set()
        assert talk.hear() is None
    assert isinstance(talk.raised, StaleEpochError)


# -- extents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 8, 127, 128, 600])
def test_an_extent_is_sent_as_it_stands(extents, blocks):
    with Talk({0: extents}) as talk:
        talk.command(Code.READ_10, 11, blocks)
        heard = [talk.hear()]
        while not (isinstance(heard[-1], ScsiResponse) or heard[-1].flags & iscsi.DATA_IN_STATUS):
            heard.append(talk.hear())
        found = b"".join(each.data for each in heard if isinstance(each, DataIn))
        assert found == extents.octets[11 * 512 : (11 + blocks) * 512]
        assert heard[-1].status == 0


def test_what_an_extent_cannot_give_is_withdrawn_and_those_behind_it_move_up(extents):
    os.ftruncate(extents.fd, 20 * 512)  # as a disk that fails from there on
    with Talk({0: extents, 1: MemoryDisk()}) as talk:
        tags = [talk.command(Code.READ_10, lba, 1) for lba in (1, 30, 2, 31, 3)]
        heard = [talk.hear() for _ in tags]
        assert sorted(each.initiator_task_tag for each in heard) == tags
        assert [each.stat_sn for each in heard] == [1, 2, 3, 4, 5]
        for each in heard:
            lba = dict(zip(tags, (1, 30, 2, 31, 3), strict=True))[each.initiator_task_tag]
            assert each.status == 2 if lba >= 20 else each.data == bytes([lba]) * 512


def test_octets_that_are_not_in_the_page_cache_are_read_elsewhere(extents):
    os.fsync(extents.fd)
    os.posix_fadvise(extents.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with Talk({0: extents}) as talk:
        tags = [talk.command(Code.READ_10, lba, 1) for lba in range(0, 900, 100)]
        heard = [talk.hear() for _ in tags]
        assert sorted(each.initiator_task_tag for each in heard) == tags
        assert [each.stat_sn for each in heard] == list(range(1, len(tags) + 1))
        for each in heard:
            assert each.data == bytes([(each.initiator_task_tag - 1) * 100 % 251]) * 512


# -- digests -------------------------------------------------------------------------------------------------------

BOTH = SessionParameters(False, True, 262144, 16776192, 262144, header_digest=True, data_digest=True)
HEADER = SessionParameters(False, True, 8192, 65536, 65536, header_digest=True)
DATA = SessionParameters(False, True, 8192, 65536, 65536, data_digest=True)


@pytest.mark.parametrize("parameters", [BOTH, HEADER, DATA], ids=["both", "header", "data"])
def test_digests_go_with_every_answer_and_are_checked_with_every_pdu(extents, parameters):
    with Talk({0: extents, 1: MemoryDisk()}, parameters) as talk:
        for lun in (0, 1):
            talk.command(Code.READ_10, 5, 40, lun=lun)
            found = b""
            while True:
                each = talk.hear()
                found += each.data if isinstance(each, DataIn) else b""
                if isinstance(each, ScsiResponse) or each.flags & iscsi.DATA_IN_STATUS:
                    break
            assert found == extents.octets[5 * 512 : 45 * 512]
        talk.command(Code.WRITE_10, 1, 1, lun=1, data=b"d" * 512)
        assert talk.hear().status == 0
        talk.command(Code.READ_10, 10**6, 1)  # sense data, an answer of the session
        assert talk.hear().status == 2
        talk.nop()
        assert isinstance(talk.hear(), NopIn)


def test_a_wrong_header_digest_ends_the_connection_in_silence():
    with Talk({0: MemoryDisk()}, HEADER) as talk:
        header = iscsi.encode(NopOut(initiator_task_tag=1, cmd_sn=1))
        talk._ours.sendall(header + bytes(4))
        talk._thread.join()
        talk._ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            talk._ours.recv(1)
    assert talk.why == "a header digest is wrong"


def test_a_wrong_data_digest_is_rejected_and_nothing_is_written():
    disk = MemoryDisk()
    with Talk({0: disk}, DATA) as talk:
        command = ScsiCommand(
            flags=iscsi.FINAL | iscsi.WRITE, initiator_task_tag=1, cmd_sn=1, expected_data_transfer_length=512,
            cdb=scsi_cdb.encode(BlockCommand(Code.WRITE_10, 0, 0, 1)), data=b"w" * 512,
        )  # fmt: skip
        talk._ours.sendall(iscsi.encode(command) + bytes(4))
        rejected = talk.hear()
        assert isinstance(rejected, Reject)
        assert rejected.reason == 2  # RFC 7143 section 11.17.1
    assert disk.calls == []
    assert talk.why == "a data digest is wrong"


def test_errors_of_late_writes_become_sense():
    late = LateDisk()
    late.errors["write"] = errno.ENOSPC
    late.go.set()
    with Talk({0: late}) as talk:
        talk.command(Code.WRITE_10, 3, 1, data=b"w" * 512)
        assert talk.hear().status == 2


def test_who_speaks_for_a_connection_that_is_broken_goes_on():
    """As whoever resets a unit, or says goodbye to all: its trouble is that connection's own."""
    broken = Conversation([])

    def refuse(octets):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    broken.wire.sendall = refuse
    assert broken.loop.tell(lambda session: session.announce(iscsi.AsyncEvent.SESSION_DROPPED), seconds=1.0)
    with pytest.raises(BrokenPipeError):
        broken.run()
