"""Logins over sockets: who replaces whom and when, where else a target is, and how it proves itself."""

import asyncio
import threading

import pytest

from panloom.errors import RefusedError
from panloom.initiator.session import Session
from panloom.protocol.chap import Credentials
from panloom.storage.exports import Moved
from panloom.wire import iscsi
from panloom.wire.iscsi import FINAL, DataIn, LoginRequest
from panloom.wire.iscsi_text import decode_pairs, encode_text
from support.file_target import INITIATOR, TARGET, FileDisk, FileManager, serving
from support.initiator import LINUX_ISID, Initiator, connect
from support.waiting import until

NAMES = {"InitiatorName": str(INITIATOR), "TargetName": str(TARGET), "SessionType": "Normal"}
MUTUAL = Credentials("web1", "secret-of-web1", "target", "secret-of-target")
TO_FULL = FINAL | 7


@pytest.fixture
def manager(tmp_path):
    return FileManager({0: FileDisk(tmp_path / "disk", 2048)})


@pytest.fixture
def portal(manager):
    with serving(manager) as portal:
        yield portal


def initiator_at(portal):
    return Initiator(connect(portal), NAMES)


def log_in(initiator, **fields):
    """Log in by one request with these fields; return the answer."""
    initiator.send(LoginRequest(**{
        "flags": TO_FULL, "isid": LINUX_ISID, "initiator_task_tag": 1, "cmd_sn": initiator.cmd_sn,
        "data": encode_text(list(NAMES.items())), **fields,
    }))  # fmt: skip
    return initiator.receive()


# -- who replaces whom ---------------------------------------------------------------------------------------------


def test_a_connection_may_come_back_into_its_session(manager, portal):
    """RFC 7143 section 6.3.4: the same ISID, TSIH and CID; the connection before is over."""
    manager.initiator = INITIATOR
    with initiator_at(portal) as before, initiator_at(portal) as after:
        tsih = log_in(before, cid=3).tsih
        before.ready()
        answer = log_in(after, cid=3, tsih=tsih, cmd_sn=before.cmd_sn)
        assert ((answer.status_class, answer.status_detail), answer.tsih) == ((0, 0), tsih)
        assert before.receive() is None
        after.cmd_sn = before.cmd_sn
        after.ready()
        assert isinstance(after.read(0, 1), DataIn)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"cid": 4}, (2, 6)),
        ({"tsih": 7}, (2, 10)),
        ({"isid": bytes(6)}, (2, 10)),
        ({"data": encode_text([*{**NAMES, "InitiatorName": f"{INITIATOR}x"}.items()])}, (2, 10)),
    ],
    ids=["another connection", "another session", "another ISID", "another initiator"],
)
def test_no_other_connection_gets_into_a_session(manager, portal, fields, status):
    with initiator_at(portal) as owner, initiator_at(portal) as other:
        tsih = log_in(owner, cid=3).tsih
        answer = log_in(other, **{"cid": 3, "tsih": tsih, **fields})
        assert (answer.status_class, answer.status_detail) == status
        assert other.receive() is None
        owner.ready()
        assert isinstance(owner.read(0, 1), DataIn)


def test_a_login_is_answered_when_nothing_of_the_session_before_is_under_way(manager, portal):
    """No octet of a session that was replaced lands after its successor is in."""
    manager.initiator = INITIATOR
    disk, holding, go_on = manager.disks[0], threading.Event(), threading.Event()
    write = disk.write

    def hold(offset, data):
        holding.set()
        go_on.wait(10)
        write(offset, data)

    disk.write = hold
    with initiator_at(portal).log_in() as before, initiator_at(portal) as after:
        before.send_write(0, b"old!" * 128)
        assert holding.wait(10)
        after.send(LoginRequest(
            flags=TO_FULL, isid=LINUX_ISID, initiator_task_tag=1, cmd_sn=1, data=encode_text(list(NAMES.items()))
        ))  # fmt: skip
        until(lambda: len(manager.connections) == 2, "the new session is being let in")
        assert before.receive() is None
        after.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            after.sock.recv(1)
        after.sock.settimeout(10)
        go_on.set()
        assert after.receive().status_class == 0
        after.ready()
        assert after.read(0, 1).data == b"old!" * 128


def test_two_sessions_of_one_initiator_stand_side_by_side(manager, portal):
    with initiator_at(portal).log_in() as one, initiator_at(portal).log_in(isid=bytes(5) + b"\2") as two:
        assert one.write(0, b"x" * 512).status == 0
        assert two.read(0, 1).data == b"x" * 512


# -- where a target is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("permanent", "status"), [(False, (1, 1)), (True, (1, 2))])
def test_a_target_that_has_moved(manager, portal, permanent, status):
    manager.elsewhere = Moved("192.0.2.9:3260", permanent)
    with initiator_at(portal) as initiator:
        answer = log_in(initiator)
        assert (answer.status_class, answer.status_detail) == status
        assert decode_pairs(answer.data) == [("TargetAddress", "192.0.2.9:3260,1")]
        assert initiator.receive() is None
    assert manager.connections == {}


def test_our_initiator_goes_where_the_target_has_moved(manager, portal, tmp_path):
    there = FileManager({0: FileDisk(tmp_path / "there", 64)})
    with serving(there) as elsewhere:
        manager.elsewhere = Moved(elsewhere)
        asyncio.run(open_and_close(portal))
        until(lambda: len(there.ended) == 1, "the session was there")
    assert manager.connections == {}


def test_strangers_do_not_hear_where_a_target_has_gone(manager, portal):
    manager.initiator, manager.elsewhere = INITIATOR, Moved("192.0.2.9:3260")
    with initiator_at(portal) as stranger:
        answer = log_in(stranger, data=encode_text([*{**NAMES, "InitiatorName": "iqn.2026-11.x:y"}.items()]))
        assert (answer.status_class, answer.status_detail, bytes(answer.data)) == (2, 2, b"")


def test_discovery_tells_every_portal(manager):
    more = ("127.0.0.2", 0), ("0.0.0.0", 0), ("::1", 0)
    with serving(manager, *more) as portal, initiator_at(portal) as initiator:
        initiator.login(TO_FULL, {"InitiatorName": str(INITIATOR), "SessionType": "Discovery"})
        initiator.send(iscsi.TextRequest(initiator_task_tag=9, cmd_sn=1, immediate=True, data=b"SendTargets=All\0"))
        name, *portals = decode_pairs(initiator.receive().data)
    assert name == ("TargetName", str(TARGET))
    hosts = [address.rpartition(":")[0] for key, address in portals if key == "TargetAddress"]
    assert hosts == ["127.0.0.1", "127.0.0.2", "127.0.0.1", "[::1]"]
    assert all(address.endswith(",1") for _, address in portals)
    assert portals[0][1] == f"{portal},1"


# -- proof ---------------------------------------------------------------------------------------------------------


async def open_and_close(portal, **proof):
    address, port = portal.split(":")
    session = await Session.open((address, int(port)), initiator=INITIATOR, target=TARGET, **proof)
    await session.close()


def test_target_and_initiator_prove_themselves(manager, portal):
    manager.wanted = MUTUAL
    proof = {"user": "web1", "secret": "secret-of-web1", "target_user": "target", "target_secret": "secret-of-target"}
    asyncio.run(open_and_close(portal, **proof))
    asyncio.run(open_and_close(portal, user="web1", secret="secret-of-web1"))  # it need not ask us
    with pytest.raises(RefusedError, match="does not know its secret"):
        asyncio.run(open_and_close(portal, **{**proof, "target_secret": "another secret"}))


def test_no_challenge_of_another_connection_is_answered(manager, portal):
    """Else who is challenged could have us answer for him."""
    manager.wanted = MUTUAL
    with initiator_at(portal) as challenged, initiator_at(portal) as reflecting:
        challenged.login(FINAL | 1, {**NAMES, "AuthMethod": "CHAP"})
        asked = challenged.login(FINAL | 1, {"CHAP_A": "5"})[1]
        reflected = {key: asked[key] for key in ("CHAP_I", "CHAP_C")}
        assert reflecting.log_in_with("web1", "secret-of-web1", also=reflected) == (2, 1)
        with initiator_at(portal) as good:
            assert good.log_in_with("web1", "secret-of-web1", also={"CHAP_I": "1", "CHAP_C": "0x" + "55" * 16}) == (
                0,
                0,
            )
