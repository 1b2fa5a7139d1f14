"""How long does a machine's disk stand still when the storage process is killed, beside tgtd?

    scripts/run python bench/resume_seconds.py [--rounds N] [--kills N] [--settle SECONDS] [--json FILE]

The machine writes one sector after the other, each through to the disk.  The server of its disk is killed with SIGKILL
and started anew at once; seconds count from the kill to the first write that the new process has done.  Panloom's knows
its exports from its own file; tgtd is told its targets again by the script, which is part of what is measured.  Both
sides leave the session to Debian's iscsid with the same settings.

Goal: at most 10 s.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import panloom_lab
import peer_boot
from measuring import ROOT, alternate, arguments, medians, report
from panloom.decide.records import target_of
from panloom.errors import UnavailableError
from panloom.lab.image import build_image
from panloom.storage.client import StorageClient
from peer_boot import Peers, Powered

QUESTION = "How long does a machine's disk stand still when the storage process is killed, beside tgtd?"
GOAL_SECONDS = 10.0


def writing_image() -> Path:
    """Return the lab's image whose machines write without pause, built once."""
    path = ROOT / ".cache" / "bench" / "writer.img"
    packages = Path(os.environ.get("PANLOOM_PACKAGES", ROOT / ".cache" / "debian"))
    build_image(packages, path, extra_files={"/panloom-writer": b""})
    return path


def of(resumed: list[float]) -> dict[str, Any]:
    return {"seconds": {"median": statistics.median(resumed), "longest": max(resumed)}, "each": resumed}


def panloom(image: Path, kills: int, settle: float) -> dict[str, Any]:
    return asyncio.run(_panloom(image, kills, settle))


async def _panloom(image: Path, kills: int, settle: float) -> dict[str, Any]:
    async with panloom_lab.running(image, nodes=1) as lab:
        storage = StorageClient(panloom_lab.DIRECTORY / "storage.sock")

        async def has_written() -> bool:
            try:
                sessions = (await storage.status()).sessions
            except UnavailableError:
                return False
            return any(s.target == str(target_of(panloom_lab.SERVER)) and s.writes > 0 for s in sessions)

        await lab.apply_text("bench.yaml", panloom_lab.DOCUMENT)
        await panloom_lab.until_answers()
        resumed = []
        for _ in range(kills):
            await asyncio.sleep(settle)
            at = time.monotonic()
            await lab.kill("storage")
            await lab.start_storage()
            await panloom_lab.until(has_written, "a write after the restart")
            resumed.append(time.monotonic() - at)
        await storage.close()
        return of(resumed)


def tgtd(image: Path, kills: int, settle: float) -> dict[str, Any]:
    disk = Path("/run/disk.img")
    shutil.copyfile(image, disk)
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        peers = Peers(Path(directory), disk, "chap")
        peers.start()
        machine = Powered()
        try:
            peer_boot.until(peer_boot.page, "the first page", within=90)
            resumed = []
            for _ in range(kills):
                time.sleep(settle)
                at = time.monotonic()
                peer_boot.restart_target(peers, disk)
                resumed.append(time.monotonic() - at)
            return of(resumed)
        finally:
            machine.off()
            peers.stop()


def main() -> int:
    parser = arguments(QUESTION, rounds=3)
    parser.add_argument("--kills", type=int, default=3, help="how often in each round (default 3)")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds of writing before each kill (default 10)")
    options = parser.parse_args()
    image = writing_image()
    rounds = alternate(
        {
            "panloom": lambda: panloom(image, options.kills, options.settle),
            "tgtd": lambda: tgtd(image, options.kills, options.settle),
        },
        options.rounds,
    )
    found = medians(rounds)
    ratios = {
        name: round(seconds / found["tgtd"][name], 3)
        for name, seconds in found["panloom"].items()
        if name in found["tgtd"]
    }
    goals = {"longest": f"<= {GOAL_SECONDS:g} s"}
    whole = report(options, QUESTION, rounds, {"goals": goals, "median_seconds": found, "ratios": ratios})
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
