"""What one session's resets do to the tasks of others: nothing of theirs is written after the answer."""

import socket
import threading

import pytest

from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, DataIn, ScsiResponse
from panloom.wire.scsi_cdb import Operation
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.initiator import Initiator, connect
from support.waiting import until

NAMES = {"InitiatorName": str(INITIATOR), "TargetName": str(TARGET), "SessionType": "Normal"}
ABORT_TASK_SET, CLEAR_TASK_SET, UNIT_RESET, WARM_RESET, COLD_RESET = 2, 4, 5, 6, 7


class Held:
    """A disk whose writes wait until they are let go."""

    def __init__(self, disk):
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self._write, disk.write = disk.write, self.write

    def write(self, offset, data):
        self.begun.release()
        assert self.go_on.wait(10)
        self._write(offset, data)


@pytest.fixture
def manager(tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", 2048, late=True)})


@pytest.fixture
def sessions(manager):
    with serving(manager) as portal, Initiator(connect(portal), NAMES) as one, Initiator(connect(portal), NAMES) as two:
        yield one.log_in(), two.log_in(isid=bytes(6))


def manage(initiator, function):
    initiator.send(
        iscsi.TaskManagementRequest(flags=FINAL | function, initiator_task_tag=0x900, cmd_sn=initiator.cmd_sn)
    )


def answer_of(initiator):
    """Return the next answer that is no ping."""
    while isinstance(answer := initiator.receive(), iscsi.NopIn):
        pass
    return answer


def is_silent(initiator):
    """Whether nothing but pings comes for a moment."""
    initiator.sock.settimeout(0.05)
    try:
        return initiator.sock.recv(1, socket.MSG_PEEK)[0] == iscsi.NopIn.OPCODE
    except TimeoutError:
        return True
    finally:
        initiator.sock.settimeout(10)


def await_abort(manager):
    """Return when tasks of a session have been aborted by another's function, which may wait for them still."""
    (unit,) = manager.transport.units._units.values()
    until(lambda: any(scsi_sense.COMMANDS_CLEARED in nexus.attentions for nexus in unit.nexuses), "tasks are aborted")


def attentions(initiator):
    """Return what the initiator is told until its unit is ready."""
    told = []
    while True:
        initiator.command(scsi_cdb.Plain(Operation.TEST_UNIT_READY))
        answer = answer_of(initiator)
        if answer.status == 0:
            return told
        told.append(scsi_sense.decode(answer.data[2:]))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (CLEAR_TASK_SET, [scsi_sense.COMMANDS_CLEARED]),
        (UNIT_RESET, [scsi_sense.UNIT_RESET, scsi_sense.COMMANDS_CLEARED]),
        (WARM_RESET, [scsi_sense.UNIT_RESET, scsi_sense.COMMANDS_CLEARED]),
    ],
)
def test_the_answer_waits_for_what_others_have_under_way(manager, sessions, function, told):
    one, two = sessions
    held = Held(manager.disks[0])
    two.send_write(0, b"x" * 512)
    assert held.begun.acquire(timeout=10)
    manage(one, function)
    await_abort(manager)
    assert is_silent(one)
    held.go_on.set()
    assert answer_of(one).response == 0
    content = manager.disks[0].content(0, 512)
    assert content == b"x" * 512  # it was under way, and has ended before the answer
    assert attentions(two) == told  # and no status of the write itself
    assert isinstance(two.read(0, 1), DataIn)


def test_what_has_not_begun_is_never_written(manager, sessions):
    one, two = sessions
    held = Held(manager.disks[0])
    two.send_write(0, b"x" * 512)
    two.send_write(0, b"y" * 512)  # waits for the first: they overlap
    assert held.begun.acquire(timeout=10)
    manage(one, UNIT_RESET)
    await_abort(manager)
    assert is_silent(one)
    held.go_on.set()
    assert answer_of(one).response == 0
    assert len(attentions(two)) == 2
    assert manager.disks[0].content(0, 512) == b"x" * 512


def test_abort_task_set_leaves_others_alone(manager, sessions):
    one, two = sessions
    held = Held(manager.disks[0])
    two.send_write(0, b"x" * 512)
    assert held.begun.acquire(timeout=10)
    manage(one, ABORT_TASK_SET)
    assert answer_of(one).response == 0
    held.go_on.set()
    answer = answer_of(two)
    assert (type(answer), answer.status) == (ScsiResponse, 0)


def test_two_sessions_reset_each_other_at_once(manager, sessions):
    held = Held(manager.disks[0])
    for number, initiator in enumerate(sessions):
        initiator.send_write(number * 8, b"x" * 512)
        assert held.begun.acquire(timeout=10)
    for initiator in sessions:
        manage(initiator, UNIT_RESET)
    held.go_on.set()
    for initiator in sessions:
        while not isinstance(answer := initiator.receive(), iscsi.TaskManagementResponse):
            pass
        assert answer.response == 0


def test_a_cold_reset_waits_as_well_and_ends_all(manager, sessions):
    one, two = sessions
    held = Held(manager.disks[0])
    two.send_write(0, b"x" * 512)
    assert held.begun.acquire(timeout=10)
    manage(one, COLD_RESET)
    await_abort(manager)
    assert is_silent(one)
    held.go_on.set()
    assert (answer_of(one).response, answer_of(one), answer_of(two)) == (0, None, None)
    until(lambda: manager.connections == {}, "both are gone")
