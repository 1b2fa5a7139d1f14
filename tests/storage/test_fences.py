"""At no time can two sessions write to one volume, or one session after it was fenced off."""

import errno
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from panloom.errors import ConflictError, RefusedError, UnavailableError
from panloom.storage.descriptor import Credentials, StaleEpochError
from panloom.storage.exports import Access, Export, ExportedLun, ExportsFile
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from panloom.values import Iqn
from support import blocks
from support.storage_sessions import DISK, N1, N2, NOTHING, TARGET, Storage, export, read, write
from support.waiting import until

BOTH = (*DISK, ExportedLun(1, volume="other"))


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path)
    storage.store.create("shop.web1", None, 1 << 20)
    yield storage
    storage.store.shut_down()


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


def test_a_fence_holds_before_it_is_durable(storage):
    """However long the disk takes to remember it."""
    storage.manager.export(export(1))
    _, victim = storage.login(N1)
    refused = []

    def sync(fd):
        with pytest.raises(StaleEpochError):
            write(victim)
        refused.append(fd)
        os.fsync(fd)

    with instead_of_the_kernel(SystemCalls(fsync=sync)):
        storage.manager.revoke(TARGET.name, 2)
    assert refused


def epochs(storage):
    return {volume.name: volume.epoch for volume in storage.store.facts().volumes}


@pytest.mark.parametrize(("epoch", "remembered"), [(1, 2), (7, 7)])
def test_a_fence_that_is_overtaken_is_remembered_and_takes_no_epoch_back(storage, epoch, remembered):
    """It has found its volume and waits; meanwhile the volume is closed, and opened anew for another target."""
    storage.store.create("other", None, 4096)
    storage.manager.export(Export(TARGET.name, 1, BOTH, Access(N1.name)))
    found, go_on = threading.Event(), threading.Event()
    fence = threading.Thread(target=lambda: storage.manager.revoke(TARGET.name, 2))

    class SlowStore(VolumeStore):
        def open(self, name):
            volume = super().open(name)
            if threading.current_thread() is fence and name == "shop.web1" and not found.is_set():
                found.set()
                go_on.wait(10)
            return volume

    storage.make_store = SlowStore
    storage.kill()
    fence.start()
    assert found.wait(10)
    storage.manager.export(Export(TARGET.name, 2, BOTH[1:], Access(N1.name)))
    second = Export(TARGET.name + ".second", epoch, BOTH[:1], Access(N1.name))
    storage.manager.export(second)
    go_on.set()
    fence.join()
    storage.manager.unexport(second.target, epoch)
    storage.kill()
    assert epochs(storage) == {"shop.web1": remembered, "other": 2}


@pytest.mark.parametrize("ahead", ["shop.web1", "other"])
def test_a_volume_that_is_ahead_keeps_no_other_from_being_fenced(storage, ahead):
    storage.store.create("other", None, 4096)
    storage.manager.export(Export(TARGET.name, 1, BOTH, Access(N1.name)))
    storage.store.open(ahead).raise_epoch(10)
    storage.manager.revoke(TARGET.name, 3)
    assert epochs(storage) == {"shop.web1": 3, "other": 3} | {ahead: 10}
    storage.manager.unexport(TARGET.name, 4)
    assert storage.manager.status().exports == ()


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


@pytest.mark.parametrize("how", ["LUN", "epoch"])
def test_a_disk_that_hangs_while_its_target_changes_keeps_no_other_from_being_fenced(storage, how):
    """A write hangs at a disk that is taken away, or whose epoch is to be noted."""
    storage.store.create("other", None, 1 << 20)
    second, third = (Iqn(f"{TARGET.name}.{name}") for name in ("second", "third"))
    storage.manager.export(Export(TARGET.name, 1, BOTH[1:], Access(N1.name)))
    storage.manager.export(Export(second.name, 1, DISK, Access(N2.name)))
    connection, admission = storage.login(N1)
    _, victim = storage.login(N2, target=second)
    hangs, go_on = threading.Event(), threading.Event()

    def pwritev(fd, views, offset, flags):
        if threading.current_thread() is writing:
            hangs.set()
            go_on.wait(60)
        return os.pwritev(fd, views, offset, flags)

    changed = Export(TARGET.name, 1, (), Access(N1.name)) if how == "LUN" else Export(TARGET.name, 2, BOTH[1:], None)
    writing = threading.Thread(target=lambda: blocks.write(admission.descriptors[1], 0, b"w" * 512))
    changing = threading.Thread(target=lambda: storage.manager.export(changed))
    fencing = threading.Thread(target=lambda: storage.manager.revoke(second.name, 2))
    with instead_of_the_kernel(SystemCalls(pwritev=pwritev)):
        try:
            writing.start()
            assert hangs.wait(60)
            changing.start()
            until(lambda: storage.manager._claims.held(()), "the change is under way")
            if how == "LUN":
                until(lambda: connection.luns == {1: None}, "the LUN is being taken away")
            fencing.start()
            fencing.join(60)
            assert not fencing.is_alive()
            with pytest.raises(StaleEpochError):
                write(victim)
            assert changing.is_alive()
            with pytest.raises(ConflictError):  # it is still written to
                storage.manager.export(Export(third.name, 1, BOTH[1:], Access(N2.name)))
            with pytest.raises(ConflictError):
                storage.manager.delete_volume("other")
        finally:
            go_on.set()
            for thread in (writing, changing, fencing):
                thread.join(60)
    storage.manager.unexport(TARGET.name, 2)
    storage.manager.export(Export(third.name, 1 if how == "LUN" else 2, BOTH[1:], Access(N2.name)))
    with pytest.raises(StaleEpochError):
        blocks.write(admission.descriptors[1], 0, b"w" * 512)
    assert epochs(storage) == {"shop.web1": 2, "other": 1 if how == "LUN" else 2}


@contextmanager
def fenced_while(storage, act, **call):
    """Have ``act("other")`` hang in a call of the kernel, and a target fenced meanwhile; it goes on at the end."""
    ((name, real),) = call.items()
    hangs, go_on = threading.Event(), threading.Event()

    def held(*arguments):
        if threading.current_thread() is acting:
            hangs.set()
            go_on.wait(60)
        return real(*arguments)

    acting = threading.Thread(target=act, args=("other",))
    fencing = threading.Thread(target=storage.manager.revoke, args=(TARGET.name, 2))
    with instead_of_the_kernel(SystemCalls(**{name: held})):
        try:
            acting.start()
            assert hangs.wait(60)
            fencing.start()
            fencing.join(60)
            assert not fencing.is_alive()
            yield
        finally:
            go_on.set()
            acting.join(60)
            fencing.join(60)


def test_a_disk_that_hangs_while_a_volume_is_destroyed_keeps_nobody_from_being_fenced(storage):
    storage.store.create("other", None, 1 << 20)
    storage.manager.export(export(1))
    _, victim = storage.login(N1)
    with fenced_while(storage, storage.manager.delete_volume, unlink=Path.unlink):
        with pytest.raises(StaleEpochError):
            write(victim)
        with pytest.raises(ConflictError, match="is being destroyed"):
            storage.manager.export(Export(f"{TARGET.name}.second", 1, BOTH[1:], Access(N1.name)))
        with pytest.raises(ConflictError, match="is being destroyed"):
            storage.manager.delete_volume("other")
    storage.manager.delete_volume("other")


def test_a_disk_that_hangs_while_a_volume_is_opened_anew_keeps_no_other_from_being_fenced(storage):
    storage.store.create("other", None, 1 << 20)
    second = Iqn(f"{TARGET.name}.second")
    storage.manager.export(export(1))
    storage.manager.export(Export(second.name, 1, BOTH[1:], Access(N2.name)))
    _, victim = storage.login(N1)
    volume = storage.store.open("other")
    volume.write(volume.grant(1), 0, memoryview(bytes(4096)))

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with instead_of_the_kernel(SystemCalls(fdatasync=refuse)), pytest.raises(OSError, match="Input/output"):
        volume.flush()
    with fenced_while(storage, storage.manager.reopen_volume, open=os.open), pytest.raises(StaleEpochError):
        write(victim)
    assert not storage.store.open("other").lost
