"""Who may log in to what, and what a change of the exports ends."""

import pytest

from panloom.errors import ConfigError, ConflictError, RefusedError, UnavailableError
from panloom.storage.admitted import SILENT_SECONDS
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.descriptor import Credentials, StaleEpochError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile, Moved
from panloom.storage.portals import parse_portal
from panloom.values import Iqn
from support import blocks
from support.storage_sessions import DISK, N1, N2, TARGET, Storage, export, kinds, read, write


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path)
    storage.store.create("shop.web1", None, 1 << 20)
    yield storage
    storage.store.shut_down()


def test_who_may_log_in(storage):
    storage.manager.export(export(1, address="10.0.0.11", user="u", secret="s" * 12))
    assert storage.manager.targets_visible(N1, "10.0.0.11") == (TARGET,)
    credentials = storage.manager.credentials(N1, TARGET, "10.0.0.11")
    assert (credentials.user, credentials.secret) == ("u", "s" * 12)
    for initiator, address in ((N2, "10.0.0.11"), (N1, "10.0.0.12")):
        assert storage.manager.targets_visible(initiator, address) == ()
        assert storage.manager.credentials(initiator, TARGET, address) is None
    assert storage.manager.credentials(N1, Iqn(TARGET.name + ".x"), "10.0.0.11") is None
    storage.manager.export(export(1))
    assert storage.manager.credentials(N1, TARGET, "10.9.9.9").user is None
    with pytest.raises(RefusedError):
        storage.login(N2)


def test_a_session_reads_and_writes_its_disk(storage):
    storage.manager.export(export(1))
    _, admission = storage.login(N1)
    disk = admission.descriptors[0]
    assert (admission.epoch, disk.blocks, disk.block_octets, disk.read_only) == (1, 2048, 512, False)
    write(admission)
    blocks.flush(disk)
    assert read(admission) == b"x" * 512
    blocks.unmap(disk, 0, 512)
    assert read(admission) == bytes(512)


def test_literal_content_is_padded_and_read_only(storage):
    personality = Iqn(TARGET.name + ".personality")
    lun = ExportedLun(0, content=b"PAN='shop'\n", read_only=True)
    storage.manager.export(Export(personality.name, 1, (lun,), Access(N1.name)))
    _, admission = storage.login(N1, target=personality)
    disk = admission.descriptors[0]
    assert (disk.blocks, disk.read_only) == (1, True)
    assert read(admission) == b"PAN='shop'\n".ljust(512, b"\0")
    with pytest.raises(OSError, match="read-only"):
        write(admission)
    with pytest.raises(OSError, match="beyond"):
        blocks.read(disk, 512, bytearray(512))


def test_a_volume_exported_read_only_takes_no_writes(storage):
    storage.manager.export(
        Export(TARGET.name, 1, (ExportedLun(0, volume="shop.web1", read_only=True),), Access(N1.name))
    )
    _, admission = storage.login(N1)
    assert admission.descriptors[0].read_only
    with pytest.raises(OSError, match="read-only"):
        write(admission)


def test_a_new_login_takes_the_old_session_over(storage):
    storage.manager.export(export(1))
    old_connection, old = storage.login(N1)
    _, new = storage.login(N1)
    assert old_connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        write(old)
    write(new)
    storage.manager.gone(old.session_id, "closed")
    assert kinds(storage) == ["login", "dropped", "login"]
    assert [session.id for session in storage.manager.status().sessions] == [new.session_id]


def test_another_initiator_of_the_same_epoch_ends_the_first(storage):
    storage.manager.export(export(1))
    connection, first = storage.login(N1)
    storage.manager.export(export(1, N2))
    assert connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        write(first)


@pytest.mark.parametrize(
    "lun", [ExportedLun(0, volume="shop.web1", read_only=True), ExportedLun(0, content=b"x", read_only=True)]
)
def test_a_lun_that_becomes_another_disk_ends_the_sessions(storage, lun):
    luns = (lun,)
    storage.manager.export(export(1))
    connection, admission = storage.login(N1)
    storage.manager.export(Export(TARGET.name, 1, luns, Access(N1.name)))
    assert connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        write(admission)
    (dropped,) = [event for event in storage.events if event.event == "dropped"]
    assert dropped.why == "exported anew under epoch 1"


def test_a_session_goes_on_while_luns_come_and_go(storage):
    def exported(*luns):
        storage.manager.export(Export(TARGET.name, 1, luns, Access(N1.name)))

    more = ExportedLun(7, volume="shop.data")
    storage.store.create("shop.data", None, 1 << 20)
    exported(*DISK)
    connection, admission = storage.login(N1)
    exported(*DISK, more)
    given = connection.luns[7]
    blocks.write(given, 0, b"y" * 512)
    exported(more)
    assert connection.luns == {7: given, 0: None}
    with pytest.raises(StaleEpochError):
        write(admission)
    blocks.write(given, 0, b"z" * 512)
    assert not connection.shut.is_set()
    assert kinds(storage) == ["login"]
    exported(*DISK, more)  # what was LUN 0 may not come back unseen: it could be another disk
    assert connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        blocks.write(given, 0, b"y" * 512)


def test_a_volume_that_grows_and_other_literal_content_end_no_session(storage):
    def exported(content):
        luns = (*DISK, ExportedLun(1, content=content, read_only=True))
        storage.manager.export(Export(TARGET.name, 1, luns, Access(N1.name)))

    exported(b"before")
    connection, admission = storage.login(N1)
    storage.manager.grow_volume("shop.web1", 2 << 20)
    exported(b"before")
    exported(b"after")
    assert not connection.shut.is_set()
    write(admission)


def test_a_new_epoch_ends_the_sessions_of_the_old_one(storage):
    storage.manager.export(export(1))
    connection, _ = storage.login(N1)
    storage.manager.export(export(2))
    assert connection.shut.is_set()
    assert storage.manager.status().sessions == ()


def test_exporting_the_same_again_disturbs_nobody(storage):
    storage.manager.export(export(1))
    connection, admission = storage.login(N1)
    storage.manager.export(export(1))
    assert not connection.shut.is_set()
    write(admission)


ELSEWHERE = Moved("192.0.2.9:3260")


@pytest.mark.parametrize("luns", [DISK, ()], ids=["with its disk", "without"])
def test_a_target_that_moves_ends_its_sessions_for_as_long_as_it_is_away(storage, luns):
    storage.manager.export(export(1))
    connection, admission = storage.login(N1)
    storage.manager.export(Export(TARGET.name, 1, luns, Access(N1.name), ELSEWHERE))
    assert connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        write(admission)
    assert storage.events[-1].why == "moved to 192.0.2.9:3260"
    storage.kill()
    assert storage.manager.moved(N1, TARGET, "10.0.0.11") == ELSEWHERE
    assert storage.manager.moved(N2, TARGET, "10.0.0.11") is None
    with pytest.raises(RefusedError, match=r"has moved to 192\.0\.2\.9:3260"):
        storage.login(N1)
    storage.manager.revoke(TARGET.name, 2)
    assert storage.manager.moved(N1, TARGET, "10.0.0.11") is None
    storage.manager.export(export(2))
    write(storage.login(N1)[1])


def test_a_target_does_not_move_to_ourselves(storage):
    storage.manager.export(export(1))
    connection, admission = storage.login(N1)
    storage.manager.listens("192.0.2.1", 3260)
    for portal in ("0.0.0.0:3261", "192.0.2.9:3260"):
        storage.manager.listens(*parse_portal(portal))
    for portal in ("192.0.2.9:3260", "127.0.0.1:3261"):
        with pytest.raises(ConfigError, match="is this process itself"):
            storage.manager.export(Export(TARGET.name, 2, DISK, Access(N1.name), Moved(portal)))
    assert not connection.shut.is_set()
    write(admission)


def test_two_targets_never_write_to_one_volume(storage):
    storage.manager.export(export(1))
    for lun in (DISK[0], ExportedLun(0, volume="shop.web1", read_only=True)):
        with pytest.raises(ConflictError, match=r"shop\.web1"):
            storage.manager.export(Export(TARGET.name + ".second", 1, (lun,), None))


def test_a_volume_is_deleted_only_when_it_is_not_exported(storage):
    storage.manager.export(export(1))
    with pytest.raises(ConflictError, match="exported"):
        storage.manager.delete_volume("shop.web1")
    storage.manager.unexport(TARGET.name, 1)
    storage.manager.delete_volume("shop.web1")
    assert storage.store.facts().volumes == ()


def test_the_statistics_of_a_volume_go_with_it(storage):
    storage.manager.export(export(1))
    write(storage.login(N1)[1])
    assert [device.totals.writes for device in storage.manager.statistics().devices] == [1]
    storage.manager.unexport(TARGET.name, 1)
    storage.manager.delete_volume("shop.web1")
    storage.store.create("shop.web1", None, 1 << 20)
    storage.manager.export(export(2))
    storage.login(N1)
    assert [device.totals.writes for device in storage.manager.statistics().devices] == [0]


def test_an_export_of_what_is_not_there_exports_nothing(storage):
    with pytest.raises(UnavailableError, match="no volume nothing"):
        storage.manager.export(Export(TARGET.name, 1, (ExportedLun(0, volume="nothing"),), None))
    assert storage.manager.status().exports == ()


def test_a_damaged_volume_costs_only_its_own_target(storage):
    storage.manager.export(export(1))
    storage.store.create("other", None, 4096)
    other = Iqn(TARGET.name + ".other")
    storage.manager.export(Export(other.name, 1, (ExportedLun(0, volume="other"),), Access(N1.name)))
    (storage.directory / "volumes" / "other.volume").write_bytes(b"damaged")
    storage.kill()
    with pytest.raises(UnavailableError, match="no valid header"):
        storage.login(N1, target=other)
    write(storage.login(N1)[1])


def test_logins_that_come_to_nothing_leave_no_counters(storage):
    luns = (*DISK, ExportedLun(1, volume="shop.data"))
    storage.store.create("shop.data", None, 1 << 20)
    storage.manager.export(Export(TARGET.name, 1, luns, Access(N1.name)))
    storage.store.close("shop.data")
    (storage.directory / "volumes" / "shop.data.volume").unlink()
    statistics = storage.manager._local_transport._device(DISK[0]).statistics
    before = len(statistics._live)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            storage.login(N1)
    assert len(statistics._live) == before


def test_a_damaged_file_of_exports_is_refused(storage):
    (storage.directory / "exports.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match="exports"):
        ConnectionManager(storage.store, ExportsFile(storage.directory / "exports.json"), storage.events.append)


def test_silence_is_reported_once_and_only_of_those_that_answer(storage):
    storage.manager.export(export(1))
    connection, _ = storage.login(N1)
    connection.facts.last_heard_at = storage.now
    storage.now += SILENT_SECONDS + 0.1
    storage.manager.look()
    assert kinds(storage) == ["login"]
    connection.facts.answers_nop = True
    storage.manager.look()
    storage.manager.look()
    connection.facts.last_heard_at = storage.now
    storage.manager.look()
    assert kinds(storage) == ["login", "silent", "heard"]


def test_the_first_read_and_the_end_are_reported(storage):
    storage.manager.export(export(1))
    connection, admission = storage.login(N1)
    connection.facts.first_read_at = 101.5
    storage.manager.first_read(admission.session_id)
    storage.manager.refused(None, TARGET, "10.0.0.66:1", "CHAP failed")
    storage.manager.gone(admission.session_id, "logout")
    assert kinds(storage) == ["login", "first_read", "refused", "logout"]
    assert storage.events[1].at == 101.5
    assert storage.events[2].initiator is None
    assert storage.events[3].why == "logout"
    assert storage.manager.status().sessions == ()


def test_status_tells_no_secret(storage):
    storage.manager.export(export(1, user="u", secret="hidden-secret"))
    _, admission = storage.login(N1, proved=Credentials("u", "hidden-secret"))
    status = storage.manager.status()
    assert "hidden-secret" not in repr(status)
    (facts,) = status.exports
    assert (facts.target, facts.epoch, facts.access.user, facts.luns[0].volume) == (TARGET.name, 1, "u", "shop.web1")
    (session,) = status.sessions
    assert (session.id, session.initiator, session.epoch, session.kind) == (admission.session_id, N1.name, 1, "kernel")
