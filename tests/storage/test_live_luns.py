"""LUNs that come and go under live sessions, over sockets: who is told what, and what becomes of commands."""

import threading
from dataclasses import replace

import pytest

from panloom.storage import iscsi_connection
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, READ, WRITE, DataIn, NopIn, ReadyToTransfer, ScsiResponse
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.initiator import FIRMWARE_ISID, Initiator, connect
from support.waiting import until

NAMES = {"InitiatorName": str(INITIATOR), "TargetName": str(TARGET), "SessionType": "Normal"}
READY, RESERVE = scsi_cdb.Plain(Operation.TEST_UNIT_READY), scsi_cdb.Plain(Operation.RESERVE_6)
GOOD, CONFLICT = 0x00, 0x18
READ_ONE = BlockCommand(Operation.READ_10, 0, 0, 1)


@pytest.fixture
def disks(tmp_path):
    found = [FileDisk(tmp_path / f"disk{lun}", 2048, late=lun == 2) for lun in range(3)]
    for lun, disk in enumerate(found):
        disk.descriptor = replace(disk.descriptor, identity=bytes([0x30, 0, 0, 0, 0, 0, 0, lun + 1]))
    return found


@pytest.fixture
def manager(disks):
    return FileManager({0: disks[0]})


@pytest.fixture
def initiator(manager):
    with serving(manager) as portal, Initiator(connect(portal), NAMES) as initiator:
        yield initiator.log_in()


@pytest.fixture
def connection(manager, initiator):
    (connection,) = manager.connections.values()
    return connection


def sense_of(answer):
    return scsi_sense.decode(answer.data[2:])


def luns(initiator):
    octets = initiator.ask(scsi_cdb.ReportLuns(0, 64), flags=FINAL | READ, expected=64).data
    return [octet for at in range(8, 8 + int.from_bytes(octets[:4], "big"), 8) for octet in octets[at + 1 : at + 2]]


def receive(initiator):
    while isinstance(answer := initiator.receive(), NopIn):
        initiator.answer(answer)
    return answer


def test_a_session_is_told_of_a_lun_more_and_uses_it(initiator, connection, disks):
    assert initiator.write(0, b"a" * 512).status == GOOD
    connection.appeared(1, disks[1].descriptor)
    plain = initiator.ask(READ_ONE, flags=FINAL | READ, expected=512)  # the loop alone would answer that
    assert sense_of(plain) == scsi_sense.REPORTED_LUNS_CHANGED
    assert luns(initiator) == [0, 1]
    assert sense_of(initiator.ask(READY, lun=1)) == scsi_sense.POWER_ON
    data = {"flags": FINAL | WRITE, "expected": 512, "data": b"b" * 512, "lun": 1}
    assert initiator.ask(BlockCommand(Operation.WRITE_10, 0, 8, 1), **data).status == GOOD
    assert disks[1].content(8 * 512, 512) == b"b" * 512
    assert disks[0].content(0, 512) == b"a" * 512
    read = initiator.ask(BlockCommand(Operation.READ_10, 0, 8, 1), flags=FINAL | READ, expected=512, lun=1)
    assert (type(read), read.data) == (DataIn, b"b" * 512)
    assert initiator.ask(READY).status == GOOD


def test_report_luns_alone_is_enough_to_be_told(initiator, connection, disks):
    connection.appeared(1, disks[1].descriptor)
    assert luns(initiator) == [0, 1]
    assert initiator.ask(READY).status == GOOD


def test_a_lun_that_is_gone_is_none_and_the_session_goes_on(initiator, connection, disks):
    connection.appeared(1, disks[1].descriptor)
    assert luns(initiator) == [0, 1]
    connection.vanished(1)
    disks[1].fenced = True
    data = {"flags": FINAL | WRITE, "expected": 512, "data": b"b" * 512, "lun": 1}
    assert sense_of(initiator.ask(BlockCommand(Operation.WRITE_10, 0, 0, 1), **data)) == scsi_sense.NO_SUCH_UNIT
    assert sense_of(initiator.ask(READY, lun=1)) == scsi_sense.NO_SUCH_UNIT
    assert sense_of(initiator.ask(READY)) == scsi_sense.REPORTED_LUNS_CHANGED
    assert luns(initiator) == [0]
    connection.resized(1, 1 << 20)
    assert initiator.ask(READY).status == GOOD
    assert disks[1].calls == []


def test_what_waits_for_its_initiator_fails_when_its_lun_goes(initiator, connection, disks):
    connection.appeared(1, disks[1].descriptor)
    assert luns(initiator) == [0, 1]
    initiator.ask(READY, lun=1)
    initiator.command(BlockCommand(Operation.WRITE_10, 0, 0, 8), flags=FINAL | WRITE, expected=4096, lun=1)
    asked = receive(initiator)
    assert isinstance(asked, ReadyToTransfer)
    connection.vanished(1)
    assert sense_of(receive(initiator)) == scsi_sense.NO_SUCH_UNIT
    tags = {
        "initiator_task_tag": asked.initiator_task_tag,
        "target_transfer_tag": asked.target_transfer_tag,
    }
    initiator.send(iscsi.DataOut(flags=FINAL, lun=asked.lun, data=b"c" * 4096, **tags))
    assert sense_of(initiator.ask(READY)) == scsi_sense.REPORTED_LUNS_CHANGED
    assert disks[1].calls == []


def test_what_is_under_way_ends_before_its_lun_is_gone(initiator, connection, disks, monkeypatch):
    monkeypatch.setattr(iscsi_connection, "VANISH_SECONDS", 10.0)
    connection.appeared(2, disks[2].descriptor)
    assert luns(initiator) == [0, 2]
    initiator.ask(READY, lun=2)
    begun, go_on, write = threading.Event(), threading.Event(), disks[2].write

    def held(offset, data):
        begun.set()
        assert go_on.wait(10)
        write(offset, data)

    disks[2].write = held
    data = {"flags": FINAL | WRITE, "expected": 512, "data": b"d" * 512, "lun": 2}
    initiator.command(BlockCommand(Operation.WRITE_10, 0, 0, 1), **data)
    assert begun.wait(10)
    written = []

    def go():
        connection.vanished(2)
        written.append(disks[2].content(0, 512))

    going = threading.Thread(target=go)
    going.start()
    until(lambda: initiator.ask(READY, lun=2).status != GOOD, "the LUN is gone")
    go_on.set()
    going.join()
    assert written == [b"d" * 512]
    answer = receive(initiator)
    assert (type(answer), answer.status) == (ScsiResponse, GOOD)


def test_a_reservation_goes_with_the_lun(initiator, connection, disks, manager):
    portal = ":".join(map(str, initiator.sock.getpeername()))
    connection.appeared(1, disks[1].descriptor)
    assert luns(initiator) == [0, 1]
    initiator.ask(READY, lun=1)
    assert initiator.ask(RESERVE, lun=1).status == GOOD
    manager.disks[1] = disks[1]
    with Initiator(connect(portal), NAMES) as other:
        other.log_in(isid=FIRMWARE_ISID)
        assert sense_of(other.ask(READY, lun=1)) == scsi_sense.POWER_ON
        assert other.ask(READY, lun=1).status == CONFLICT
        connection.vanished(1)
        assert other.ask(READY, lun=1).status == GOOD  # and nobody told this one of LUNs: its own are as they were


def test_luns_that_come_and_go_before_the_first_command_count(manager, disks):
    with serving(manager) as portal, Initiator(connect(portal), NAMES) as initiator:
        initiator.log_in_plainly()
        (connection,) = manager.connections.values()
        connection.appeared(1, disks[1].descriptor)
        connection.vanished(0)
        assert sense_of(initiator.ask(READY)) == scsi_sense.NO_SUCH_UNIT
        assert luns(initiator) == [1]
        assert sense_of(initiator.ask(READY, lun=1)) == scsi_sense.POWER_ON
        assert initiator.ask(READY, lun=1).status == GOOD
