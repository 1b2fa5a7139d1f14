"""The files of snapshots when something is amiss: missing, damaged, copied, named twice; nothing is lost or made up."""

import errno
import os
import shutil
import stat

import pytest

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel


@pytest.fixture
def store(tmp_path):
    (tmp_path / "source").write_bytes(b"image..." * 2000)
    store = VolumeStore(tmp_path / "store")
    store.import_image("web@1", tmp_path / "source")
    yield store
    store.shut_down()


def read(volume):
    octets = bytearray(volume.octets)
    volume.read(0, memoryview(octets))
    return bytes(octets)


def fill(store, name, offset, octets):
    volume = store.open(name)
    volume.write(volume.grant(1), offset, memoryview(octets))
    return volume


def test_a_damaged_file_keeps_what_it_may_be_read_through(store, tmp_path):
    store.create("v", None, 1 << 20)
    fill(store, "v", 0, b"x" * 4096)
    store.snapshot("v@a")
    store.delete_snapshot("v@a")
    store.shut_down()
    directory = tmp_path / "store" / "volumes"
    (layer,) = directory.glob("*.layer")
    whole = (directory / "v.volume").read_bytes()
    (directory / "v.volume").write_bytes(bytes(8192) + whole[8192:])
    again = VolumeStore(tmp_path / "store")
    assert layer.exists()
    again.shut_down()
    (directory / "v.volume").write_bytes(whole)
    mended = VolumeStore(tmp_path / "store")
    assert read(mended.open("v"))[:4096] == b"x" * 4096
    mended.shut_down()
    store._lock_fd = os.open(os.devnull, os.O_RDONLY)  # the fixture ends it once more


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_nothing_is_read_through_a_gap_and_nothing_below_it_is_lost(store, tmp_path, which, how):
    """A frozen file that is away while a process starts: refused, and all as it was when the file is back."""
    store.create("v1", "web@1", 0)
    for number, label in enumerate(("v1@a", "v1@b", "v1@c")):
        fill(store, "v1", number * 4096, bytes([number + 1]) * 4096)
        store.snapshot(label)
    store.delete_snapshot("v1@a")
    before = read(store.open("v1"))
    store.shut_down()
    volumes = tmp_path / "store" / "volumes"
    file = sorted(volumes.glob("v1@*"), key=lambda path: path.name.endswith(".snapshot"))[which]
    whole = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(8192) + whole[8192:])
    away = VolumeStore(tmp_path / "store")
    with pytest.raises(ConfigError, match="needs the frozen file with id"):
        away.open("v1")
    away.shut_down()
    file.write_bytes(whole)
    again = VolumeStore(tmp_path / "store")
    assert read(again.open("v1")) == before
    again.shut_down()
    store._lock_fd = os.open(os.devnull, os.O_RDONLY)  # the fixture ends it once more


def test_a_snapshot_that_could_not_be_taken_back_is_none(store, tmp_path):
    """Its second name is there and names the file that is still written: asked for again it is taken, not answered."""
    store.create("v", None, 1 << 20)
    fill(store, "v", 0, b"x" * 4096)
    os.link(tmp_path / "store" / "volumes" / "v.volume", tmp_path / "store" / "volumes" / "v@a.snapshot")
    assert store.snapshot("v@a")
    fill(store, "v", 0, b"y" * 4096)
    store.create("w", None, 0, snapshot="v@a")
    assert read(store.open("w"))[:4096] == b"x" * 4096


def test_a_disk_that_grows_within_its_snapshot_is_frozen_at_the_next_call(store, monkeypatch):
    store.create("v", None, 1 << 20)
    volume = fill(store, "v", 0, b"x" * 4096)
    flush, grown = volume._flush, []

    def grow_first():
        if not grown:
            grown.append(volume.grow(2 << 20))
        flush()

    monkeypatch.setattr(volume, "_flush", grow_first)
    with pytest.raises(ConflictError, match="grew just now"):
        store.snapshot("v@a")
    assert store.snapshot("v@a")
    fill(store, "v", 0, b"y" * 4096)
    store.create("w", None, 0, snapshot="v@a")
    assert (store.open("w").octets, read(store.open("w"))[:4096]) == (2 << 20, b"x" * 4096)


def test_a_copy_of_a_volume_file_takes_no_snapshot_with_it(store, tmp_path):
    """Both have one id; a snapshot of either would be taken for the other's, or for one that was begun."""
    store.create("v", None, 1 << 20)
    fill(store, "v", 0, b"x" * 4096)
    store.shut_down()
    directory = tmp_path / "store" / "volumes"
    shutil.copy(directory / "v.volume", directory / "w.volume")
    again = VolumeStore(tmp_path / "store")
    fill(again, "v", 0, b"y" * 4096)
    again.snapshot("v@a")
    with pytest.raises(ConflictError, match="copy of one that is frozen"):
        again.snapshot("w@a")
    again.shut_down()
    last = VolumeStore(tmp_path / "store")
    assert read(last.open("v"))[:4096] == b"y" * 4096
    assert read(last.open("w"))[:4096] == b"x" * 4096
    last.shut_down()
    store._lock_fd = os.open(os.devnull, os.O_RDONLY)  # the fixture ends it once more


def test_a_snapshot_that_cannot_be_read_is_neither_deleted_nor_forgotten(store, tmp_path):
    store.create("v", None, 1 << 20)
    store.snapshot("v@a")
    file = tmp_path / "store" / "volumes" / "v@a.snapshot"
    file.write_bytes(bytes(8192) + file.read_bytes()[8192:])
    with pytest.raises(ConfigError, match="cannot be read"):
        store.delete_snapshot("v@a")
    with pytest.raises(ConflictError, match="has snapshots"):
        store.delete("v")
    assert file.exists()


class Refusing:
    """Calls on files: the ``number``-th after a snapshot was named fails, and if it ``stays`` all after it."""

    def __init__(self, number, code, *, stays):
        self.left, self.code, self.stays, self.named, self.refused = number, code, stays, False, False
        names = ("open", "pwritev", "posix_fallocate", "fsync", "rename", "ftruncate", "fdatasync")
        self.calls = SystemCalls(link=self.link, **{name: self.through(name) for name in names})

    def link(self, name, other):
        os.link(name, other)
        self.named = True

    def through(self, name):
        real = getattr(SystemCalls(), name)

        def call(*arguments):
            if self.named and not (name == "fsync" and stat.S_ISDIR(os.fstat(*arguments).st_mode)):
                self.left -= 1
                if self.left == 0 or (self.left < 0 and self.stays):
                    self.refused = True
                    raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        return call


@pytest.mark.parametrize(("code", "stays"), [(errno.ENOSPC, False), (errno.EMFILE, True), (errno.EIO, False)])
def test_a_snapshot_that_fails_before_the_new_file_stands_costs_the_volume_nothing(store, code, stays):
    """Whatever fails between the two names: the volume goes on in the file that it has, or says that it is lost."""
    store.create("v", "web@1", 0)
    before = read(fill(store, "v", 0, b"x" * 4096))
    online = lost = 0
    for number in range(1, 40):
        refusing = Refusing(number, code, stays=stays)
        label = f"v@s{number}"
        with instead_of_the_kernel(refusing.calls):
            try:
                store.snapshot(label)
            except OSError:
                pass
        if not refusing.refused:
            break
        volume = store.open("v")
        if volume.lost:
            lost += 1
            break
        online += 1
        assert not (store._directory.path / f"{label}.snapshot").exists()
        assert read(fill(store, "v", 8192, bytes([number]) * 512))[:4096] == before[:4096]
        volume.flush()
        with pytest.raises(UnavailableError, match="there is no snapshot"):
            store.create("w", None, 0, snapshot=label)
    assert online >= 4
    assert lost <= 1  # the directory could not be synced with the new file in it
