"""What a store takes of the file system that it lies on: run in a mount namespace by interop/test_shared_blocks.py.

python -m support.shared_blocks DIRECTORY  ─▶  {"import": octets, "flatten": octets, …} on standard output
"""

import json
import os
import random
import sys
from pathlib import Path

from panloom.storage.volume_store import VolumeStore

MIB = 1 << 20
IMAGE_OCTETS = 24 * MIB + 1000


def read(volume):
    octets = bytearray(volume.octets)
    volume.read(0, memoryview(octets))
    return bytes(octets)


def write(store, name, offset, octets):
    volume = store.open(name)
    volume.write(volume.grant(1), offset, memoryview(octets))
    return volume


def flatten(store, name):
    volume = store.open(name)
    volume.begin_flattening()
    volume.pull(0, volume.to_pull)
    store.end_flattening(name)
    volume.flush()


def measure(directory):
    """Return by how much each act made the file system fuller, in octets, and whether all disks are as they should."""
    found = {}

    def note(what):
        os.sync()
        state = os.statvfs(directory)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        found[what] = used - note.before
        note.before = used

    image = random.Random(5).randbytes(IMAGE_OCTETS)
    (directory / "golden").write_bytes(image)
    store = VolumeStore(directory / "store")
    note.before = 0
    note("empty")
    store.import_image("web@1", directory / "golden")
    note("import")
    store.create("flat", "web@1", 32 * MIB)
    twin = bytearray(image.ljust(32 * MIB, b"\0"))
    write(store, "flat", 5 * MIB + 512, b"own" * 1024)
    twin[5 * MIB + 512 : 5 * MIB + 512 + 3072] = b"own" * 1024
    flatten(store, "flat")
    note("flatten")
    found["equal"] = read(store.open("flat")) == twin
    volume = write(store, "flat", 0, b"w" * 8 * MIB)
    twin[: 8 * MIB] = b"w" * 8 * MIB
    volume.flush()
    note("write over what was shared")
    volume.unmap(volume.grant(1), 0, 16 * MIB)
    twin[: 16 * MIB] = bytes(16 * MIB)
    volume.flush()
    note("unmap")
    store.snapshot("flat@s")
    store.create("thick", None, 0, snapshot="flat@s", thick=True)
    flatten(store, "thick")
    note("thick")
    store.create("clone", "web@1", 0)
    store.shut_down()
    again = VolumeStore(directory / "store")
    found["equal"] &= read(again.open("flat")) == twin == read(again.open("thick"))
    found["equal"] &= read(again.open("clone"))[:IMAGE_OCTETS] == image  # nothing that was shared has changed
    again.shut_down()
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
