"""How long does it take until a 10 GiB clone of a Debian is a server's own?

    scripts/run python bench/personalise_seconds.py [--rounds N] [--image FILE] [--volume-gib N]
                                                    [--shared] [--json FILE]

FILE is a disk that ``panloom image build`` made, by default one of 1 GiB that is built once for what it is made of.
Each round:

    clone        the volume, durable
    partition    its last partition ends where the disk does, written by our own initiator
    identity     personality and NoCloud data made, both targets exported
    file system  ext4 made as large as the partition: here by resize2fs before it is mounted, by a machine afterwards
    name and machine-id, host keys
                 what the image itself does at its first boot, run here by its own scripts on the disk we serve

The disk is reached by QEMU's iSCSI initiator and FUSE export, a loop device and a mount in a namespace of its own.
That is told apart, as ``attach and detach``: a machine has its disk already.  Goal: all else within 2 s.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from measuring import ROOT, Round, arguments, medians, report
from panloom.control.disk_growth import grow_partitions
from panloom.decide.cloud_init import identity_disc
from panloom.decide.personality import Personality, PersonalityNic
from panloom.decide.records import personality_target_of, target_of, volume_of
from panloom.golden.build import build_image
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun

QUESTION = "How long does it take until a 10 GiB clone of a Debian is a server's own?"
RECIPE = "size: 1GiB\npackages: [openssh-server]\n"
GIB = 1 << 30
WITHIN_SECONDS = 60.0
SYSTEM = """
set -e
loop=$(losetup --find --show --offset $OFFSET --sizelimit $OCTETS "$FILE")
trap 'losetup --detach $loop' EXIT
began=$EPOCHREALTIME
resize2fs -f "$loop" > /dev/null 2>&1
grown=$EPOCHREALTIME
mount -t ext4 "$loop" "$ROOT"
mount --bind /dev "$ROOT/dev"
mount -t tmpfs run "$ROOT/run"
mkdir "$ROOT/run/panloom"
cp "$PERSONALITY" "$ROOT/run/panloom/personality"
mounted=$EPOCHREALTIME
sh "$ROOT/usr/lib/panloom/identity" "$ROOT" "$PERSONALITY"
named=$EPOCHREALTIME
chroot "$ROOT" /usr/lib/panloom/host-keys > /dev/null
keyed=$EPOCHREALTIME
printf '{"marks": [%s, %s, %s, %s, %s], "machine_id": "%s", "root_octets": %s}' $began $grown $mounted $named $keyed \\
    "$(cat "$ROOT/etc/machine-id")" "$(df -B1 --output=size "$ROOT" | tail -n 1)"
umount -R "$ROOT"
"""


def image(directory: Path) -> Path:
    """Return a disk of the recipe, built once for what goes into it, and remove those of anything else."""
    made_of = hashlib.sha256(RECIPE.encode())
    golden, node = ROOT / "src/panloom/golden", ROOT / "src/panloom/node"
    for part in sorted((*golden.rglob("*"), *node.glob("guest/*"), node / "agent.py")):
        if part.is_file() and part.suffix != ".pyc":
            made_of.update(f"{part.relative_to(golden.parent)}\n".encode() + part.read_bytes())
    path = directory / f"debian-ssh-{made_of.hexdigest()[:16]}.img"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        recipe = path.with_suffix(".yaml")
        recipe.write_text(RECIPE)
        build_image(recipe, path, archive=directory / "archive")
        for older in directory.glob("debian-ssh*.img"):
            if older != path:
                older.unlink()
    return path


@contextlib.asynccontextmanager
async def storage(directory: Path) -> AsyncIterator[tuple[StorageClient, str]]:
    """Run a storage process; yield its client, and its portal."""
    socket, portal = directory / "storage.sock", "127.0.0.1:23860"
    options = ("--directory", directory / "store", "--socket", socket, "--portal", portal)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "panloom.storage", *map(str, options))
    client = StorageClient(socket)
    try:
        await until(socket.exists, "the storage process listens")
        yield client, portal
    finally:
        await client.close()
        process.terminate()
        await process.wait()


async def until(fact: Any, what: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WITHIN_SECONDS:.0f} s: {what}")
        await asyncio.sleep(0.005)


async def personalise(client: StorageClient, portal: str, number: int, octets: int, work: Path) -> dict[str, Any]:
    """Make one server of the image, and return what took how long."""
    name, marks = f"bench/web{number}", [time.perf_counter()]
    await client.create_volume(volume_of(name), "debian@1", octets)
    marks.append(time.perf_counter())
    grown = await grow_partitions(name, volume_of(name), 1, client)
    marks.append(time.perf_counter())
    nic = PersonalityNic(lan="front", mac="02:50:4c:00:00:01", address="10.1.0.11")
    who = Personality(
        pan="bench", server=f"web{number}", node="n1", epoch=1, nics=(nic,), beacon_key="00",
        beacon_address=IPv4Address("10.77.0.1"), instance=str(uuid4()),
    )  # fmt: skip
    identity = ExportedLun.packed(0, identity_disc(who, (), ""))
    await client.export(str(personality_target_of(name)), (identity,), 1, Access(None))
    disk = ExportedLun(0, volume=volume_of(name))
    await client.export(str(target_of(name)), (disk, ExportedLun.packed(1, identity.octets())), 1, Access(None))
    marks.append(time.perf_counter())
    (work / "personality").write_bytes(who.to_octets())
    with attached(portal, name, octets, work) as disk_file:
        system, around = as_the_system_does(disk_file, work)
    attach = time.perf_counter() - marks[-1] - sum(system.values())
    checked = check(portal, name, octets, work)
    spans = [end - begin for begin, end in pairwise(marks)]
    stages = dict(zip(("clone", "partition", "identity"), spans, strict=True))
    own = {**stages, **system}
    return {
        "seconds": {"total": sum(own.values()), **own, "attach and detach": attach},
        "grown": grown,
        **around,
        **checked,
    }


@contextlib.contextmanager
def attached(portal: str, name: str, octets: int, work: Path) -> Iterator[Path]:
    """Show a server's disk as a file, by QEMU's own initiator and FUSE."""
    disk = work / "disk"
    disk.touch()
    node = {
        "driver": "iscsi",
        "node-name": "disk",
        "transport": "tcp",
        "portal": portal,
        "target": str(target_of(name)),
        "lun": 0,
        "initiator-name": "iqn.2026-11.dev.panloom:node.n1",
    }
    export = f"type=fuse,id=disk,node-name=disk,mountpoint={disk},writable=on"
    process = subprocess.Popen(("qemu-storage-daemon", "--blockdev", json.dumps(node), "--export", export))
    try:
        deadline = time.monotonic() + WITHIN_SECONDS
        while disk.stat().st_size != octets:
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("qemu-storage-daemon shows no disk")
            time.sleep(0.005)
        yield disk
    finally:
        process.terminate()
        process.wait()


def root_of(disk: Path) -> tuple[int, int]:
    """Return where the last partition begins and how long it is, in octets."""
    table = json.loads(subprocess.run(("sfdisk", "--json", disk), check=True, capture_output=True).stdout)
    last = table["partitiontable"]["partitions"][-1]
    return last["start"] * 512, last["size"] * 512


def as_the_system_does(disk: Path, work: Path) -> tuple[dict[str, float], dict[str, Any]]:
    (work / "root").mkdir(exist_ok=True)
    offset, octets = root_of(disk)
    facts = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "FILE": str(disk),
        "ROOT": str(work / "root"),
        "PERSONALITY": str(work / "personality"),
        "OFFSET": str(offset),
        "OCTETS": str(octets),
    }
    apart = ("unshare", "--mount", "--propagation", "private", "bash", "-c", SYSTEM)
    done = subprocess.run(apart, env={**os.environ, **facts}, check=True, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    began, grown, mounted, named, keyed = told.pop("marks")
    return {"file system": grown - began, "name and machine-id": named - mounted, "host keys": keyed - named}, told


def check(portal: str, name: str, octets: int, work: Path) -> dict[str, Any]:
    """Look at what has become of the disk, as e2fsck sees it."""
    with attached(portal, name, octets, work) as disk:
        offset, _ = root_of(disk)
        done = subprocess.run(("e2fsck", "-fn", f"{disk}?offset={offset}"), check=False, capture_output=True, text=True)
    return {"e2fsck": done.returncode}


async def measure(path: Path, rounds: int, octets: int, directory: Path) -> list[Round]:
    async with storage(directory) as (client, portal):
        await client.import_image("debian@1", path)
        found: list[Round] = []
        for number in range(1, rounds + 1):
            found.append({"panloom": await personalise(client, portal, number, octets, directory)})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        return found


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--volume-gib", type=int, default=10)
    parser.add_argument("--shared", action="store_true", help="other work runs on this machine: have the result say so")
    options = parser.parse_args()
    path = options.image or image(ROOT / ".cache" / "bench")
    directory = Path(tempfile.mkdtemp(prefix="personalise-"))
    try:
        rounds = asyncio.run(measure(path, options.rounds, options.volume_gib * GIB, directory))
    finally:
        shutil.rmtree(directory)
    report(options, QUESTION, rounds, {"goals": {"total": "<= 2"}, "median_seconds": medians(rounds), "ratios": {}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
