"""Full feature phase at a target that says what the test tells it to: windows, bursts, pings, aborts, and lies."""

import pytest

from panloom.errors import MalformedError, PeerError, RefusedError
from panloom.protocol.iscsi_initiator_connection import InitiatorConnection, State, Timing
from panloom.protocol.iscsi_initiator_keys import Agreed
from panloom.protocol.iscsi_initiator_task import Command, CommandLostError, Outcome, Task
from panloom.wire import iscsi, scsi_sense
from panloom.wire.iscsi import FINAL, NO_TAG, DataIn, DataOut, NopIn, ReadyToTransfer, ScsiCommand, ScsiResponse
from support.iscsi_peer import split

NUMBERS = {"stat_sn": 5, "exp_cmd_sn": 1, "max_cmd_sn": 128}
SMALL = Agreed(
    initial_r2t=False, max_send_octets=1000, max_burst_length=4000, first_burst_length=2500, max_outstanding_r2t=4
)


class Peer:
    """A connection, its clock, and the answers that a target gives."""

    def __init__(self, agreed=SMALL, *, cmd_sn=1, max_cmd_sn=128):
        self.now = 100.0
        self.stat_sn = 5
        self.exp_cmd_sn, self.max_cmd_sn = cmd_sn, max_cmd_sn
        self.connection = InitiatorConnection(
            agreed, Timing(), cmd_sn=cmd_sn, exp_stat_sn=5, max_cmd_sn=max_cmd_sn, now=self.now
        )
        self.tasks = 0

    def start(self, **options):
        """Start a command; return its task and the PDUs that go out."""
        self.tasks += 1
        task = Task(self.tasks, Command(0, b"\x88" + bytes(15), **options))
        self.connection.start(task, self.now)
        return task, self.sent()

    def sent(self):
        parts = []
        while (pdu := self.connection.taken()) is not None:
            parts += pdu
        return split(b"".join(parts))

    def say(self, kind, *, counts=None, **fields):
        """Give the connection a PDU; ``counts``: it uses up a StatSN."""
        if counts is None:
            counts = kind not in (DataIn, ReadyToTransfer) or bool(fields.get("flags", 0) & iscsi.DATA_IN_STATUS)
        numbers = {"stat_sn": self.stat_sn, "exp_cmd_sn": self.exp_cmd_sn, "max_cmd_sn": self.max_cmd_sn}
        self.connection.receive(kind(**{**numbers, **fields}), self.now)
        self.stat_sn = (self.stat_sn + counts) & 0xFFFFFFFF
        return self.sent()

    def pass_time(self, seconds):
        self.now += seconds
        self.connection.handle_timer(self.now)
        return self.sent()

    @property
    def outcomes(self):
        return [outcome for _, outcome in self.connection.finished]


def test_a_write_goes_out_in_all_its_parts():
    peer = Peer()
    data = bytes(range(256)) * 40  # 10,240 octets
    task, (command, *unasked) = peer.start(data_out=data)
    assert (command.flags, command.expected_data_transfer_length) == (iscsi.WRITE | 1, len(data))  # F follows later
    assert command.data == data[:1000]
    assert [(pdu.buffer_offset, len(pdu.data), pdu.data_sn, pdu.flags, pdu.target_transfer_tag) for pdu in unasked] == [
        (1000, 1000, 0, 0, NO_TAG),
        (2000, 500, 1, FINAL, NO_TAG),
    ]
    ask = {"initiator_task_tag": task.tag}
    first = peer.say(
        ReadyToTransfer, **ask, target_transfer_tag=7, r2t_sn=0, buffer_offset=2500, desired_data_transfer_length=4000
    )
    second = peer.say(
        ReadyToTransfer, **ask, target_transfer_tag=8, r2t_sn=1, buffer_offset=6500, desired_data_transfer_length=3740
    )
    assert [(pdu.target_transfer_tag, pdu.data_sn, pdu.flags) for pdu in first + second] == [
        *[(7, 0, 0), (7, 1, 0), (7, 2, 0), (7, 3, FINAL)],
        *[(8, 0, 0), (8, 1, 0), (8, 2, 0), (8, 3, FINAL)],
    ]
    assert b"".join(bytes(pdu.data) for pdu in [command, *unasked, *first, *second]) == data
    peer.say(ScsiResponse, **ask)
    assert peer.outcomes == [Outcome(0)]


@pytest.mark.parametrize(
    ("initial_r2t", "immediate_data", "immediate", "unasked"),
    [(True, False, 0, 0), (True, True, 1000, 0), (False, False, 0, 2500), (False, True, 1000, 1500)],
)
def test_what_goes_out_without_being_asked_for(initial_r2t, immediate_data, immediate, unasked):
    agreed = Agreed(
        initial_r2t=initial_r2t, immediate_data=immediate_data, max_send_octets=1000, first_burst_length=2500
    )
    peer = Peer(agreed)
    task, (command, *data) = peer.start(data_out=bytes(3000))
    assert len(command.data) == immediate
    assert sum(len(pdu.data) for pdu in data) == unasked
    assert bool(command.flags & FINAL) == (not unasked)
    peer.say(
        ReadyToTransfer, initiator_task_tag=task.tag, target_transfer_tag=1, r2t_sn=0,
        buffer_offset=immediate + unasked, desired_data_transfer_length=3000 - immediate - unasked,
    )  # fmt: skip


def test_data_in_with_status_and_residual():
    peer = Peer()
    task, _ = peer.start(data_in_octets=3000)
    tag = {"initiator_task_tag": task.tag}
    peer.say(DataIn, flags=0, **tag, data_sn=0, buffer_offset=0, data=b"a" * 1000)
    peer.say(
        DataIn, flags=FINAL | iscsi.DATA_IN_STATUS | iscsi.UNDERFLOW, **tag, data_sn=1, buffer_offset=1000,
        data=b"b" * 500, residual_count=1500,
    )  # fmt: skip
    assert peer.outcomes == [Outcome(0, None, b"a" * 1000 + b"b" * 500, 1500)]


def test_sense_and_overflow():
    peer = Peer()
    task, _ = peer.start(data_in_octets=8)
    sense = scsi_sense.encode(scsi_sense.LBA_OUT_OF_RANGE)
    data = len(sense).to_bytes(2, "big") + sense
    peer.say(
        ScsiResponse, flags=FINAL | iscsi.OVERFLOW, status=2, initiator_task_tag=task.tag, residual_count=24, data=data
    )
    assert peer.outcomes == [Outcome(2, scsi_sense.LBA_OUT_OF_RANGE, b"", -24)]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x12", b"\xff\xff\x70", b"\0\x08\x99" + bytes(20)])
def test_sense_that_cannot_be_read_is_left_out(data):
    peer = Peer()
    task, _ = peer.start()
    peer.say(ScsiResponse, status=2, initiator_task_tag=task.tag, data=data)
    assert peer.outcomes == [Outcome(2)]


def test_the_window_holds_commands_back_even_where_numbers_wrap():
    peer = Peer(cmd_sn=0xFFFFFFFE, max_cmd_sn=0xFFFFFFFF)
    tasks, sent = [], []
    for _ in range(5):
        task, pdus = peer.start()
        tasks.append(task)
        sent += pdus
    assert [pdu.cmd_sn for pdu in sent] == [0xFFFFFFFE, 0xFFFFFFFF]
    peer.exp_cmd_sn, peer.max_cmd_sn = 0, 1
    sent = peer.say(ScsiResponse, initiator_task_tag=tasks[0].tag)
    assert [pdu.cmd_sn for pdu in sent] == [0, 1]
    peer.max_cmd_sn = 0  # a window never closes behind what was said
    assert peer.say(ScsiResponse, initiator_task_tag=tasks[1].tag) == []
    peer.exp_cmd_sn, peer.max_cmd_sn = 2, 1  # closed
    assert peer.say(ScsiResponse, initiator_task_tag=tasks[2].tag) == []
    peer.max_cmd_sn = 2
    assert [pdu.cmd_sn for pdu in peer.say(NopIn, counts=False)] == [2]
    peer.exp_cmd_sn, peer.max_cmd_sn = 9, 7  # MaxCmdSN two behind ExpCmdSN: to be ignored
    peer.say(ScsiResponse, initiator_task_tag=tasks[3].tag)


def test_the_targets_ping_is_echoed():
    peer = Peer()
    (answer,) = peer.say(NopIn, counts=False, lun=3 << 48, target_transfer_tag=77, data=b"who is there?")
    assert (answer.initiator_task_tag, answer.target_transfer_tag, answer.lun) == (NO_TAG, 77, 3 << 48)
    assert answer.immediate
    assert answer.data == b"who is there?"
    assert peer.say(NopIn, counts=False) == []  # it only tells numbers


def test_pings_without_end_are_refused():
    connection = Peer().connection
    with pytest.raises(RefusedError, match="faster than it takes the answers"):
        for _ in range(65):
            connection.receive(NopIn(target_transfer_tag=1, **NUMBERS), 100.0)


def test_a_silent_target_is_asked_and_given_up():
    peer = Peer()
    assert peer.pass_time(4.9) == []
    (ping,) = peer.pass_time(0.1)
    assert ping.initiator_task_tag != NO_TAG
    assert (ping.target_transfer_tag, ping.immediate) == (NO_TAG, True)
    peer.now += 1
    peer.say(NopIn, initiator_task_tag=ping.initiator_task_tag)
    (ping,) = peer.pass_time(5)
    with pytest.raises(PeerError, match="no answer to a ping in 5 s"):
        peer.pass_time(5)


def test_a_command_without_an_answer_is_aborted_while_the_target_lives():
    peer = Peer()
    task, _ = peer.start(data_in_octets=512)
    for _ in range(11):
        peer.now += 5
        peer.say(NopIn, counts=False)
    (abort,) = peer.pass_time(5)[:1]
    assert (abort.flags, abort.referenced_task_tag, abort.ref_cmd_sn) == (FINAL | 1, task.tag, 1)
    assert [str(outcome) for outcome in peer.outcomes] == ["no answer in 60 s; the command was aborted"]
    peer.say(DataIn, flags=0, initiator_task_tag=task.tag, data_sn=0, buffer_offset=0, data=bytes(512))
    peer.say(iscsi.TaskManagementResponse, response=0, initiator_task_tag=abort.initiator_task_tag)
    with pytest.raises(MalformedError, match="not under way"):
        peer.say(ScsiResponse, initiator_task_tag=task.tag)


def test_a_cancelled_command_is_aborted_and_its_answer_means_nothing():
    peer = Peer()
    task, _ = peer.start(data_out=bytes(9000))
    peer.connection.cancel(task, peer.now)
    (abort,) = peer.sent()
    data = peer.say(
        ReadyToTransfer, initiator_task_tag=task.tag, target_transfer_tag=1, r2t_sn=0, buffer_offset=2500,
        desired_data_transfer_length=1000,
    )  # fmt: skip
    assert [type(pdu) for pdu in data] == [DataOut]  # what has been asked for before the abort is still owed
    peer.say(ScsiResponse, initiator_task_tag=task.tag)
    peer.say(iscsi.TaskManagementResponse, response=1, initiator_task_tag=abort.initiator_task_tag)
    assert peer.outcomes == []


def test_a_waiting_command_is_cancelled_without_a_word():
    peer = Peer(max_cmd_sn=0)
    task, sent = peer.start()
    peer.connection.cancel(task, peer.now)
    assert sent == peer.sent() == []
    assert peer.connection.idle


def test_an_abort_that_is_refused_or_not_answered_breaks_the_connection():
    for response in (None, 5):
        peer = Peer()
        task, _ = peer.start()
        peer.connection.cancel(task, peer.now)
        (abort,) = peer.sent()
        with pytest.raises(PeerError, match="abort"):
            if response is None:
                peer.pass_time(5)
            else:
                peer.say(iscsi.TaskManagementResponse, response=response, initiator_task_tag=abort.initiator_task_tag)


@pytest.mark.parametrize("response", [0, 2])
def test_a_reset(response):
    peer = Peer()
    peer.start()
    peer.connection.reset_unit(0, 9, peer.now)
    (reset,) = peer.sent()
    assert (reset.flags, reset.lun) == (FINAL | 5, 0)
    peer.say(iscsi.TaskManagementResponse, response=response, initiator_task_tag=reset.initiator_task_tag)
    ((number, error),) = peer.connection.managed
    assert number == 9
    assert (error is None) == (response == 0) == bool(peer.outcomes)


def test_a_rejected_command_fails_alone():
    peer = Peer()
    task, (command,) = peer.start()
    peer.say(iscsi.Reject, reason=4, data=iscsi.encode(command)[:48])
    assert [str(outcome) for outcome in peer.outcomes] == ["the target rejects the command (reason 04)"]
    peer.say(ScsiResponse, initiator_task_tag=task.tag)  # some targets answer it as well
    with pytest.raises(MalformedError, match="not under way"):
        peer.say(ScsiResponse, initiator_task_tag=task.tag)


def test_a_target_that_rejects_pings_is_there():
    peer = Peer()
    (ping,) = peer.pass_time(5)
    peer.say(iscsi.Reject, reason=5, data=iscsi.encode(ping)[:48])
    assert len(peer.pass_time(5)) == 1


@pytest.mark.parametrize(("reason", "data"), [(2, bytes(48)), (4, b""), (4, b"\x06" + bytes(47))])
def test_other_rejects_break_the_connection(reason, data):
    with pytest.raises(RefusedError, match="rejects"):
        Peer().say(iscsi.Reject, reason=reason, data=data)


def test_the_target_wants_a_logout():
    for event in (1, 4):
        peer = Peer()
        peer.start()
        (logout,) = peer.say(iscsi.AsyncMessage, async_event=event, parameter3=3)
        assert isinstance(logout, iscsi.LogoutRequest)
        assert peer.connection.wants_logout
        assert peer.start()[1] == []
        peer.say(iscsi.LogoutResponse, initiator_task_tag=logout.initiator_task_tag)
        assert peer.connection.state is State.LOGGED_OUT
        assert len(peer.connection.unanswered()) == 2


def test_the_target_drops_the_connection_and_says_when_to_come_back():
    peer = Peer()
    with pytest.raises(CommandLostError, match="drops the connection"):
        peer.say(iscsi.AsyncMessage, async_event=2, parameter2=7)
    assert peer.connection.time2wait_seconds == 7


def test_other_events_are_noted():
    peer = Peer()
    peer.say(iscsi.AsyncMessage, async_event=0, async_vcode=1, lun=1 << 48)
    assert peer.connection.notes == ["the target tells event 0, code 1, of LUN field 0x1000000000000"]


def test_a_logout_without_an_answer():
    peer = Peer()
    peer.connection.log_out(peer.now)
    with pytest.raises(CommandLostError, match="logout"):
        peer.pass_time(5)


def test_a_command_that_the_target_could_not_complete():
    peer = Peer()
    task, _ = peer.start()
    peer.say(ScsiResponse, response=1, initiator_task_tag=task.tag)
    assert [str(outcome) for outcome in peer.outcomes] == ["the target could not carry the command out (response 01)"]


def test_text_in_several_parts():
    peer = Peer()
    peer.connection.ask(b"SendTargets=All\0")
    (question,) = peer.sent()
    tag = {"initiator_task_tag": question.initiator_task_tag}
    (more,) = peer.say(iscsi.TextResponse, flags=iscsi.CONTINUE, **tag, target_transfer_tag=4, data=b"TargetName=iqn")
    assert (more.target_transfer_tag, more.data) == (4, b"")
    peer.say(iscsi.TextResponse, **tag, data=b".2026-11.a\0")
    assert peer.connection.text == b"TargetName=iqn.2026-11.a\0"


READ, WRITE = {"data_in_octets": 1000}, {"data_out": bytes(9000)}
R2T = {"target_transfer_tag": 1, "r2t_sn": 0, "buffer_offset": 2500, "desired_data_transfer_length": 100}


@pytest.mark.parametrize(
    ("command", "kind", "lie"),
    [
        (READ, DataIn, {"data_sn": 1}),
        (READ, DataIn, {"buffer_offset": 512}),
        (READ, DataIn, {"data": bytes(1001)}),
        (READ, DataIn, {"flags": FINAL | iscsi.DATA_IN_STATUS, "stat_sn": 6}),
        (READ, DataIn, {"initiator_task_tag": 99}),
        (READ, ReadyToTransfer, R2T),
        (WRITE, DataIn, {"data": b"x"}),
        (WRITE, ReadyToTransfer, {**R2T, "r2t_sn": 1}),
        (WRITE, ReadyToTransfer, {**R2T, "buffer_offset": 0}),
        (WRITE, ReadyToTransfer, {**R2T, "buffer_offset": 5000}),
        (WRITE, ReadyToTransfer, {**R2T, "desired_data_transfer_length": 0}),
        (WRITE, ReadyToTransfer, {**R2T, "desired_data_transfer_length": 4001}),
        (WRITE, ReadyToTransfer, {**R2T, "target_transfer_tag": NO_TAG}),
        (WRITE, ReadyToTransfer, {**R2T, "initiator_task_tag": 99}),
        (READ, ScsiResponse, {"initiator_task_tag": 99}),
        (READ, ScsiResponse, {"stat_sn": 4}),
        (READ, ScsiResponse, {"exp_cmd_sn": 3}),
        (READ, NopIn, {"initiator_task_tag": 99}),
        (READ, iscsi.TaskManagementResponse, {"response": 0, "initiator_task_tag": 99}),
        (READ, iscsi.TextResponse, {"initiator_task_tag": 99}),
        (READ, iscsi.LogoutResponse, {"initiator_task_tag": 99}),
    ],
)
def test_a_lie_breaks_the_connection(command, kind, lie):
    peer = Peer()
    task, _ = peer.start(**command)
    fields = {"data_sn": 0, "buffer_offset": 0} if kind is DataIn else {}
    with pytest.raises(MalformedError):
        peer.say(kind, **{"initiator_task_tag": task.tag, **fields, **lie})


def test_what_no_target_may_send():
    peer = Peer()
    with pytest.raises(MalformedError, match="ScsiCommand in full feature phase"):
        peer.connection.receive(ScsiCommand(initiator_task_tag=1, cmd_sn=1, cdb=bytes(16)), peer.now)
