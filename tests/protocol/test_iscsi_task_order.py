"""Actions under way together: what may overtake what, in which order they end, and what an abort waits for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panloom.protocol.iscsi_keys import SessionParameters
from panloom.protocol.iscsi_session import IscsiSession
from panloom.protocol.iscsi_task import Write
from panloom.protocol.iscsi_task_set import Attribute
from panloom.protocol.scsi_disk import LogicalUnits, Read
from panloom.protocol.scsi_pages import Disk
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import (
    DataOut,
    LogoutRequest,
    ReadyToTransfer,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskManagementRequest,
    TaskManagementResponse,
)
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.iscsi_peer import LINUX, split
from support.units import tell

ORDERED, HEAD_OF_QUEUE = Attribute.ORDERED, Attribute.HEAD_OF_QUEUE
BLOCKS = 64


class Medium:
    """A session whose actions wait until they are told to be done, against two units in memory."""

    def __init__(self, parameters=LINUX, blocks=BLOCKS):
        disk = Disk(blocks=blocks, read_only=False, identity=bytes(8), serial="1", product="memory")
        units = LogicalUnits({0: disk, 1: disk})
        tell(units)
        self.session = IscsiSession(parameters, cid=1, exp_cmd_sn=1, stat_sn=1, units=units)
        self.octets = bytearray(blocks * 512)
        self.taken = []
        self.tag = 0

    def say(self, pdu):
        self.session.receive(pdu)
        return self.take()

    def take(self):
        """Take what is to be done, without doing it; return the tags."""
        begun = [self.session.actions.popleft() for _ in range(len(self.session.actions))]
        self.taken += begun
        return [action.task.initiator_task_tag for action in begun]

    def command(self, operation, lba, blocks, *, attribute=1, lun=0, data=b"", flags=None, immediate=False, tag=None):
        self.tag += 1
        cdb = BlockCommand(operation, 0, lba, blocks)
        writes = iscsi.WRITE if operation == Operation.WRITE_10 else iscsi.READ
        return self.say(ScsiCommand(
            flags=(iscsi.FINAL | writes if flags is None else flags) | attribute, lun=iscsi.lun_field(lun),
            initiator_task_tag=self.tag if tag is None else tag, expected_data_transfer_length=blocks * 512,
            cmd_sn=self.session.numbers.exp_cmd_sn, cdb=scsi_cdb.encode(cdb), data=data, immediate=immediate,
        ))  # fmt: skip

    def write(self, lba, blocks=1, **fields):
        return self.command(
            Operation.WRITE_10, lba, blocks, **{"data": b"%c" % (self.tag + 65) * 512 * blocks, **fields}
        )

    def read(self, lba, blocks=1, **fields):
        return self.command(Operation.READ_10, lba, blocks, **fields)

    def sync(self):
        return self.command(Operation.SYNCHRONIZE_CACHE_10, 0, 0, flags=iscsi.FINAL)

    def manage(self, function, *, of=iscsi.NO_TAG, lun=0, **fields):
        return self.say(TaskManagementRequest(
            flags=iscsi.FINAL | function, lun=iscsi.lun_field(lun), initiator_task_tag=0x900, referenced_task_tag=of,
            cmd_sn=self.session.numbers.exp_cmd_sn, **fields,
        ))  # fmt: skip

    def perform(self, index=0, sense=None):
        """Do one of those that were taken; return the tags of those that this lets go on."""
        action = self.taken.pop(index)
        if isinstance(action.deed, Write) and sense is None:
            self.octets[action.deed.offset : action.deed.offset + len(action.deed.data)] = action.deed.data
        if isinstance(action.deed, Read):
            action.task.data_in_pdus = 1
        self.session.performed(action, sense)
        return self.take()

    def answers(self):
        said = split(b"".join(self.session.output))
        self.session.output.clear()
        return said

    def ended(self):
        """Return the tags that were answered, in order."""
        return [answer.initiator_task_tag for answer in self.answers() if not isinstance(answer, ReadyToTransfer)]


def test_simple_commands_run_together_and_end_in_any_order():
    medium = Medium()
    assert [medium.write(0), medium.write(8), medium.read(16), medium.sync()] == [[1], [2], [3], []]
    medium.perform(1)
    assert medium.perform(0) == [4]  # a flush waits for the writes before it
    medium.perform(1)
    medium.perform(0)
    assert medium.ended() == [2, 1, 4]  # the read's end went out with its data
    assert len(medium.session._tasks) == 0


@pytest.mark.parametrize(("first", "second", "waits"), [
    ("write", "write", True), ("write", "read", True), ("read", "write", True), ("read", "read", False),
])  # fmt: skip
def test_what_overlaps_keeps_its_order_where_either_writes(first, second, waits):
    medium = Medium()
    assert getattr(medium, first)(8, 4) == [1]
    assert getattr(medium, second)(11, 4) == ([] if waits else [2])
    assert getattr(medium, second)(20, 1) == [3]
    assert medium.perform() == ([2] if waits else [])


def test_units_do_not_wait_for_each_other():
    medium = Medium()
    assert [medium.write(0), medium.write(0, lun=1), medium.write(0, attribute=ORDERED, lun=1)] == [[1], [2], []]


def test_an_ordered_command_waits_for_all_before_it_and_holds_up_all_behind_it():
    medium = Medium()
    assert [medium.read(0), medium.write(8), medium.read(16, attribute=ORDERED), medium.read(24)] == [[1], [2], [], []]
    assert medium.perform(1) == []
    assert medium.perform(0) == [3]
    assert medium.perform() == [4]


def test_head_of_queue_goes_past_those_that_wait():
    medium = Medium()
    medium.write(0)
    assert medium.write(8, attribute=ORDERED) == []
    assert medium.write(8, attribute=HEAD_OF_QUEUE) == [3]
    assert medium.read(24) == []
    assert medium.perform(1) == []
    assert medium.perform(0) == [2]
    assert medium.perform() == [4]


def test_data_that_comes_for_a_waiting_write_is_kept():
    medium = Medium()
    medium.write(0, 4)
    assert medium.write(2, 3, data=b"p" * 512, flags=iscsi.WRITE) == []
    data = bytearray(b"q" * 1024)
    assert medium.say(DataOut(initiator_task_tag=2, buffer_offset=512, data=memoryview(data))) == []
    data[:] = bytes(1024)  # the buffer is used again
    assert medium.perform() == [2, 2]
    medium.perform(1)
    medium.perform(0)
    assert medium.ended() == [1, 2]
    assert medium.octets[:2560] == b"A" * 1024 + b"p" * 512 + b"q" * 1024


def test_what_waits_for_others_has_a_bound():
    medium = Medium()
    medium.write(0, attribute=ORDERED)
    for _ in range(40):
        medium.write(0, 512, data=b"x" * 262144)
    refused = medium.answers()
    assert {answer.status for answer in refused} == {0x28}
    assert [answer.initiator_task_tag for answer in refused] == list(range(33, 42))


def test_parameters_that_touch_what_is_under_way_wait():
    medium = Medium()
    medium.write(8, 4)
    unmap = scsi_cdb.encode_unmap_list(((9, 1),))
    command = {
        "flags": iscsi.FINAL | iscsi.WRITE,
        "initiator_task_tag": 50,
        "cdb": scsi_cdb.encode(scsi_cdb.Unmap(0, 24)),
    }
    medium.say(ScsiCommand(cmd_sn=2, data=unmap, expected_data_transfer_length=24, **command))
    assert medium.taken[1:] == []
    assert medium.read(20) == [2]
    assert medium.read(9) == []
    assert medium.perform() == [50]
    assert medium.perform(1) == [3]


def test_a_failed_write_is_answered_when_nothing_of_it_is_under_way():
    medium = Medium()
    medium.write(0, 2, data=b"x" * 512, flags=iscsi.WRITE)
    medium.say(DataOut(initiator_task_tag=1, buffer_offset=512, data=b"y" * 512))
    medium.perform(0, scsi_sense.WRITE_FAILED)
    assert medium.ended() == []
    medium.perform()
    (answer,) = medium.answers()
    assert scsi_sense.decode(answer.data[2:]) == scsi_sense.WRITE_FAILED


def test_several_bursts_are_asked_for_at_once():
    medium = Medium(SessionParameters(True, False, 8192, 1024, 512, max_outstanding_r2t=2))
    medium.write(0, 8, data=b"")
    assert [each.buffer_offset for each in medium.answers()] == [0, 1024]
    for number, offset in enumerate(range(0, 4096, 1024)):
        ttt = number + 1
        medium.say(DataOut(initiator_task_tag=1, target_transfer_tag=ttt, buffer_offset=offset, data=b"w" * 1024))
        expected = [offset + 2048] if offset < 2048 else []
        assert [each.buffer_offset for each in medium.answers()] == expected
    for _ in range(4):
        medium.perform()
    (answer,) = medium.answers()
    assert (answer.status, answer.exp_data_sn) == (0, 4)
    assert medium.octets[:4096] == b"w" * 4096


def test_no_more_data_is_asked_for_than_there_is_room():
    """A slow medium holds up the initiators that write to it, and does not fill our memory with their data."""
    medium = Medium(SessionParameters(True, False, 8192, 16 << 20, 512, max_outstanding_r2t=8), blocks=1 << 18)
    for number in range(4):
        medium.write(number << 15, 1 << 15, data=b"")  # 16 MiB each
    first, second = medium.answers()
    for r2t in (first, second):
        data = bytes(r2t.desired_data_transfer_length)
        medium.say(DataOut(
            initiator_task_tag=r2t.initiator_task_tag, target_transfer_tag=r2t.target_transfer_tag, data=data
        ))  # fmt: skip
    assert medium.answers() == []  # all of it is on its way to the medium
    medium.perform()
    done, third = medium.answers()
    assert (done.initiator_task_tag, third.initiator_task_tag) == (1, 3)
    medium.manage(1, of=3)  # what was asked for will not come any more
    assert [answer.initiator_task_tag for answer in medium.answers()] == [0x900, 4]


def test_bursts_come_in_the_order_in_which_they_were_asked_for():
    medium = Medium(SessionParameters(True, False, 8192, 1024, 512, max_outstanding_r2t=2))
    medium.write(0, 4, data=b"")
    medium.say(DataOut(initiator_task_tag=1, target_transfer_tag=2, buffer_offset=1024, data=b"w" * 1024))
    answer = medium.answers()[-1]
    assert scsi_sense.decode(answer.data[2:]) == scsi_sense.UNEXPECTED_UNSOLICITED_DATA


@pytest.mark.parametrize("function", [1, 2, 4, 5, 6])
def test_an_abort_is_answered_when_nothing_of_its_tasks_is_under_way(function):
    medium = Medium()
    medium.write(0)
    medium.write(0)  # waits for the first
    medium.write(8)
    medium.manage(function, of=1)
    others = [2, 3] if function == 1 else []
    assert medium.ended() == []
    assert medium.perform(0) == ([2] if function == 1 else [])
    assert medium.ended() == ([0x900] if function == 1 else [])
    while medium.taken:
        medium.perform()
    assert sorted(medium.ended()) == (others if function == 1 else [0x900])
    assert medium.octets[:512] == (b"B" if function == 1 else b"A") * 512


def test_an_action_that_nobody_has_taken_is_taken_back():
    medium = Medium()
    medium.session.receive(ScsiCommand(
        flags=iscsi.FINAL | iscsi.WRITE, initiator_task_tag=1, expected_data_transfer_length=512, cmd_sn=1,
        cdb=scsi_cdb.encode(BlockCommand(Operation.WRITE_10, 0, 0, 1)), data=b"x" * 512,
    ))  # fmt: skip
    assert len(medium.session.actions) == 1
    medium.manage(1, of=1)
    assert medium.taken == []
    assert medium.ended() == [0x900]


def test_plain_commands_are_asked_about_only_while_a_task_is_under_way():
    medium = Medium()
    assert medium.session.quiet
    medium.write(0)
    assert not medium.session.quiet
    medium.perform()
    assert medium.session.quiet


def test_another_session_aborts_the_tasks_of_a_unit():
    medium = Medium()
    medium.write(0)
    medium.write(0)  # waits
    medium.read(0, lun=1)
    medium.session.abort_unit(0)
    assert (medium.session.is_quiet(0), medium.session.is_quiet(1)) == (False, True)
    assert medium.write(0) == []  # ends in a unit attention
    assert medium.ended() == [4]
    assert medium.write(0) == []  # not before the aborted one has ended
    assert medium.perform(0) == [5]
    assert medium.session.is_quiet(0)
    while medium.taken:
        medium.perform()
    assert medium.ended() == [5]
    assert medium.octets[:512] == b"E" * 512


def test_what_has_not_begun_when_the_connection_ends_never_begins():
    medium = Medium()
    medium.write(0)
    medium.write(0)  # waits
    medium.write(8, 2, data=b"x" * 512, flags=iscsi.WRITE)  # its last data is not there
    medium.session.abandon()
    while medium.taken:
        assert medium.perform() == []
    assert medium.say(DataOut(initiator_task_tag=3, buffer_offset=512, data=b"y" * 512)) == []
    assert (medium.ended(), len(medium.session._tasks)) == ([], 0)


def test_two_functions_wait_for_the_same_task():
    medium = Medium()
    medium.write(0)
    medium.manage(1, of=1)
    medium.manage(5)
    assert medium.ended() == []
    medium.perform()
    assert medium.ended() == [0x900, 0x900]


def test_functions_that_wait_have_a_bound():
    medium = Medium()
    medium.write(0)
    for _ in range(70):
        medium.manage(1, of=1)
    assert [(type(answer), answer.reason) for answer in medium.answers()] == [(Reject, 6)] * 6
    medium.perform()
    assert [(type(answer), answer.response) for answer in medium.answers()] == [(TaskManagementResponse, 0)] * 64
    medium.manage(1, of=1)
    assert [answer.response for answer in medium.answers()] == [1]


def test_a_logout_is_answered_when_nothing_is_under_way():
    medium = Medium()
    medium.write(0)
    medium.say(LogoutRequest(initiator_task_tag=5, cmd_sn=2))
    assert medium.write(8) == []  # nothing is taken any more
    assert (medium.ended(), medium.session.closing) == ([], None)
    medium.perform()
    assert (medium.ended(), medium.session.closing) == ([5], "logout")


def test_a_command_that_the_caller_began_is_ordered_like_any_other():
    medium = Medium()
    action = medium.session.adopt(0, 77, Write(0, b"x" * 512))
    assert medium.session.must_see(1, iscsi.lun_field(0), reading=True)
    assert not medium.session.must_see(1, iscsi.lun_field(1), reading=False)
    assert medium.read(0) == []
    medium.session.performed(action, None)
    assert medium.take() == [1]
    (answer,) = medium.answers()
    assert (type(answer), answer.initiator_task_tag, answer.status) == (ScsiResponse, 77, 0)


def test_a_read_that_the_caller_began_holds_up_no_other_read():
    medium = Medium()
    session, unit = medium.session, iscsi.lun_field(0)
    action = session.adopt(0, 77, Read(0, 512, flush=False))
    assert not session.must_see(1, unit, reading=True)
    assert session.must_see(1, unit, reading=False)
    assert session.must_see(77, unit, reading=True)
    assert medium.read(4) == [1]
    assert session.must_see(2, unit, reading=True)
    medium.perform()
    assert not session.must_see(2, unit, reading=True)
    session.performed(action, None)
    assert session.quiet


OPERATIONS = st.tuples(st.sampled_from(["read", "write"]), st.integers(0, 12), st.integers(1, 4),
                       st.sampled_from([1, 1, 1, 2, 3]))  # fmt: skip


@given(st.lists(OPERATIONS, min_size=1, max_size=12), st.data())
def test_any_order_of_ends_leaves_the_medium_as_one_after_the_other_would(said, data):
    """Whatever runs together: what was written last stays, ORDERED is a barrier, and nothing waits for ever."""
    medium, alone = Medium(), bytearray(BLOCKS * 512)
    begun = []
    for number, (kind, lba, blocks, attribute) in enumerate(said, 1):
        attribute = 1 if attribute == HEAD_OF_QUEUE else attribute
        begun.append(getattr(medium, kind)(lba, blocks, attribute=attribute))
        if kind == "write":
            alone[lba * 512 : (lba + blocks) * 512] = b"%c" % (number + 64) * 512 * blocks
        while medium.taken and data.draw(st.booleans()):
            medium.perform(data.draw(st.integers(0, len(medium.taken) - 1)))
    while medium.taken:
        medium.perform(data.draw(st.integers(0, len(medium.taken) - 1)))
    assert medium.octets == alone
    assert len(medium.session._tasks) == 0
    assert set(itertools.chain(*begun)) <= set(range(1, len(said) + 1))
