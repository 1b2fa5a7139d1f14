"""An image's name stands for one content, whatever failed and when."""

import errno
import os

import pytest

from panloom.errors import ConflictError, UnavailableError
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel


@pytest.fixture
def sources(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"first" * 1000)
    second.write_bytes(b"other" * 1000)
    return first, second


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens the store, as after a restart."""
    stores = []

    def open_store():
        for store in stores:
            store.shut_down()
        stores[:] = [VolumeStore(tmp_path / "store")]
        return stores[0]

    yield open_store
    for store in stores:
        store.shut_down()


def read(volume):
    into = bytearray(5000)
    volume.read(0, memoryview(into))
    return bytes(into)


def import_cut_off(store, source):
    """Import an image, and have no file descriptor left when its directory is to be synced."""
    renamed = []

    def rename(old, new):
        SystemCalls().rename(old, new)
        renamed.append(new)

    def open_file(path, flags, mode):
        if renamed:
            raise OSError(errno.EMFILE, "Too many open files")
        return os.open(path, flags, mode)

    with (
        instead_of_the_kernel(SystemCalls(rename=rename, open=open_file)),
        pytest.raises(OSError, match="Too many open files"),
    ):
        store.import_image("web@1", source)


def test_an_import_that_failed_at_the_last_step_is_taken_up(opened, sources, tmp_path):
    store = opened()
    import_cut_off(store, sources[0])
    assert store.facts().images == ()
    facts = store.import_image("web@1", sources[0])
    assert store.facts().images == (facts,)
    assert len(list((tmp_path / "store" / "images").iterdir())) == 1
    assert opened().facts().images == (facts,)


def test_its_name_is_taken_for_other_content(opened, sources):
    store = opened()
    import_cut_off(store, sources[0])
    with pytest.raises(ConflictError, match="web@1 exists with other content"):
        store.import_image("web@1", sources[1])
    store.create("v", "web@1", 0)
    assert read(store.open("v")) == sources[0].read_bytes()
    assert read(opened().open("v")) == sources[0].read_bytes()


def test_of_two_files_of_one_name_neither_is_taken_silently(opened, sources, tmp_path, caplog):
    images, others = tmp_path / "store" / "images", VolumeStore(tmp_path / "others")
    others.import_image("web@1", sources[1])
    others.shut_down()
    (other,) = (tmp_path / "others" / "images").iterdir()
    store = opened()
    store.import_image("web@1", sources[0])
    store.create("v", "web@1", 0)
    other.rename(images / other.name)
    caplog.clear()
    store = opened()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "image=web@1 ready=no" in line
    assert other.name.removeprefix("web@1.") in line
    assert read(store.open("v")) == sources[0].read_bytes()
    for refused in (lambda: store.create("w", "web@1", 0), lambda: store.import_image("web@1", sources[0])):
        with pytest.raises(UnavailableError, match=r"several images web@1, .* remove the wrong ones"):
            refused()
    (images / other.name).unlink()
    store = opened()
    assert store.create("w", "web@1", 0) == (5120, True)
    assert read(store.open("w")) == sources[0].read_bytes()


def test_an_image_goes_when_nobody_reads_it_and_its_name_is_free(opened, sources, tmp_path):
    store = opened()
    store.import_image("web@1", sources[0])
    store.create("v", "web@1", 0)
    with pytest.raises(ConflictError, match="image web@1 is read by v; delete or flatten these first"):
        store.delete_image("web@1")
    assert read(store.open("v")) == sources[0].read_bytes()
    store.delete("v")
    for _ in range(2):
        store.delete_image("web@1")
        assert store.facts().images == ()
    assert list((tmp_path / "store" / "images").iterdir()) == []
    store.import_image("web@1", sources[1])
    assert opened().facts().images[0].name == "web@1"


def test_a_snapshot_holds_its_image(opened, sources):
    store = opened()
    store.import_image("web@1", sources[0])
    store.create("v", "web@1", 0)
    store.snapshot("v@before")
    with pytest.raises(ConflictError, match="is read by v@before;"):
        store.delete_image("web@1")
    store.delete_snapshot("v@before")  # the disk is read through its file still, which has no name any more
    with pytest.raises(ConflictError, match="is read by v;"):
        store.delete_image("web@1")


def test_no_image_goes_while_a_file_cannot_be_read(opened, sources, tmp_path):
    store = opened()
    store.import_image("web@1", sources[0])
    (tmp_path / "store" / "volumes" / "torn.volume").write_bytes(b"no header")
    with pytest.raises(ConflictError, match=r"may be needed by what cannot be read: torn\.volume"):
        store.delete_image("web@1")
    assert store.facts().images
