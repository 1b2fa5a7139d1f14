"""How long does a clone of an image take, and how much of the disk?

    python bench/clone_seconds.py [--directory DIR] [--image-mib N] [--data-mib N] [--rounds N]

The image is sparse, with random data (10 GiB with 3 GiB by default), and lies in DIR beside the clones.  Alternating,
in the same run: Panloom's volume store, ``qemu-img create -b`` (qcow2), and ``cp --reflink=auto``, which copies where
the file system has no reflinks and is therefore done once.  Each peer is followed by ``fsync``, since ours is durable
when it returns; each peer starts a process for every clone, as it does for who uses it.  The result is JSON on standard
output: medians in seconds, octets that a clone takes, and the ratios to ours.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from panloom.storage.volume_store import VolumeStore

MIB = 1 << 20
PIECE = 16 * MIB


def make_image(path: Path, octets: int, data: int) -> None:
    """Spread random data evenly over a sparse file."""
    pieces = data // PIECE
    with path.open("wb") as file:
        file.truncate(octets)
        for number in range(pieces):
            file.seek(octets // pieces * number)
            file.write(os.urandom(PIECE))
        os.fsync(file.fileno())


def fsync(path: Path) -> None:
    for each in (path, path.parent):
        fd = os.open(each, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def timed(clone: Callable[[], Path]) -> tuple[float, int]:
    """Return the seconds of a clone, and the octets it takes; it is removed afterwards."""
    start = time.perf_counter()
    path = clone()
    seconds = time.perf_counter() - start
    octets = path.stat().st_blocks * 512
    path.unlink()
    return seconds, octets


def measure(directory: Path, rounds: int) -> dict[str, dict[str, float]]:
    source = directory / "golden"
    store = VolumeStore(directory / "store")
    store.import_image("golden@1", source)

    def ours() -> Path:
        store.create("clone", "golden@1", 0)
        return directory / "store" / "volumes" / "clone.volume"

    def qcow2() -> Path:
        path = directory / "clone.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(source), "-F", "raw", str(path)], check=True
        )
        fsync(path)
        return path

    def copied() -> Path:
        path = directory / "copy"
        subprocess.run(["cp", "--reflink=auto", str(source), str(path)], check=True)
        fsync(path)
        return path

    results: dict[str, list[tuple[float, int]]] = {"panloom": [], "qemu-img create -b": [], "cp --reflink=auto": []}
    for _ in range(rounds):
        results["panloom"].append(timed(ours))
        results["qemu-img create -b"].append(timed(qcow2))
    results["cp --reflink=auto"].append(timed(copied))
    store.shut_down()
    base = statistics.median(seconds for seconds, _ in results["panloom"])
    return {
        name: {
            "seconds_median": statistics.median(seconds for seconds, _ in each),
            "seconds_worst": max(seconds for seconds, _ in each),
            "octets": max(octets for _, octets in each),
            "ratio": statistics.median(seconds for seconds, _ in each) / base,
        }
        for name, each in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--image-mib", type=int, default=10 * 1024)
    parser.add_argument("--data-mib", type=int, default=3 * 1024)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="clone-seconds-", dir=chosen.directory))
    try:
        make_image(directory / "golden", chosen.image_mib * MIB, chosen.data_mib * MIB)
        clones = measure(directory, chosen.rounds)
    finally:
        shutil.rmtree(directory)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    parameters = {"image_mib": chosen.image_mib, "data_mib": chosen.data_mib, "rounds": chosen.rounds}
    machine = {"kernel": platform.release(), "processors": os.cpu_count(), "python": platform.python_version()}
    json.dump({"machine": machine, "commit": commit, "parameters": parameters, "clones": clones}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
