"""Whatever a kill or a power cut leaves of images, volumes and exports, at any moment: it holds what was promised.

``make campaign`` looks at a hundred thousand states; these are a few of them.
"""

import errno
import os
import random

import pytest

from panloom.disk_io import write_fully
from panloom.durable_names import Directory, PartialFile
from panloom.storage.overlay import Volume
from panloom.storage.volume_file import create_volume
from panloom.system_calls import SystemCalls, instead_of_the_kernel
from support.crash.chapter import Examination, in_memory
from support.crash.disk import ROOT, Contents, Disk, Names, Size, Sync, Write
from support.crash.recorder import Killed, Recorder
from support.crash.volume_story import VolumeStory

IDENTITY = b"\x31234567"
OCTETS = 16 * 4096


@pytest.mark.parametrize("seed", [5, 10, 23])
def test_no_crash_breaks_a_promise(seed):
    with in_memory() as directory:
        examination = Examination(directory)
        examination.tell(VolumeStory, seed, limit=2, steps=6)
    assert examination.violations == []
    assert examination.states.total() > 200


def test_killed_while_the_header_is_written_through_and_unplugged_while_the_next_is(tmp_path):
    """Of two copies one must be whole on the disk before the other is written."""
    root = tmp_path / "root"
    root.mkdir()
    boot = bytes(16)
    with Recorder(root) as recorder:
        create_volume(Directory(root), "v", octets=OCTETS, image=None, identity=IDENTITY)
        volume = Volume.open(root / "v", None, boot_id=boot)
        volume.raise_epoch(2)
        recorder.die_after(1)
        with pytest.raises(Killed):
            volume.raise_epoch(3)
        recorder.revive()
        volume = Volume.open(root / "v", None, boot_id=boot)
        seen = volume.epoch
        begun = len(recorder.log)
        volume.raise_epoch(5)
    disk = Disk()
    for number, entry in enumerate(recorder.log):
        disk.add(entry)
        if number < begun:
            continue
        for index, contents in enumerate(disk.after_power_cut(random.Random(number), 300)):
            left = tmp_path / f"left-{number}-{index}"
            left.mkdir()
            contents.write_to(left)
            assert Volume.open(left / "v", None, boot_id=b"another boot now").epoch in (seen, 5)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_header_that_cannot_be_written_through_takes_the_volume_offline(tmp_path, code):
    """The error may be that of a page of data: the kernel tells it once, to whoever asks first."""
    create_volume(Directory(tmp_path), "v", octets=OCTETS, image=None, identity=IDENTITY)
    volume = Volume.open(tmp_path / "v", None)
    grant = volume.grant(1)
    volume.write(grant, 0, memoryview(b"x" * 512))

    def refuse(fd, views, offset, flags):
        raise OSError(code, os.strerror(code))

    with instead_of_the_kernel(SystemCalls(pwritev=refuse)), pytest.raises(OSError, match=os.strerror(code)):
        volume.raise_epoch(2)
    with pytest.raises(OSError, match="offline"):
        volume.flush()
    with pytest.raises(OSError, match="offline"):
        volume.raise_epoch(2)  # what was not written down is not answered later either


def test_a_volume_that_was_only_half_made_has_no_name(tmp_path):
    for calls in range(20):
        root = tmp_path / str(calls)
        root.mkdir()
        with Recorder(root) as recorder:
            directory = Directory(root)
            recorder.die_after(calls)
            try:
                create_volume(directory, "v", octets=OCTETS, image=None, identity=IDENTITY)
            except Killed:
                pass
            else:
                break
        assert not (root / "v").exists() or Volume.open(root / "v", None).octets == OCTETS
    assert 5 < calls < 19


# --- the model


def states(*entries, contents=None):
    """Return every state that these entries may leave: what the file and the names then are."""
    disk = Disk(contents)
    for entry in entries:
        disk.add(entry)
    found = set()
    for left in disk.after_power_cut(None, 10_000):
        size, sectors = left.files.get(1, (0, {}))
        octets = b"".join(sectors.get(number, bytes(512))[:1] for number in range(-(-size // 512)))
        found.add((octets, tuple(sorted(left.directories[ROOT]))))
    return found


def sector(letter):
    return letter * 512


def test_what_was_not_synced_is_there_or_not_each_sector_by_itself():
    written = states(Write(1, 0, sector(b"a") + sector(b"b")))
    assert {octets for octets, _ in written} == {b"", b"ab", b"a\0", b"\0b", b"\0\0"}
    synced = states(Write(1, 0, sector(b"a") + sector(b"b")), Sync(1))
    assert synced == {(b"ab", ())}
    again = states(Write(1, 0, sector(b"a")), Sync(1), Write(1, 0, sector(b"b")), Write(1, 0, sector(b"c")))
    assert {octets for octets, _ in again} == {b"a", b"b", b"c"}


def test_what_was_written_through_says_nothing_of_the_rest():
    left = states(Write(1, 0, sector(b"a") * 2), Sync(1), Write(1, 0, sector(b"b") * 2), Sync(1, range(1)))
    assert {octets for octets, _ in left} == {b"ba", b"bb"}


def test_a_rename_is_whole_and_says_nothing_of_the_file():
    left = states(
        Size(1, 0), Names(ROOT, (("x.partial", 1),)), Write(1, 0, sector(b"a")),
        Names(ROOT, (("x.partial", None), ("x", 1))),
    )  # fmt: skip
    assert {names for _, names in left} == {(), ("x.partial",), ("x",)}
    assert (b"", ("x",)) in left
    durable = states(Names(ROOT, (("x", 1),)), Sync(ROOT))
    assert {names for _, names in durable} == {("x",)}


def test_after_a_failed_sync_no_other_makes_certain_what_it_lost():
    lost = states(Write(1, 0, sector(b"a")), Sync(1, failed=True), Sync(1))
    assert {octets for octets, _ in lost} == {b"a", b"\0"}
    written_anew = states(Write(1, 0, sector(b"a")), Sync(1, failed=True), Write(1, 0, sector(b"a")), Sync(1))
    assert {octets for octets, _ in written_anew} == {b"a"}


def test_after_a_failed_sync_of_a_directory_its_names_stay_uncertain_until_they_are_made_anew():
    made = Names(ROOT, (("x", 1),))
    lost = states(made, Sync(ROOT, failed=True), Sync(ROOT))
    assert {names for _, names in lost} == {(), ("x",)}
    others = states(made, Sync(ROOT, failed=True), Names(ROOT, (("y", 2),)), Sync(ROOT))
    assert {names for _, names in others} == {("y",), ("x", "y")}
    gone = states(made, Sync(ROOT, failed=True), Names(ROOT, (("x", None),)), Sync(ROOT))
    assert {names for _, names in gone} == {()}


def test_beyond_its_end_a_file_holds_nothing():
    """A size that was lost takes the data with it, also for whoever makes the file longer after the crash."""
    disk = Disk(Contents({1: (512, {0: sector(b"a")})}, {ROOT: {"x": 1}}))
    disk.add(Write(1, 512, sector(b"b")))
    left = {tuple(contents.files[1][1]) for contents in disk.after_power_cut(None, 100) if contents.files[1][0] == 512}
    assert left == {(0,)}
    short = Disk(Contents({1: (512, {0: sector(b"a")})}, {ROOT: {"x": 1}}))
    short.add(Size(1, 100))
    (cut,) = {contents.octets(1) for contents in short.after_power_cut(None, 100) if contents.files[1][0] == 100}
    assert cut == b"a" * 100


def test_a_killed_process_leaves_all_but_the_end_of_its_last_write():
    disk = Disk(Contents({1: (0, {})}, {ROOT: {"x": 1}}))
    (torn,) = disk.torn(Write(1, 0, b"a" * 4096 + b"b" * 100))
    assert torn.files[1][0] == 4096
    disk.add(Write(1, 0, b"a" * 4096 + b"b" * 100))
    assert disk.everything().files[1][0] == 4196


def test_two_names_of_one_file_are_that_after_a_crash(tmp_path):
    contents = Contents({1: (512, {0: sector(b"a")})}, {ROOT: {"x": 1, "y": 1}})
    contents.write_to(tmp_path)
    assert (tmp_path / "x").samefile(tmp_path / "y")


def test_a_write_that_nobody_recorded_is_noticed(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with Recorder(root) as recorder:
        Directory(root / "a")
        assert recorder.lost() == ()
        (root / "a" / "x").write_bytes(b"unseen")
    assert recorder.lost() == (root / "a" / "x",)


def test_the_recorder_misses_nothing(tmp_path):
    """What it wrote down, done again elsewhere, gives the same files."""
    root = tmp_path / "root"
    root.mkdir()
    with Recorder(root) as recorder:
        directory = Directory(root / "a")
        with PartialFile(directory, "x", 0o600) as file:
            write_fully(file.fd, [b"one", b"two" * 2000], 100)
            file.appear("x")
        with PartialFile(directory, "y", 0o600):
            pass
        create_volume(directory, "v", octets=OCTETS, image=None, identity=IDENTITY)
        volume = Volume.open(root / "a" / "v", None)
        grant = volume.grant(1)
        volume.write(grant, 512, memoryview(b"z" * 9000))
        volume.unmap(grant, 0, 8192)
        volume.close()
        directory.remove("x")
    disk = Disk()
    for entry in recorder.log:
        disk.add(entry)
    copy = tmp_path / "copy"
    copy.mkdir()
    disk.everything().write_to(copy)
    assert [path.name for path in (copy / "a").iterdir()] == ["v"]
    assert (copy / "a" / "v").read_bytes() == (root / "a" / "v").read_bytes()
