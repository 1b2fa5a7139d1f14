"""At no time can two sessions write to one volume, or one session after it was fenced off."""

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from panloom.disk_io import SystemCalls, instead_of_the_kernel
from panloom.errors import ConfigError, ConflictError, RefusedError, UnavailableError
from panloom.storage.connection_manager import SILENT_SECONDS, ConnectionManager
from panloom.storage.descriptor import Credentials, SessionFacts, StaleEpochError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile
from panloom.storage.volume_store import VolumeStore
from panloom.values import Iqn
from support.waiting import until

TARGET = Iqn("iqn.2026-11.dev.panloom:shop.web1")
N1 = Iqn("iqn.2026-11.dev.panloom:node.n1")
N2 = Iqn("iqn.2026-11.dev.panloom:node.n2")
ISID = bytes.fromhex("00023d000001")
DISK = (ExportedLun(0, volume="shop.web1"),)
NOTHING = Credentials()


class PlainConnection:
    """A connection whose thread is the test."""

    def __init__(self, initiator, *, target=TARGET, kind="kernel"):
        self.facts = SessionFacts(initiator, target, "10.0.0.11:40000", ISID, kind, login_at=1.0, last_heard_at=1.0)
        self.shut = threading.Event()

    def resized(self, lun, blocks):
        self.sizes = {**getattr(self, "sizes", {}), lun: blocks}

    def shut_down(self):
        self.shut.set()


class Storage:
    """A store and its manager, in a directory that outlives them."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.now = 100.0
        self.events = []
        self.start()

    def start(self):
        self.store = VolumeStore(self.directory)
        file = ExportsFile(self.directory / "exports.json")
        self.manager = ConnectionManager(self.store, file, self.events.append, clock=lambda: self.now)

    def kill(self):
        """What SIGKILL leaves: the files and nothing else."""
        os.close(self.store._lock_fd)
        self.start()

    def login(self, initiator, *, target=TARGET, proved=NOTHING):
        connection = PlainConnection(initiator, target=target)
        return connection, self.manager.admit(initiator, target, proved, connection)


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path)
    storage.store.create("shop.web1", None, 1 << 20)
    yield storage
    storage.store.shut_down()


def export(epoch, initiator=N1, **access):
    return Export(TARGET.name, epoch, DISK, Access(initiator.name, **access))


def write(admission, data=b"x" * 512):
    disk = admission.descriptors[0]
    disk.write(disk.context, 0, memoryview(data))


def read(admission):
    disk, into = admission.descriptors[0], bytearray(512)
    disk.read(disk.context, 0, memoryview(into))
    return bytes(into)


def kinds(storage):
    return [event.event for event in storage.events]


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
    disk.flush(disk.context)
    assert read(admission) == b"x" * 512
    disk.unmap(disk.context, 0, 512)
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
        disk.read(disk.context, 512, memoryview(bytearray(512)))


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


def test_a_fence_in_its_order(storage):
    storage.manager.export(export(1))
    connection, victim = storage.login(N1)
    write(victim, b"before".ljust(512))
    storage.manager.revoke(TARGET.name, 2)
    assert storage.manager.credentials(N1, TARGET, "10.0.0.11") is None
    assert storage.manager.targets_visible(N1, "10.0.0.11") == ()
    with pytest.raises(StaleEpochError):
        write(victim, b"after".ljust(512))
    assert storage.manager.drop(TARGET.name) == 1
    assert connection.shut.is_set()
    drained = threading.Thread(target=storage.manager.drain, args=(TARGET.name,))
    drained.start()
    assert drained.is_alive()
    storage.manager.gone(victim.session_id, "closed")
    drained.join()
    storage.manager.export(export(2, N2))
    _, spare = storage.login(N2)
    assert read(spare) == b"before".ljust(512)


def test_a_drain_that_hangs_is_said_so(storage, monkeypatch):
    monkeypatch.setattr("panloom.storage.connection_manager.DRAIN_SECONDS", 0.05)
    storage.manager.export(export(1))
    _, victim = storage.login(N1)
    storage.manager.drop(TARGET.name)
    with pytest.raises(UnavailableError, match="hang"):
        storage.manager.drain(TARGET.name)
    storage.manager.gone(victim.session_id, "closed")
    storage.manager.drain(TARGET.name)


def test_epochs_never_go_down(storage):
    storage.manager.export(export(5))
    for late in (
        lambda: storage.manager.export(export(4)),
        lambda: storage.manager.revoke(TARGET.name, 4),
        lambda: storage.manager.unexport(TARGET.name, 4),
    ):
        with pytest.raises(ConflictError):
            late()
    storage.manager.unexport(TARGET.name, 6)
    with pytest.raises(ConflictError):
        storage.manager.export(export(5))
    assert storage.store.facts().volumes[0].epoch == 6
    storage.manager.export(export(6))


def test_a_fence_of_what_was_never_exported_is_remembered(storage):
    storage.manager.revoke(TARGET.name, 3)
    storage.kill()
    with pytest.raises(ConflictError):
        storage.manager.export(export(2))
    storage.manager.export(export(3))


def test_exports_and_fences_survive_a_kill(storage):
    storage.manager.export(export(1, user="u", secret="s" * 12))
    storage.kill()
    known = storage.manager.credentials(N1, TARGET, "10.0.0.11")
    assert known.secret == "s" * 12
    _, admission = storage.login(N1, proved=known)
    write(admission)
    storage.manager.revoke(TARGET.name, 2)
    storage.kill()
    assert storage.manager.credentials(N1, TARGET, "10.0.0.11") is None
    (volume,) = storage.store.facts().volumes
    assert volume.epoch == 2


def test_a_kill_between_file_and_volume_is_made_good(storage):
    storage.manager.export(export(1))
    ExportsFile(storage.directory / "exports.json").save([Export(TARGET.name, 7, DISK, None)])
    storage.kill()
    assert storage.store.facts().volumes[0].epoch == 7


def test_another_initiator_of_the_same_epoch_ends_the_first(storage):
    storage.manager.export(export(1))
    connection, first = storage.login(N1)
    storage.manager.export(export(1, N2))
    assert connection.shut.is_set()
    with pytest.raises(StaleEpochError):
        write(first)


def test_a_login_that_proved_the_secret_of_an_epoch_that_is_over_is_refused(storage):
    old, fresh = Credentials("web1.1", "s" * 16), Credentials("web1.2", "t" * 16)
    storage.manager.export(export(1, user=old.user, secret=old.secret))
    _, admission = storage.login(N1, proved=old)
    # It fetched its challenge under epoch 1; the same node carries the server again when it answers.
    storage.manager.revoke(TARGET.name, 2)
    storage.manager.drop(TARGET.name)
    storage.manager.gone(admission.session_id, "closed")
    storage.manager.export(export(2, user=fresh.user, secret=fresh.secret))
    for proved in (old, NOTHING, Credentials(fresh.user, old.secret)):
        with pytest.raises(RefusedError, match="has proved what is over"):
            storage.login(N1, proved=proved)
    assert storage.manager.status().sessions == ()
    assert storage.login(N1, proved=fresh)[1].epoch == 2


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


def test_an_export_is_not_forgotten_before_its_volume_remembers_the_epoch(storage):
    def refuse(fd, parts, offset, flags):
        if flags & os.RWF_DSYNC:
            raise OSError(errno.EIO, "a broken disk")
        return os.pwritev(fd, parts, offset, flags)

    storage.manager.export(export(1))
    with (
        instead_of_the_kernel(SystemCalls(pwritev=refuse)),
        pytest.raises(UnavailableError, match="cannot note epoch 3"),
    ):
        storage.manager.unexport(TARGET.name, 3)
    (known,) = storage.manager.status().exports
    assert (known.epoch, known.access) == (3, None)


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


def test_a_fence_against_a_thread_that_never_stops(storage):
    """A writer tags its sector without pause; after the revoke the tag never changes again."""
    storage.manager.export(export(1))
    _, victim = storage.login(N1)
    written = []

    def tag():
        try:
            for count in range(10**9):
                write(victim, count.to_bytes(512, "big"))
                written.append(count)
        except StaleEpochError:
            return

    writer = threading.Thread(target=tag)
    writer.start()
    until(lambda: len(written) > 20, "some writes")
    storage.manager.revoke(TARGET.name, 2)
    after = read(victim)
    writer.join()
    assert read(victim) == after == written[-1].to_bytes(512, "big")


class Fencing(RuleBasedStateMachine):
    """Any order of exports, logins, fences, kills: only the last admitted session of the present epoch can write."""

    sessions = Bundle("sessions")

    def __init__(self):
        super().__init__()
        directory = Path(os.environ["PANLOOM_TEST_DIRECTORY"])
        for file in directory.rglob("*.*"):
            file.unlink()
        self.storage = Storage(directory)
        self.target_epoch, self.volume_epoch, self.has_disk = 0, 0, False
        self.allowed, self.writer, self.alive = None, None, set()

    @initialize()
    def create(self):
        self.storage.store.create("shop.web1", None, 4096)

    def done(self, change, epoch, least):
        """Whether the change was done; it must be a conflict if and only if the epoch is less than the least."""
        try:
            change()
        except ConflictError:
            assert epoch < least
            return False
        assert epoch >= least
        return True

    @rule(epoch=st.integers(1, 6), initiator=st.sampled_from([N1, N2]))
    def export(self, epoch, initiator):
        least = max(self.target_epoch, self.volume_epoch)
        if self.done(lambda: self.storage.manager.export(export(epoch, initiator)), epoch, least):
            if (epoch, initiator) != (self.target_epoch, self.allowed):
                self.writer = None
            self.target_epoch = self.volume_epoch = epoch
            self.has_disk, self.allowed = True, initiator

    @rule(epoch=st.integers(1, 6))
    def revoke(self, epoch):
        if self.done(lambda: self.storage.manager.revoke(TARGET.name, epoch), epoch, self.target_epoch):
            self.take_away(epoch)
            self.target_epoch = epoch

    @rule(epoch=st.integers(1, 6))
    def unexport(self, epoch):
        if self.done(lambda: self.storage.manager.unexport(TARGET.name, epoch), epoch, self.target_epoch):
            if self.target_epoch:
                self.take_away(epoch)
            self.target_epoch, self.has_disk = 0, False

    def take_away(self, epoch):
        self.allowed = self.writer = None
        if self.has_disk:
            self.volume_epoch = epoch

    @rule()
    def kill(self):
        self.storage.kill()
        self.writer, self.alive = None, set()

    @rule(target=sessions, initiator=st.sampled_from([N1, N2]))
    def login(self, initiator):
        try:
            _, admission = self.storage.login(initiator)
        except RefusedError:
            assert initiator != self.allowed
            return None
        assert initiator == self.allowed
        self.writer = admission
        self.alive.add(admission.session_id)
        return admission

    @rule(session=consumes(sessions))
    def logout(self, session):
        if session:
            self.storage.manager.gone(session.session_id, "logout")
            if session is self.writer:
                self.writer = None

    @rule()
    def drop(self):
        self.storage.manager.drop(TARGET.name)
        self.writer = None

    @rule(session=sessions)
    def write(self, session):
        if session is None or session.session_id not in self.alive:
            return
        try:
            write(session)
        except StaleEpochError:
            assert session is not self.writer
        else:
            assert session is self.writer

    @invariant()
    def who_may_log_in(self):
        assert self.storage.store.facts().volumes[0].epoch == self.volume_epoch
        for initiator in (N1, N2):
            allowed = self.storage.manager.credentials(initiator, TARGET, "10.0.0.11") is not None
            assert allowed == (initiator == self.allowed)

    def teardown(self):
        os.close(self.storage.store._lock_fd)


Fencing.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


class TestFencing(Fencing.TestCase):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PANLOOM_TEST_DIRECTORY", str(tmp_path))
