"""How long does a clone of an image take, and how much of the disk?

    scripts/run python bench/clone_seconds.py [--rounds N] [--image-mib N] [--data-mib N] [--directory DIR]
                                              [--json FILE]

The image is sparse, with random data (10 GiB with 3 GiB by default), and lies in DIR beside the clones.  Alternating,
in the same run: Panloom's volume store and ``qemu-img create -b`` (qcow2); and once ``cp --reflink=auto``, which copies
where the file system has no reflinks.  Each peer is followed by ``fsync``, since ours is durable when it returns; each
peer starts a process for every clone, as it does for who uses it.  Goals: less than 50 ms, less than 1 MiB.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import Round, arguments, medians, report
from panloom.storage.volume_store import VolumeStore

QUESTION = "How long does a clone of an image take, and how much of the disk?"
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


def timed(clone: Callable[[], Path]) -> dict[str, Any]:
    """Return the seconds of a clone, and the octets it takes; it is removed afterwards."""
    start = time.perf_counter()
    path = clone()
    seconds = time.perf_counter() - start
    octets = path.stat().st_blocks * 512
    path.unlink()
    return {"seconds": {"clone": seconds}, "octets": octets}


def measure(directory: Path, number: int) -> list[Round]:
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

    rounds: list[Round] = [{"panloom": timed(ours), "qemu-img create -b": timed(qcow2)} for _ in range(number)]
    rounds[-1]["cp --reflink=auto"] = timed(copied)
    store.shut_down()
    return rounds


def main() -> int:
    parser = arguments(QUESTION, rounds=20)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--image-mib", type=int, default=10 * 1024)
    parser.add_argument("--data-mib", type=int, default=3 * 1024)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="clone-seconds-", dir=options.directory))
    try:
        make_image(directory / "golden", options.image_mib * MIB, options.data_mib * MIB)
        rounds = measure(directory, options.rounds)
    finally:
        shutil.rmtree(directory)
    found = medians(rounds)
    octets = {name: max(each[name]["octets"] for each in rounds if name in each) for name in found}
    ours = found["panloom"]["clone"]
    result = {
        "goals": {"seconds": "< 0.05", "octets": f"< {MIB}"},
        "median_seconds": found,
        "octets": octets,
        "ratios": {name: round(ours / seconds["clone"], 6) for name, seconds in found.items() if name != "panloom"},
    }
    report(options, QUESTION, rounds, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
