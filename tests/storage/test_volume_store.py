import os
import subprocess
import sys

import pytest

from panloom.errors import ConfigError, ConflictError, UnavailableError
from panloom.storage.volume_store import MAX_VOLUME_OCTETS, VolumeStore

GIB = 1 << 30


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"golden" * 1000)
    return path


@pytest.fixture
def store(tmp_path):
    store = VolumeStore(tmp_path / "store")
    yield store
    store.shut_down()


def test_an_image_is_imported_once_read_only(store, source, tmp_path):
    facts = store.import_image("web@1", source)
    assert (facts.name, facts.octets) == ("web@1", 6000)
    assert store.import_image("web@1", source) == facts
    (file,) = (tmp_path / "store" / "images").iterdir()
    assert file.read_bytes() == source.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o400
    source.write_bytes(b"changed")
    with pytest.raises(ConflictError):
        store.import_image("web@1", source)
    assert store.import_image("web@2", source).octets == 7


def test_holes_of_an_image_stay_holes(store, tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    store.import_image("big@1", sparse)
    (file,) = (tmp_path / "store" / "images").iterdir()
    assert file.stat().st_size == 1 << 30
    assert file.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("name", ["web", "web@0", "web@01", "../x@1", "web@1/..", "Web@1", "@1", "web@1\n", ".a@1", ""])
def test_names_that_no_image_has(store, source, name):
    with pytest.raises(ConfigError):
        store.import_image(name, source)


def test_what_cannot_be_an_image(store, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    for wrong in ("missing", "fifo", "empty", "."):
        with pytest.raises(ConfigError):
            store.import_image("web@1", tmp_path / wrong)


def test_a_torn_import_is_never_used(tmp_path, source):
    images = tmp_path / "store" / "images"
    images.mkdir(parents=True)
    (images / "web@1.partial").write_bytes(b"gol")
    (images / "web@1.6b86b2").write_bytes(b"no digest")
    store = VolumeStore(tmp_path / "store")
    assert store.facts().images == ()
    assert store.import_image("web@1", source).octets == 6000
    assert not (images / "web@1.partial").exists()
    store.shut_down()


def test_a_clone_takes_no_space_whatever_its_size(store, source):
    store.import_image("web@1", source)
    assert store.create("shop.web1", "web@1", 1 << 40) == (1 << 40, True)
    (volume,) = store.facts().volumes
    assert (volume.name, volume.image, volume.octets, volume.epoch) == ("shop.web1", "web@1", 1 << 40, 0)
    assert volume.allocated_octets < 1 << 16


def test_creating_again_changes_nothing_and_with_other_values_conflicts(store, source):
    store.import_image("web@1", source)
    store.import_image("same@1", source)
    assert store.create("v", "web@1", 0) == (6144, True)
    identity = store.open("v").identity
    assert store.create("v", "web@1", 0) == (6144, False)
    assert store.create("v", "web@1", 6144) == (6144, False)
    for image, octets in (("web@1", GIB), ("same@1", 0), (None, 6144)):
        with pytest.raises(ConflictError):
            store.create("v", image, octets)
    assert store.open("v").identity == identity
    assert identity[0] >> 4 == 3


@pytest.mark.parametrize(
    ("image", "octets"), [("web@1", 5632), ("web@1", 6145), (None, 0), (None, MAX_VOLUME_OCTETS + 512), (None, -512)]
)
def test_sizes_that_cannot_be(store, source, image, octets):
    store.import_image("web@1", source)
    with pytest.raises(ConfigError):
        store.create("v", image, octets)
    with pytest.raises(UnavailableError):
        store.open("v")


def test_what_is_not_there(store):
    with pytest.raises(UnavailableError):
        store.create("v", "web@1", 0)
    with pytest.raises(UnavailableError):
        store.open("v")
    store.delete("v")
    for name in ("../v", "a/b", "", ".v", "V"):
        with pytest.raises(ConfigError):
            store.open(name)


def test_a_half_made_volume_is_replaced_and_a_damaged_one_is_not(tmp_path):
    volumes = tmp_path / "store" / "volumes"
    volumes.mkdir(parents=True)
    (volumes / "half.volume.partial").write_bytes(b"PANLOOMV")
    (volumes / "damaged.volume").write_bytes(b"\0" * 100_000)
    store = VolumeStore(tmp_path / "store")
    assert store.create("half", None, 4096) == (4096, True)
    assert sorted(path.name for path in volumes.iterdir()) == ["damaged.volume", "half.volume"]
    for call in (lambda: store.open("damaged"), lambda: store.create("damaged", None, 4096)):
        with pytest.raises(ConfigError, match="no valid header"):
            call()
    assert [volume.name for volume in store.facts().volumes] == ["half"]
    store.shut_down()


def test_a_deleted_volume_is_gone_for_those_who_have_it(store):
    store.create("v", None, 4096)
    volume = store.open("v")
    store.delete("v")
    assert store.facts().volumes == ()
    with pytest.raises(OSError, match="offline"):
        volume.read(0, memoryview(bytearray(512)))


def test_one_process_at_a_time(store, tmp_path):
    take = (
        "import sys, pathlib\n"
        "from panloom.storage.volume_store import VolumeStore\n"
        "VolumeStore(pathlib.Path(sys.argv[1]))"
    )
    second = subprocess.run(
        [sys.executable, "-c", take, tmp_path / "store"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "another storage process serves" in second.stderr
