"""Sessions that end without a word: what they held is free for whoever saw them end."""

import socket
import struct
import threading
from dataclasses import replace

import pytest

from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, LogoutRequest, LogoutResponse, NopIn
from panloom.wire.scsi_cdb import Operation
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.initiator import Initiator, connect
from support.waiting import until

NAMES = {"InitiatorName": str(INITIATOR), "TargetName": str(TARGET), "SessionType": "Normal"}
READY, RESERVE = scsi_cdb.Plain(Operation.TEST_UNIT_READY), scsi_cdb.Plain(Operation.RESERVE_6)
PREVENT, EJECT = scsi_cdb.PreventAllowMediumRemoval(1), scsi_cdb.StartStopUnit(0, 2)
GOOD, CONFLICT = 0x00, 0x18
ISID = bytes(6)


@pytest.fixture
def disk(tmp_path):
    return FileDisk(tmp_path / "disk", 2048)


@pytest.fixture
def manager(disk):
    return FileManager({0: disk})


@pytest.fixture
def sessions(manager):
    with serving(manager) as portal, Initiator(connect(portal), NAMES) as one, Initiator(connect(portal), NAMES) as two:
        yield one.log_in(), two.log_in(isid=ISID)


def reset(initiator):
    """End a connection by a reset instead of an orderly close."""
    initiator.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    initiator.sock.close()


@pytest.mark.parametrize("end", [lambda initiator: initiator.sock.close(), reset])
def test_what_is_asked_after_a_session_was_closed_finds_its_reservation_gone(manager, disk, sessions, end):
    """The thread of the closed one stands still in its last WRITE, so that it cannot have seen the end."""
    one, two = sessions
    assert one.ask(RESERVE).status == GOOD
    assert two.ask(READY).status == CONFLICT
    begun, go_on = threading.Event(), threading.Event()
    write = disk.write

    def held(offset, data):
        begun.set()
        assert go_on.wait(10)
        write(offset, data)

    disk.write = held
    one.send_write(0, b"x" * 512)
    assert begun.wait(10)
    end(one)
    connection = next(each for each in manager.connections.values() if each.facts.isid == ISID)
    before = connection.facts.last_heard_at
    two.command(READY)
    until(lambda: connection.facts.last_heard_at > before, "the command is there")
    go_on.set()
    while isinstance(answer := two.receive(), NopIn):
        two.answer(answer)
    assert answer.status == GOOD
    assert disk.content(0, 512) == b"x" * 512  # what it had asked for came first


def test_a_reservation_stands_as_long_as_its_session(sessions):
    one, two = sessions
    assert one.ask(RESERVE).status == GOOD
    assert {two.ask(READY).status for _ in range(20)} == {CONFLICT}
    assert one.ask(READY).status == GOOD


def test_one_session_after_the_other_reserves_the_unit_and_vanishes(sessions, manager):
    _, two = sessions
    portal = ":".join(map(str, two.sock.getpeername()))
    for number in range(1, 50):
        with Initiator(connect(portal), NAMES) as holder:
            holder.log_in(isid=number.to_bytes(6, "big"))
            assert holder.ask(RESERVE).status == GOOD
        assert two.ask(RESERVE).status == GOOD
        assert two.ask(scsi_cdb.Plain(Operation.RELEASE_6)).status == GOOD
    until(lambda: len(manager.connections) == 2, "the others are gone")


def test_after_a_logout_is_answered_nothing_of_the_session_is_left(sessions):
    one, two = sessions
    assert one.ask(RESERVE).status == GOOD
    one.send(LogoutRequest(flags=FINAL, initiator_task_tag=9, cmd_sn=one.cmd_sn))
    while isinstance(answer := one.receive(), NopIn):
        one.answer(answer)
    assert isinstance(answer, LogoutResponse)
    assert two.ask(READY).status == GOOD


def test_removal_is_no_longer_prevented_by_a_session_that_was_closed(tmp_path):
    disk = FileDisk(tmp_path / "disk", 2048)
    disk.descriptor = replace(disk.descriptor, removable=True)
    with serving(FileManager({0: disk})) as portal, Initiator(connect(portal), NAMES) as two:
        two.log_in()
        for number in range(1, 20):
            with Initiator(connect(portal), NAMES) as one:
                one.log_in(isid=number.to_bytes(6, "big"))
                assert one.ask(PREVENT).status == GOOD
                refused = two.ask(EJECT)
                assert scsi_sense.decode(refused.data[2:]) == scsi_sense.REMOVAL_PREVENTED
            assert two.ask(EJECT).status == GOOD
            assert two.ask(scsi_cdb.StartStopUnit(0, 3)).status == GOOD


def test_a_session_that_is_closed_and_does_not_end_is_waited_for_once(manager, disk, sessions):
    """Its last WRITE hangs; whoever meets its reservation shuts it down, and meets it again."""
    one, two = sessions
    assert one.ask(RESERVE).status == GOOD
    assert two.ask(READY).status == CONFLICT
    begun, go_on = threading.Event(), threading.Event()
    write = disk.write

    def held(offset, data):
        begun.set()
        assert go_on.wait(60)
        write(offset, data)

    disk.write = held
    one.send_write(0, b"x" * 512)
    assert begun.wait(10)
    one.sock.shutdown(socket.SHUT_WR)
    connection = next(each for each in manager.connections.values() if each.facts.isid != ISID)
    try:
        assert two.ask(READY).status == CONFLICT
        assert connection.ending == "closed, and in another session's way"
        assert {two.ask(READY).status for _ in range(20)} == {CONFLICT}
    finally:
        go_on.set()
    until(lambda: two.ask(READY).status == GOOD, "the reservation is gone")


def test_only_what_is_refused_waits_for_a_session_that_is_closed(manager, sessions):
    one, two = sessions
    assert one.ask(RESERVE).status == GOOD
    assert two.ask(READY).status == CONFLICT
    waited = []
    connection = next(each for each in manager.connections.values() if each.facts.isid != ISID)
    for nexus in connection._units.nexuses.values():
        nexus.settle = lambda: waited.append(1)
    assert two.ask(scsi_cdb.Inquiry(0, 0, 36)).status == GOOD
    assert waited == []
    assert two.ask(READY).status == CONFLICT
    assert waited == [1]
