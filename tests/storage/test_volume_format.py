"""What docs/volume-format.md says is enough: a reader that was written from it alone reads what the program wrote."""

import os
import random
import re
import struct
import zlib
from pathlib import Path

import pytest

import panloom
from panloom.disk_io import close_file, open_file, set_size, sync_data, write_fully
from panloom.durable_names import Directory, PartialFile
from panloom.errors import ConfigError
from panloom.storage.overlay import Volume
from panloom.storage.volume_store import VolumeStore
from support.crash.disk import Disk
from support.crash.recorder import Recorder
from support.crash.volume_scenes import header_of_version_1
from support.volume_reader import read_volume

DOCUMENT = Path(panloom.__file__).parents[2] / "docs" / "volume-format.md"
MIB = 1 << 20


def read(volume):
    octets = bytearray(volume.octets)
    volume.read(0, memoryview(octets))
    return bytes(octets)


def scribble(volume, chance, times):
    grant = volume.grant(1)
    for _ in range(times):
        offset = chance.randrange(volume.octets)
        length = min(chance.choice((1, 512, 4096, 70_000)), volume.octets - offset)
        if chance.random() < 0.3:
            volume.unmap(grant, offset, length)
        else:
            volume.write(grant, offset, memoryview(chance.randbytes(length)))


@pytest.fixture
def store(tmp_path):
    (tmp_path / "source").write_bytes(random.Random(3).randbytes(3 * MIB + 1000))
    store = VolumeStore(tmp_path / "store")
    store.import_image("web@1", tmp_path / "source")
    yield store
    store.shut_down()


def test_a_reader_from_the_document_reads_every_file(store, tmp_path):
    chance = random.Random(4)
    store.create("v", "web@1", 6 * MIB + 512)
    scribble(store.open("v"), chance, 40)
    store.snapshot("v@a")
    first = read(store.open("v"))
    scribble(store.open("v"), chance, 40)
    store.grow("v", 130 * MIB)
    scribble(store.open("v"), chance, 40)
    store.snapshot("v@b")
    scribble(store.open("v"), chance, 10)
    store.create("w", None, 131 * MIB, snapshot="v@a")
    scribble(store.open("w"), chance, 40)
    store.create("flat", None, 0, snapshot="v@b")
    flat = store.open("flat")
    flat.begin_flattening()
    flat.pull(0, flat.to_pull)
    store.end_flattening("flat")
    store.create("x", None, MIB, thick=True)
    scribble(store.open("x"), chance, 10)
    whole = {name: read(store.open(name)) for name in ("v", "w", "flat", "x")}
    for name, octets in whole.items():  # nothing is flushed yet: the volatile maps count
        assert read_volume(tmp_path / "store", name) == octets, name
    assert read_volume(tmp_path / "store", "v@a") == first
    assert read_volume(tmp_path / "store", "v@b") == whole["flat"]
    store.delete("w")
    store.delete_snapshot("v@a")
    assert read_volume(tmp_path / "store", "v") == whole["v"]


def test_version_1_is_read_written_grown_and_then_of_version_2(tmp_path):
    """A file as version 1 wrote it: 160 MiB in one group with maps of two pages; two clusters are own."""
    octets = 160 * MIB
    path = tmp_path / "v.volume"
    fields = struct.pack(
        ">8sIIQQQQ8s16s32s256s", b"PANLOOMV", 1, 4096, 4, 3, octets, 0, b"\x31234567", bytes(16), b"", b""
    )
    page = fields.ljust(4092, b"\0")
    with path.open("wb") as file:
        file.write(page + zlib.crc32(page).to_bytes(4, "big"))
        file.truncate(8192 + 2 * 8192 + octets)
        file.seek(8192 + 5000)  # cluster 40001: bit 1 of octet 5000
        file.write(b"\x02")
        file.seek(8192)
        file.write(b"\x01")
        file.seek(8192 + 2 * 8192)
        file.write(b"a" * 4096)
        file.seek(8192 + 2 * 8192 + 40001 * 4096)
        file.write(b"b" * 4096)
    twin = bytearray(octets)
    twin[:4096], twin[40001 * 4096 : 40002 * 4096] = b"a" * 4096, b"b" * 4096
    volume = Volume.open(path, None)
    assert (volume.epoch, volume.octets) == (3, octets)
    assert read(volume) == twin
    del twin
    volume.grow(300 * MIB)
    volume.write(volume.grant(3), 299 * MIB, memoryview(b"c" * 4096))
    volume.close()
    with path.open("rb") as file:
        assert b"\0\0\0\2" in (file.read(12)[8:], file.read(4096)[4092:])  # the version in either copy
    again = Volume.open(path, None)
    assert again.header.map_octets == 8192
    piece = bytearray(4096)
    for offset, fill in ((0, b"a"), (40001 * 4096, b"b"), (299 * MIB, b"c"), (257 * MIB, b"\0")):
        again.read(offset, memoryview(piece))
        assert piece == fill * 4096


@pytest.mark.parametrize("boot", [b"the one till now", b"the one that is."])
def test_a_power_cut_in_the_first_opening_of_version_1_leaves_its_newest_header(tmp_path, boot):
    """Of this boot it may be in the kernel's cache only; of an earlier one it is on the disk, and must stay there."""
    root = tmp_path / "root"
    root.mkdir()
    with Recorder(root) as recorder:
        with PartialFile(Directory(root), "v", 0o600) as file:
            write_fully(file.fd, [header_of_version_1(8, 9, boot), header_of_version_1(7, 3, boot)], 0)
            set_size(file.fd, 8192 + 2 * 4096 + MIB)
            path = file.appear("v")
        killed = open_file(path, os.O_RDWR)
        write_fully(killed, [header_of_version_1(9, 10, boot)], 4096)
        if boot == b"the one till now":
            sync_data(killed)
        close_file(killed)
        begun = len(recorder.log)
        assert Volume.open(path, None, boot_id=b"the one that is.").header.sequence == 10
    epochs = (10,) if boot == b"the one till now" else (9, 10)
    disk = Disk()
    for number, entry in enumerate(recorder.log):
        disk.add(entry)
        if number < begun:
            continue
        for index, contents in enumerate(disk.after_power_cut(random.Random(number), 100)):
            left = tmp_path / f"left-{number}-{index}"
            left.mkdir()
            contents.write_to(left)
            assert Volume.open(left / "v", None, boot_id=b"another boot now").epoch in epochs


@pytest.mark.parametrize(("at", "octet"), [(11, 3), (14, 32), (403, 8)])
def test_a_newer_format_is_refused_and_not_touched(store, tmp_path, at, octet):
    store.create("v", None, MIB)
    path = tmp_path / "store" / "volumes" / "v.volume"
    page = bytearray(path.read_bytes()[:4096])
    page[at] = octet
    page[4092:] = zlib.crc32(page[:4092]).to_bytes(4, "big")
    with path.open("r+b") as file:
        file.write(page)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer Panloom"):
        store.open("v")
    assert path.read_bytes() == before


def test_the_document_lists_every_field_where_it_is():
    """The offsets and lengths of the table follow one another and fill the page."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    position = 0
    for offset, octets in rows:
        assert int(offset) == position
        position += int(octets)
    assert position == 4096
