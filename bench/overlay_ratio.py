"""What does a copy-on-write volume cost beside a plain file?

    scripts/run python bench/overlay_ratio.py [--rounds N] [--mib N] [--directory DIR] [--json FILE]

One iSCSI target of ours serves four units from one process: a plain file and a volume that was written once, the image
and a volume that is a clone of it and was never written.  ``qemu-img bench`` (libiscsi) reads and writes the two of a
pair right after each other, in the opposite order each other round.  All files are in the page cache.  Besides the time
of an I/O stands the processor time that it costs the target.  Goals: once written, a volume is within 10 % of the plain
file; what was never written is read within 10 % of the image.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import Round, arguments, medians, report
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import Access, Export, ExportedLun, NoFile
from panloom.storage.remote_transport import RemoteTransport
from panloom.storage.volume_store import VolumeStore
from panloom.values import Iqn

QUESTION = "What does a copy-on-write volume cost beside a plain file?"
TARGET = Iqn("iqn.2026-11.dev.panloom:bench.overlay")
MIB = 1 << 20
PAIRS = {"written": ("plain file", "volume"), "unwritten": ("image", "clone")}
UNITS = ("plain file", "volume", "image", "clone")
WORK = {
    # name: octets, depth, how many, step
    "4K depth 1": (4096, 1, 2000, 257 * 4096),
    "4K depth 32": (4096, 32, 8000, 257 * 4096),
    "1M depth 8": (MIB, 8, 256, MIB),
}
_DONE = re.compile(r"Run completed in ([0-9.]+) seconds")


def serve(directory: Path, octets: int) -> None:
    """Serve the four units until standard input ends; say at which port."""
    pieces = [os.urandom(MIB) for _ in range(octets // MIB)]
    for name in ("plain", "golden"):
        (directory / name).write_bytes(b"".join(pieces))
    store = VolumeStore(directory / "store")
    store.import_image("golden@1", directory / "golden")
    for name in ("volume", "clone"):
        store.create(name, "golden@1", 0)
    volume = store.open("volume")
    grant = volume.grant(1)
    for number, piece in enumerate(pieces):
        volume.write(grant, number * MIB, memoryview(piece))
    volume.flush()
    os.sync()
    luns = (
        ExportedLun(0, device=str(directory / "plain")),
        ExportedLun(1, volume="volume"),
        ExportedLun(2, device=str(directory / "golden")),
        ExportedLun(3, volume="clone"),
    )
    manager = ConnectionManager(store, NoFile(), print)
    manager.export(Export(str(TARGET), 1, luns, Access(None)))
    remote = RemoteTransport((("127.0.0.1", 0),), manager)
    remote.start()
    print(remote.addresses[0][1], flush=True)
    sys.stdin.read()
    remote.stop()
    manager.shut_down()


@contextlib.contextmanager
def served(directory: Path, octets: int) -> Iterator[tuple[int, int]]:
    """Run ``serve`` in a process of its own; yield the port and the clock of its processor time."""
    command = [sys.executable, __file__, "--serve", str(directory), "--mib", str(octets // MIB)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        try:
            yield int(process.stdout.readline()), ~process.pid << 3 | 2  # clock_getcpuclockid(3)
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def run(port: int, clock: int, unit: str, work: str, *, write: bool) -> tuple[float, float]:
    """Return the seconds that one I/O takes, and those of the target's processor time."""
    octets, depth, count, step = WORK[work]
    url = f"iscsi://127.0.0.1:{port}/{TARGET}/{UNITS.index(unit)}"
    options = ["-f", "raw", "-c", str(count), "-d", str(depth), "-s", str(octets), "-S", str(step)]
    before = time.clock_gettime(clock)
    done = subprocess.run(
        ["qemu-img", "bench", *options, *(["-w"] if write else []), url], capture_output=True, text=True, check=True
    )
    found = _DONE.search(done.stdout)
    if not found:
        raise RuntimeError(f"qemu-img said: {done.stdout}")
    return float(found[1]) / count, (time.clock_gettime(clock) - before) / count


def measure(port: int, clock: int, rounds: int) -> list[Round]:
    done: list[Round] = []
    for number in range(rounds):
        done.append({unit: {"seconds": {}, "load_average": os.getloadavg()[0]} for unit in UNITS})
        for work in WORK:
            for name, pair in PAIRS.items():
                for write in (False, True) if name == "written" else (False,):
                    for unit in pair if number % 2 == 0 else pair[::-1]:
                        seconds, processor = run(port, clock, unit, work, write=write)
                        stage = f"{'write' if write else 'read'} {work}"
                        done[-1][unit]["seconds"] |= {stage: seconds, f"{stage}, processor": processor}
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return done


def main() -> int:
    parser = arguments(QUESTION, rounds=11)
    parser.add_argument("--mib", type=int, default=256, help="the size of each disk (default 256)")
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--serve", type=Path, default=None, metavar="DIR", help="be the target of another run")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.mib * MIB)
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="overlay-ratio-", dir=options.directory) as directory,
        served(Path(directory), options.mib * MIB) as (port, clock),
    ):
        rounds = measure(port, clock, options.rounds)
    found = medians(rounds)
    ratios = {
        pair: {
            work: round(found[ours][work] / seconds, 3) for work, seconds in found[other].items() if work in found[ours]
        }
        for pair, (other, ours) in PAIRS.items()
    }
    result = {"goals": {"ratios": "<= 1.10"}, "median_seconds_of_one_io": found, "ratios": ratios}
    report(options, QUESTION, rounds, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
