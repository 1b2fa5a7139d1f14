"""Volumes, snapshots and clones beside plain octets: whatever is done, and wherever a process is killed, they agree."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from panloom.errors import ConfigError, ConflictError, PanloomError, UnavailableError
from panloom.storage.volume_store import VolumeStore
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.crash.chapter import in_memory
from support.crash.recorder import CHANGES, Killed

IMAGE = random.Random(1).randbytes(21_700)  # five clusters, and a tail that is no whole block
SECTORS = 12 * 8 + 3
OCTETS = SECTORS * 512
LARGEST = 40 * 8 * 512
NAMES = ("v1", "v2", "v3")
SNAPSHOTS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 5)
PLACES = st.one_of(
    st.tuples(st.integers(0, LARGEST - 1), st.integers(1, 14_000)),
    st.tuples(st.integers(0, 12), st.integers(1, 4)).map(lambda run: (run[0] * 4096, run[1] * 4096)),
)
STEPS = st.integers(0, 14)


def read(volume):
    octets = bytearray(volume.octets)
    volume.read(0, memoryview(octets))
    for start in range(0, volume.octets, 2048):
        extent = volume.extent(start, min(2048, volume.octets - start))
        if extent is not None:  # all of it is in one file
            file, at = extent
            assert os.pread(file.fd, min(2048, volume.octets - start), at) == octets[start : start + 2048]
    return bytes(octets)


def dying_after(calls):
    """Return system calls of a process that dies within the call that follows so many changes."""
    left = [calls]

    def through(name):
        real = getattr(SystemCalls(), name)

        def call(*arguments):
            if name in CHANGES:
                left[0] -= 1
            if left[0] < 0 and name != "close":
                raise Killed
            return real(*arguments)

        return call

    return SystemCalls(**{name: through(name) for name in SystemCalls.__slots__})


class Twin(RuleBasedStateMachine):
    """A store beside a dict; each act is also done by a process that is killed after some of its system calls."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=os.environ["PANLOOM_TEST_DIRECTORY"]))
        (self.root / "source").write_bytes(IMAGE)
        self.volumes = {}  # name → octets
        self.snapshots = {}  # label → octets
        self.clone_of = {}  # volume → labels of the snapshots through which it is read
        self.lineage = {}  # label of a snapshot → likewise, its own included
        self.store = VolumeStore(self.root / "store")
        self.store.import_image("web@1", self.root / "source")

    @initialize()
    def begin(self):
        self.store.create("v1", "web@1", OCTETS)
        self.volumes["v1"] = bytearray(IMAGE.ljust(OCTETS, b"\0"))

    def teardown(self):
        self.store.shut_down()
        shutil.rmtree(self.root)

    def kill(self):
        os.close(self.store._lock_fd)
        self.store = VolumeStore(self.root / "store")

    def do(self, act, steps):
        """Do something; with ``steps``, in a process that is killed after so many calls.  True: it came to its end."""
        if steps is None:
            act()
            return True
        with instead_of_the_kernel(dying_after(steps)):
            try:
                act()
            except Killed:
                done = False
            else:
                done = True
        self.kill()
        return done

    def some(self, number):
        """Return one of the volumes there are, and its octets."""
        name = sorted(self.volumes)[number % len(self.volumes)]
        return name, self.volumes[name]

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS, where=PLACES, fill=st.integers(1, 255))
    def write(self, number, where, fill):
        (name, twin), (offset, length) = self.some(number), where
        offset %= len(twin)
        data = bytes([fill]) * min(length, len(twin) - offset)
        volume = self.store.open(name)
        volume.write(volume.grant(1), offset, memoryview(data))
        twin[offset : offset + len(data)] = data

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS, where=PLACES)
    def unmap(self, number, where):
        (name, twin), (offset, length) = self.some(number), where
        offset %= len(twin)
        length = min(length, len(twin) - offset)
        volume = self.store.open(name)
        volume.unmap(volume.grant(1), offset, length)
        twin[offset : offset + length] = bytes(length)

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS)
    def flush(self, number):
        self.store.open(self.some(number)[0]).flush()

    @rule()
    def restart(self):
        self.store.shut_down()
        self.store = VolumeStore(self.root / "store")

    @rule()
    def be_killed(self):
        self.kill()

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS, more=st.integers(0, 40), steps=st.none() | STEPS)
    def grow(self, number, more, steps):
        name, _ = self.some(number)
        octets = min(LARGEST, len(self.volumes[name]) + more * 512)
        done = self.do(lambda: self.store.grow(name, octets), steps)
        size = self.store.open(name).octets
        assert size == octets or (not done and size == len(self.volumes[name]))
        self.volumes[name] = self.volumes[name].ljust(size, b"\0")

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS, snapshot=SNAPSHOTS, steps=st.none() | STEPS)
    def take(self, number, snapshot, steps):
        name, _ = self.some(number)
        label = f"{name}@{snapshot}"
        if label in self.snapshots:
            return
        if self.store.open(name).header.flattening:
            with pytest.raises(ConflictError, match="being flattened"):
                self.store.snapshot(label)
            return
        done = self.do(lambda: self.store.snapshot(label), steps)
        there = {facts.name for facts in self.store.facts().snapshots}
        assert label in there or not done
        if label in there:
            self.snapshots[label] = bytes(self.volumes[name])
            self.lineage[label] = {label, *self.clone_of.get(name, ())}
            self.clone_of[name] = set(self.lineage[label])

    @precondition(lambda self: self.snapshots)
    @rule(number=NUMBERS, steps=st.none() | STEPS)
    def delete_snapshot(self, number, steps):
        label = sorted(self.snapshots)[number % len(self.snapshots)]
        if any(label in lineage for clone, lineage in self.clone_of.items() if clone != label.partition("@")[0]):
            with pytest.raises(ConflictError, match="is a clone of snapshot"):
                self.store.delete_snapshot(label)
            return
        done = self.do(lambda: self.store.delete_snapshot(label), steps)
        there = {facts.name for facts in self.store.facts().snapshots}
        assert label not in there or not done
        if label not in there:
            self.snapshots.pop(label, None)
            for lineage in (*self.clone_of.values(), *self.lineage.values()):
                lineage.discard(label)  # the name may be given again

    @precondition(lambda self: self.snapshots and len(self.volumes) < len(NAMES))
    @rule(number=NUMBERS, steps=st.none() | STEPS, more=st.integers(0, 3))
    def clone(self, number, steps, more):
        label = sorted(self.snapshots)[number % len(self.snapshots)]
        name = next(name for name in NAMES if name not in self.volumes)
        octets = len(self.snapshots[label]) + more * 4096
        done = self.do(lambda: self.store.create(name, None, octets, snapshot=label), steps)
        if name in {facts.name for facts in self.store.facts().volumes}:
            self.volumes[name] = bytearray(self.snapshots[label].ljust(octets, b"\0"))
            self.clone_of[name] = set(self.lineage[label])
        else:
            assert not done

    @precondition(lambda self: len(self.volumes) > 1)
    @rule(number=NUMBERS, steps=st.none() | STEPS)
    def delete(self, number, steps):
        name, _ = self.some(number)
        if any(label.startswith(f"{name}@") for label in self.snapshots):
            with pytest.raises(ConflictError, match="has snapshots"):
                self.store.delete(name)
            return
        done = self.do(lambda: self.store.delete(name), steps)
        there = {facts.name for facts in self.store.facts().volumes}
        assert name not in there or not done
        if name not in there:
            self.volumes.pop(name, None)
            self.clone_of.pop(name, None)

    @precondition(lambda self: self.volumes)
    @rule(number=NUMBERS, start=st.integers(0, 10), steps=st.none() | STEPS)
    def flatten_a_part(self, number, start, steps):
        name, _ = self.some(number)

        def act():
            volume = self.store.open(name)
            if volume.to_pull:
                volume.begin_flattening()
                volume.pull(start * 4096, (start + 3) * 4096)

        self.do(act, steps)

    @precondition(lambda self: self.store.to_flatten())
    @rule(steps=st.none() | st.integers(0, 60))
    def flatten_the_rest(self, steps):
        name = self.store.to_flatten()[0]

        def act():
            self.store.open(name).pull(0, LARGEST)
            self.store.end_flattening(name)

        if self.do(act, steps):
            assert self.store.open(name).layers == ()
            assert name not in self.store.to_flatten()
        if not self.store.open(name).layers:
            self.clone_of.pop(name, None)

    @precondition(lambda self: self.store.to_absorb())
    @rule(steps=st.none() | st.integers(0, 60), part=st.booleans())
    def absorb(self, steps, part):
        name, layer = next(iter(self.store.to_absorb().items()))

        def act():
            self.store.open(name).absorb(layer.header.id, 0, 8192 if part else LARGEST)
            if not part:
                self.store.end_absorbing(name, layer.header.id)

        if self.do(act, steps) and not part:
            assert layer.header.id not in {frozen.header.id for frozen in self.store.open(name).layers}

    @precondition(lambda self: self.snapshots)
    @rule(number=NUMBERS)
    def look_at_a_snapshot(self, number):
        label = sorted(self.snapshots)[number % len(self.snapshots)]
        self.store.create("looker", None, 0, snapshot=label)
        assert read(self.store.open("looker")) == self.snapshots[label]
        self.store.delete("looker")

    @invariant()
    def reads_as_the_twin(self):
        facts = self.store.facts()
        assert {volume.name for volume in facts.volumes} == set(self.volumes)
        assert {snapshot.name for snapshot in facts.snapshots} == set(self.snapshots)
        for name, twin in self.volumes.items():
            assert read(self.store.open(name)) == twin, name


Twin.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)


class TestTwin(Twin.TestCase):
    @pytest.fixture(autouse=True)
    def _directory(self, monkeypatch):
        with in_memory() as directory:
            monkeypatch.setenv("PANLOOM_TEST_DIRECTORY", str(directory))
            yield


@pytest.fixture
def store(tmp_path):
    (tmp_path / "source").write_bytes(IMAGE)
    store = VolumeStore(tmp_path / "store")
    store.import_image("web@1", tmp_path / "source")
    yield store
    store.shut_down()


def fill(store, name, offset, octets):
    volume = store.open(name)
    volume.write(volume.grant(1), offset, memoryview(octets))
    return volume


def test_a_snapshot_costs_nothing_and_takes_what_comes_after(store):
    store.create("v", None, 64 << 20)
    fill(store, "v", 0, b"x" * (8 << 20))
    assert store.snapshot("v@before")
    assert not store.snapshot("v@before")
    fill(store, "v", 0, b"y" * 4096)
    (volume,), (snapshot,) = store.facts().volumes, store.facts().snapshots
    assert volume.allocated_octets < 64 << 10
    assert snapshot.allocated_octets >= 8 << 20
    assert (volume.unique_octets, volume.shared_octets) == (volume.allocated_octets, snapshot.allocated_octets)


def test_accounts_say_what_comes_back(store):
    store.create("v", None, 64 << 20)
    fill(store, "v", 0, b"x" * (4 << 20))
    store.snapshot("v@before")
    store.create("w", None, 0, snapshot="v@before")
    fill(store, "w", 8 << 20, b"y" * (2 << 20))
    _, clone = store.facts().volumes
    assert clone.snapshot == "v@before"
    assert clone.unique_octets == clone.allocated_octets >= 2 << 20
    assert clone.shared_octets >= 4 << 20
    store.delete("w")
    store.delete_snapshot("v@before")
    (volume,) = store.facts().volumes  # its own again, though nobody can name it
    assert volume.unique_octets >= 4 << 20
    assert volume.shared_octets == 0


@pytest.mark.parametrize("label", ["v", "v@", "v@A", "v@a.b", "@a", "../v@a", "v@a/b", "v@" + "a" * 64])
def test_names_that_no_snapshot_has(store, label):
    store.create("v", None, 4096)
    with pytest.raises(ConfigError):
        store.snapshot(label)


def test_what_is_not_there(store):
    with pytest.raises(UnavailableError, match="no volume v"):
        store.snapshot("v@a")
    with pytest.raises(UnavailableError, match="no snapshot v@a"):
        store.create("w", None, 0, snapshot="v@a")
    store.delete_snapshot("v@a")


def test_a_clone_is_as_large_as_its_snapshot_or_larger(store):
    store.create("v", None, 1 << 20)
    store.snapshot("v@a")
    assert store.create("w", None, 0, snapshot="v@a") == (1 << 20, True)
    assert store.create("w", None, 0, snapshot="v@a") == (1 << 20, False)
    assert store.create("x", None, 2 << 20, snapshot="v@a") == (2 << 20, True)
    with pytest.raises(ConfigError):
        store.create("y", None, 1 << 19, snapshot="v@a")
    with pytest.raises(ConflictError, match="over snapshot v@a"):
        store.create("w", "web@1", 1 << 20)
    assert len({store.open(name).identity for name in "vwx"}) == 3


def test_a_disk_never_becomes_smaller(store):
    store.create("v", None, 1 << 20)
    with pytest.raises(ConflictError, match="cannot become smaller"):
        store.grow("v", 1 << 19)
    for octets in (0, 1 << 45, (1 << 20) + 1):
        with pytest.raises(ConfigError):
            store.grow("v", octets)
    with pytest.raises(PanloomError):
        store.grow("w", 1 << 20)
    assert store.grow("v", 1 << 20) == 2048


def test_a_disk_grows_over_many_groups(store):
    store.create("v", "web@1", 100 << 20)
    store.grow("v", 1 << 30)
    for offset in (0, (128 << 20) - 512, (256 << 20) - 4096, (1 << 30) - 9000):
        fill(store, "v", offset, b"%x" % offset * 500)
    store.open("v").flush()
    store.close("v")
    for offset in (0, (128 << 20) - 512, (256 << 20) - 4096, (1 << 30) - 9000):
        octets = bytearray(500 * len(b"%x" % offset))
        store.open("v").read(offset, memoryview(octets))
        assert octets == b"%x" % offset * 500


def test_a_volume_is_frozen_so_many_times_and_no_more(store, monkeypatch):
    monkeypatch.setattr("panloom.storage.volume_store.MAX_LAYERS", 3)
    store.create("v", None, 1 << 20)
    for label in ("v@a", "v@b", "v@c"):
        store.snapshot(label)
    with pytest.raises(ConflictError, match="flatten it first"):
        store.snapshot("v@d")


def test_a_flat_clone_is_there_without_the_snapshot_it_was_made_of(store):
    store.create("v", None, 1 << 20)
    store.snapshot("v@a")
    store.create("w", None, 0, snapshot="v@a")
    volume = store.open("w")
    volume.begin_flattening()
    volume.pull(0, volume.to_pull)
    store.end_flattening("w")
    store.delete_snapshot("v@a")
    assert store.create("w", None, 0, snapshot="v@a") == (1 << 20, False)


def test_an_image_is_read_by_what_a_person_can_name(store):
    store.create("v", "web@1", 0)
    readers = [store.facts().images[0].readers]
    for label in ("v@one", "v@two"):
        fill(store, "v", 0, label.encode())
        store.snapshot(label)
        readers.append(store.facts().images[0].readers)
    for label in ("v@one", "v@two"):
        store.delete_snapshot(label)  # its file stays, without a name
        readers.append(store.facts().images[0].readers)
    assert readers == [("v",), ("v@one",), ("v@one",), ("v@two",), ("v",)]
