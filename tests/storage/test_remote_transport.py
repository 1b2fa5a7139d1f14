"""The Remote Transport over real sockets and a real file: logins, take-over, fences, and peers that behave badly."""

import contextlib
import errno
import logging
import os
import socket
import threading

import pytest

from panloom.errors import UnavailableError
from panloom.protocol.chap import Credentials
from panloom.storage import iscsi_connection, remote_transport
from panloom.storage.remote_transport import RemoteTransport
from panloom.wire import iscsi, scsi_cdb, scsi_sense
from panloom.wire.iscsi import FINAL, DataIn, NopIn, Reject, ScsiResponse
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.initiator import LINUX_ISID, Initiator, connect
from support.waiting import until

NAMES = {"InitiatorName": str(INITIATOR), "TargetName": str(TARGET), "SessionType": "Normal"}
WEB1 = Credentials("web1", "secret-of-web1")


def initiator_at(portal):
    """Return an initiator connected to a portal."""
    return Initiator(connect(portal), NAMES)


@pytest.fixture
def manager(tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", 2048)})


@pytest.fixture
def portal(manager):
    with serving(manager) as portal:
        yield portal


def still_serves(portal):
    with initiator_at(portal).log_in() as initiator:
        assert isinstance(initiator.read(0, 1), DataIn)


def test_a_session_from_login_to_its_end(manager, portal):
    with initiator_at(portal).log_in() as initiator:
        assert initiator.write(5, b"x" * 1024).status == 0
        assert initiator.read(5, 2).data == b"x" * 1024
        (connection,) = manager.connections.values()
        facts = connection.facts
        assert (facts.initiator, facts.target, facts.kind, facts.isid) == (INITIATOR, TARGET, "kernel", LINUX_ISID)
        assert (facts.reads, facts.writes, facts.read_octets, facts.written_octets) == (1, 1, 1024, 1024)
        assert facts.login_at <= facts.first_read_at <= facts.last_heard_at + 1
        assert manager.first_reads == ["s1"]
        assert manager.disks[0].content(5 * 512, 1024) == b"x" * 1024
    until(lambda: manager.ended == [("s1", "closed")], "the end is told")


def test_fua_and_synchronize_cache_flush(manager, portal):
    with initiator_at(portal).log_in() as initiator:
        initiator.write(0, b"x" * 512, scsi_cdb.FUA)
        initiator.command(BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0))
        assert initiator.receive().status == 0
    assert [call for call, _, _ in manager.disks[0].calls] == ["write", "flush", "flush"]


def test_a_silent_kernel_is_pinged_and_not_dropped(manager, portal):
    with initiator_at(portal).log_in() as initiator:
        ping = initiator.receive()
        assert isinstance(ping, NopIn)
        (connection,) = manager.connections.values()
        assert not connection.facts.answers_nop
        initiator.answer(ping)
        until(lambda: connection.facts.answers_nop, "the answer is noted")
        assert isinstance(initiator.receive(), NopIn)
        assert initiator.read(0, 1).data == bytes(512)


def test_firmware_is_not_pinged(manager, portal):
    with initiator_at(portal) as initiator:
        initiator.login(FINAL | 1, {**NAMES, "AuthMethod": "None"}, isid=bytes.fromhex("400027230001"))
        initiator.login(FINAL | 7, {"InitialR2T": "Yes", "ImmediateData": "No"}, isid=bytes.fromhex("400027230001"))
        (connection,) = manager.connections.values()
        assert connection.facts.kind == "firmware"
        initiator.sock.settimeout(3 * iscsi_connection.PING_SECONDS)
        with pytest.raises(TimeoutError):
            initiator.sock.recv(1)


def test_chap(manager, portal):
    manager.wanted = WEB1
    for secret, status in (("secret-of-web1", (0, 0)), ("guessed", (2, 1))):
        with initiator_at(portal) as initiator:
            assert initiator.log_in_with("web1", secret) == status
    until(lambda: manager.refusals == ["the CHAP response is wrong"], "the refusal is told")


def test_no_challenge_comes_twice(manager, portal):
    manager.wanted = WEB1
    challenges = set()
    for _ in range(40):
        with initiator_at(portal) as initiator:
            initiator.login(FINAL | 1, {**NAMES, "AuthMethod": "CHAP"})
            challenges.add(initiator.login(FINAL | 1, {"CHAP_A": "5"})[1]["CHAP_C"])
    assert len(challenges) == 40
    assert all(len(challenge) >= 2 + 32 for challenge in challenges)


def test_challenges_come_from_the_operating_systems_generator(manager, portal, monkeypatch):
    manager.wanted, taken, generator = WEB1, [], os.urandom

    def note(octets):
        taken.append(generator(octets))
        return taken[-1]

    monkeypatch.setattr(os, "urandom", note)
    with initiator_at(portal) as initiator:
        initiator.login(FINAL | 1, {**NAMES, "AuthMethod": "CHAP"})
        challenge = initiator.login(FINAL | 1, {"CHAP_A": "5"})[1]["CHAP_C"]
    assert bytes.fromhex(challenge.removeprefix("0x")) in taken


def test_who_is_not_known_is_refused(manager, portal):
    manager.initiator = INITIATOR
    with initiator_at(portal) as initiator:
        assert initiator.login(FINAL | 7, {**NAMES, "InitiatorName": "iqn.2026-11.dev.panloom:node.n9"})[0] == (2, 2)
        assert initiator.receive() is None
    with initiator_at(portal) as initiator:
        assert initiator.login(FINAL | 7, {**NAMES, "TargetName": str(TARGET) + "x"})[0] == (2, 2)
    still_serves(portal)
    until(lambda: manager.refusals == ["not allowed here"] * 2, "both refusals are told")


def targets(initiator):
    initiator.send(iscsi.TextRequest(initiator_task_tag=9, cmd_sn=1, immediate=True, data=b"SendTargets=All\0"))
    return initiator.receive().data


@pytest.mark.parametrize(("known", "wanted", "listed"), [(True, Credentials(), True), (False, Credentials(), False),
                                                         (True, WEB1, False)])  # fmt: skip
def test_discovery_lists_what_one_could_log_in_to(manager, portal, known, wanted, listed):
    manager.initiator, manager.wanted = INITIATOR, wanted
    name = str(INITIATOR) if known else "iqn.2026-11.dev.panloom:node.n9"
    with initiator_at(portal) as initiator:
        status, _ = initiator.login(FINAL | 7, {"InitiatorName": name, "SessionType": "Discovery"})
        assert status == (0, 0)
        assert (str(TARGET).encode() in targets(initiator)) == listed
    assert manager.connections == {}


def test_a_machine_that_boots_again_takes_over(manager, portal):
    manager.initiator = INITIATOR
    with (
        initiator_at(portal).log_in() as stale,
        initiator_at(portal).log_in(isid=bytes.fromhex("800000000001")) as fresh,
    ):
        assert stale.receive() is None
        until(lambda: manager.ended == [("s1", "closed")], "the old session is gone")
        assert isinstance(fresh.read(0, 1), DataIn)


def test_a_fenced_write_is_neither_written_nor_answered(manager, portal):
    with initiator_at(portal).log_in() as initiator:
        manager.disks[0].fenced = True
        assert initiator.write(0, b"x" * 512) is None
    until(lambda: manager.ended == [("s1", "epoch 1 is fenced off")], "the session ends")
    assert manager.disks[0].content(0, 512) == bytes(512)


@pytest.mark.parametrize(
    ("error", "sense"), [(errno.ENOSPC, scsi_sense.NO_SPACE), (errno.EIO, scsi_sense.WRITE_FAILED)]
)
def test_a_disk_in_trouble_is_a_clean_error(manager, portal, error, sense):
    with initiator_at(portal).log_in() as initiator:
        assert initiator.write(0, b"a" * 512, scsi_cdb.FUA).status == 0
        manager.disks[0].error = error
        answer = initiator.write(0, b"b" * 512)
        assert isinstance(answer, ScsiResponse)
        assert scsi_sense.decode(answer.data[2:]) == sense
        assert scsi_sense.decode(initiator.read(0, 1).data[2:]) == scsi_sense.UNRECOVERED_READ
        manager.disks[0].error = None
        assert initiator.read(0, 1).data == b"a" * 512


def test_a_fault_of_ours_ends_one_connection(manager, portal, caplog):
    with initiator_at(portal).log_in() as other, initiator_at(portal).log_in() as initiator:
        initiator.command(BlockCommand(Operation.READ_10, 0, 0, 1), flags=FINAL | iscsi.READ, expected=512)
        initiator.receive()
        connection = manager.connections["s2"]
        broken = manager.disks[0].calls
        manager.disks[0].calls = None  # the next call fails with an AttributeError
        assert initiator.write(0, b"x" * 512) is None
        manager.disks[0].calls = broken
        assert isinstance(other.read(0, 1), DataIn)
        assert connection.facts.writes == 0
    assert sum("event=fault" in record.getMessage() for record in caplog.records) == 1


BAD_BEGINNINGS = {
    "nothing": b"",
    "half a header": b"\x43\x87\0\0",
    "a command": bytes([0x01, 0x80]).ljust(48, b"\0"),
    "unknown opcode": bytes([0x0F]).ljust(48, b"\0"),
    "an endless segment": bytes([0x43, 0x87, 0, 0, 0, 0xFF, 0xFF, 0xFF]).ljust(48, b"\0"),
    "an additional header": bytes([0x43, 0x87, 0, 0, 0xFF, 0, 0, 0]).ljust(48 + 255 * 4, b"\0"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: 192.0.2.1:3260\r\nUser-Agent: curious\r\n\r\n",
}


@pytest.mark.parametrize("octets", BAD_BEGINNINGS.values(), ids=BAD_BEGINNINGS.keys())
def test_a_bad_beginning_is_one_log_line_and_a_close(manager, portal, octets, caplog):
    caplog.set_level(logging.INFO)
    with initiator_at(portal).log_in() as good:
        with initiator_at(portal) as bad:
            bad.sock.sendall(octets)
            with contextlib.suppress(OSError):  # the target may have closed the connection by now
                bad.sock.shutdown(socket.SHUT_WR)
            assert bad.receive() is None
        until(lambda: len(manager.refusals) == 1, "the refusal is told")
        (refused,) = until(lambda: logged(caplog, "event=refused"), "it is logged")
        assert isinstance(good.read(0, 1), DataIn)
    assert refused.exc_info is None
    assert refused.levelno == logging.INFO
    assert logged(caplog, "event=refused") == [refused]


def logged(caplog, text):
    return [record for record in caplog.records if text in record.getMessage()]


def test_half_open_logins_disturb_nobody(manager, portal, monkeypatch):
    monkeypatch.setattr(remote_transport, "MAX_WITHOUT_DISK", 20)
    idlers = [initiator_at(portal) for _ in range(40)]
    until(lambda: len(manager.refusals) == 20, "the oldest had to go")
    still_serves(portal)  # though it has their address
    for idler in idlers:
        idler.sock.close()
    until(lambda: len(manager.refusals) == 40, "the others end with their peers")
    assert manager.refusals.count("makes room for a newer one") == 21


def discovering(portal):
    """Return an initiator in a discovery session: it has proved nothing."""
    initiator = Initiator(connect(portal), {"InitiatorName": str(INITIATOR), "SessionType": "Discovery"})
    status, _ = initiator.login(FINAL | 7, initiator.names)
    assert status == (0, 0)
    return initiator


def test_an_address_has_no_end_of_discoveries_and_its_disks_are_not_counted(manager, portal, monkeypatch):
    monkeypatch.setattr(remote_transport, "MAX_WITHOUT_DISK", 3)
    with initiator_at(portal).log_in() as disk, initiator_at(portal).log_in(isid=bytes(6)):
        discoveries = [discovering(portal) for _ in range(3)]
        with initiator_at(portal).log_in():
            assert discoveries[0].receive() is None
        assert isinstance(disk.read(0, 1), DataIn)
        for discovery in discoveries:
            discovery.sock.close()


def test_a_silent_discovery_is_ended_and_a_silent_disk_is_not(manager, portal, monkeypatch):
    monkeypatch.setattr(iscsi_connection, "DISCOVERY_SECONDS", 0.1)
    with initiator_at(portal).log_in() as silent, discovering(portal) as discovery:
        assert discovery.receive() is None
        assert isinstance(silent.receive(), NopIn)


def test_a_host_without_another_thread_turns_one_away_and_goes_on(portal, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with initiator_at(portal) as unlucky:
            assert unlucky.receive() is None
    still_serves(portal)


def no_thread(_):
    raise RuntimeError("can't start new thread")


def test_a_login_that_dawdles_is_ended(manager, portal, monkeypatch):
    monkeypatch.setattr(iscsi_connection, "LOGIN_SECONDS", 0.2)
    with initiator_at(portal) as slow:
        slow.sock.sendall(b"\x43")
        assert slow.receive() is None
    until(lambda: manager.refusals == ["the login took too long"], "the refusal is told")


def test_a_bad_pdu_after_the_login_ends_that_session_alone(manager, portal):
    with initiator_at(portal).log_in() as good, initiator_at(portal).log_in() as bad:
        bad.sock.sendall(bytes([0x01, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF]).ljust(48, b"\0"))
        assert isinstance(bad.receive(), Reject)
        assert bad.receive() is None
        assert isinstance(good.read(0, 1), DataIn)


def test_sessions_write_side_by_side(manager, portal):
    def fill(number):
        with initiator_at(portal).log_in() as initiator:
            for lba in range(number, 64, 4):
                assert initiator.write(lba, bytes([number + 1]) * 512).status == 0

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert manager.disks[0].content(0, 64 * 512) == b"".join(bytes([lba % 4 + 1]) * 512 for lba in range(64))


def test_stopping_ends_every_thread(manager):
    with serving(manager) as portal:
        initiators = [initiator_at(portal).log_in() for _ in range(3)] + [initiator_at(portal)]
    assert manager.connections == {}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("iscsi-")]
    for initiator in initiators:
        while isinstance(initiator.receive(), iscsi.AsyncMessage):  # to those who had logged in
            pass
        initiator.sock.close()


def test_who_stops_says_goodbye(manager):
    with serving(manager) as portal:
        silent = initiator_at(portal).log_in()
        awake = initiator_at(portal).log_in(isid=bytes(6))
        ping = awake.receive()
        awake.answer(ping)
        until(lambda: any(each.facts.answers_nop for each in manager.connections.values()), "one shows that it listens")
        heard = []

        def leave():
            while not isinstance(asked := awake.receive(), iscsi.AsyncMessage):
                awake.answer(asked)
            heard.append((asked.async_event, asked.parameter3))
            awake.send(iscsi.LogoutRequest(initiator_task_tag=9, cmd_sn=awake.cmd_sn))
            heard.append(type(awake.receive()))

        leaving = threading.Thread(target=leave)
        leaving.start()
    leaving.join()
    assert heard == [(1, 2), iscsi.LogoutResponse]
    while isinstance(told := silent.receive(), NopIn):
        pass
    assert (told.async_event, silent.receive()) == (3, None)
    assert ("s2", "logout") in manager.ended
    silent.sock.close()
    awake.sock.close()


def test_a_cold_reset_ends_every_connection_to_the_target(manager, portal):
    with initiator_at(portal).log_in() as one, initiator_at(portal).log_in(isid=bytes(6)) as two:
        one.send(iscsi.TaskManagementRequest(flags=FINAL | 7, initiator_task_tag=9, cmd_sn=one.cmd_sn))
        assert (one.receive().response, one.receive(), two.receive()) == (0, None, None)
    still_serves(portal)


def test_a_portal_that_is_taken(manager):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        transport = RemoteTransport((("127.0.0.1", 0), taken.getsockname()[:2]), manager)
        with pytest.raises(UnavailableError, match="cannot listen"):
            transport.start()
        assert transport.addresses == ()
