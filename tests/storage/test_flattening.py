"""Flattening goes on beside the sessions, ends with the process, and goes on after the next start."""

import random

import pytest

from panloom.errors import UnavailableError
from panloom.storage.flattening import PIECE_OCTETS, Flattening
from panloom.storage.volume_store import VolumeStore
from support.waiting import until

IMAGE = random.Random(6).randbytes(4 * PIECE_OCTETS)
SLOW = PIECE_OCTETS // 100  # a piece in 100 seconds


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "source").write_bytes(IMAGE)
    store = VolumeStore(tmp_path / "store")
    store.import_image("web@1", tmp_path / "source")
    store.create("v", "web@1", 8 * PIECE_OCTETS)
    store.shut_down()
    return tmp_path / "store"


def read(volume):
    octets = bytearray(volume.octets)
    volume.read(0, memoryview(octets))
    return bytes(octets)


def own(store, name):
    return store.open(name)._stack[0].own.count() * 4096


def facts(store, name):
    return next(volume for volume in store.facts().volumes if volume.name == name)


def test_it_pauses_stops_and_goes_on(directory):
    store = VolumeStore(directory)
    flattening = Flattening(store, octets_per_second=SLOW)
    flattening.begin("v")
    flattening.begin("v")
    until(lambda: own(store, "v") == PIECE_OCTETS, "the first piece")
    volume = store.open("v")
    volume.write(volume.grant(1), 3 * PIECE_OCTETS, memoryview(b"x" * 4096))
    flattening.stop()
    assert own(store, "v") == PIECE_OCTETS + 4096
    store.shut_down()
    store = VolumeStore(directory)
    assert facts(store, "v").flattening
    flattening = Flattening(store)
    flattening.resume()
    until(lambda: not facts(store, "v").flattening, "it is flat")
    flattening.stop()
    assert facts(store, "v").shared_octets == 0
    twin = bytearray(IMAGE.ljust(8 * PIECE_OCTETS, b"\0"))
    twin[3 * PIECE_OCTETS : 3 * PIECE_OCTETS + 4096] = b"x" * 4096
    assert read(store.open("v")) == twin
    flattening.begin("v")  # nothing is left to do
    assert not facts(store, "v").flattening
    store.shut_down()
    (image,) = (directory / "images").iterdir()
    image.unlink()
    store = VolumeStore(directory)
    assert read(store.open("v")) == twin  # without the image
    store.shut_down()


def test_what_a_deleted_snapshot_leaves_is_absorbed_and_the_image_is_not(directory):
    store = VolumeStore(directory)
    volume = store.open("v")
    twin = bytearray(IMAGE.ljust(8 * PIECE_OCTETS, b"\0"))

    def write(offset, octets):
        volume.write(volume.grant(1), offset, memoryview(octets))
        twin[offset : offset + len(octets)] = octets

    write(0, b"a" * 8192)
    volume.unmap(volume.grant(1), PIECE_OCTETS, 8192)
    twin[PIECE_OCTETS : PIECE_OCTETS + 8192] = bytes(8192)
    store.snapshot("v@one")
    write(4096, b"b" * 4096)
    write(6 * PIECE_OCTETS, b"b" * 5000)
    store.snapshot("v@two")
    write(6 * PIECE_OCTETS + 4096, b"c" * 4096)
    flattening = Flattening(store)
    store.delete_snapshot("v@one")
    flattening.tidy()
    assert store.to_absorb() == {}  # v@two is read through it
    store.delete_snapshot("v@two")
    flattening.tidy()
    until(lambda: not list((directory / "volumes").glob("*.layer")), "nothing is left")
    flattening.stop()
    assert volume.layers == ()
    assert read(volume) == twin
    assert own(store, "v") == 8192 + 8192 + 8192
    store.shut_down()
    store = VolumeStore(directory)
    assert read(store.open("v")) == twin
    assert facts(store, "v").shared_octets >= len(IMAGE)
    store.shut_down()


def test_a_volume_that_is_closed_meanwhile_is_opened_again_and_a_deleted_one_left_alone(directory):
    store = VolumeStore(directory)
    flattening = Flattening(store, octets_per_second=4 * PIECE_OCTETS)
    flattening.begin("v")
    until(lambda: own(store, "v") >= PIECE_OCTETS, "the first piece")
    store.close("v")
    until(lambda: not facts(store, "v").flattening, "it is flat")
    assert read(store.open("v"))[: len(IMAGE)] == IMAGE
    slow = Flattening(store, octets_per_second=SLOW)
    store.create("w", "web@1", 0)
    slow.begin("w")
    until(lambda: own(store, "w") == PIECE_OCTETS, "the first piece")
    store.delete("w")
    store.create("w", "web@1", 0)
    slow.stop()
    flattening.stop()
    assert not facts(store, "w").flattening
    with pytest.raises(UnavailableError):
        flattening.begin("x")
    store.shut_down()


def test_what_is_asked_for_while_another_thing_is_done_is_done_too(directory):
    """A snapshot comes while a layer is absorbed, and flattening is asked for: the thread does both."""
    store = VolumeStore(directory)
    volume = store.open("v")
    volume.write(volume.grant(1), 0, memoryview(b"a" * 2 * PIECE_OCTETS))
    flattening = Flattening(store, octets_per_second=8 * PIECE_OCTETS)
    store.snapshot("v@one")
    store.delete_snapshot("v@one")
    flattening.tidy()
    until(lambda: own(store, "v") >= PIECE_OCTETS, "the first piece of the layer")
    store.snapshot("v@two")
    flattening.begin("v")
    until(lambda: not facts(store, "v").flattening, "it is flat")
    flattening.stop()
    assert read(volume)[: 2 * PIECE_OCTETS] == b"a" * 2 * PIECE_OCTETS
    store.shut_down()


def test_whoever_asks_while_the_thread_ends_is_heard(directory):
    store = VolumeStore(directory)
    flattening = Flattening(store)
    for number in range(60):
        store.create(f"w{number}", "web@1", 0)
        flattening.tidy()
        flattening._start(f"w{number}")  # it finds nothing to do and ends
        flattening.begin(f"w{number}")
    until(lambda: store.to_flatten() == (), "all are flat", seconds=60)
    flattening.stop()
    store.shut_down()
