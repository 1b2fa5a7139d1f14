"""How long does a machine take from power-on to userland, beside tgtd and dnsmasq booting the same image?

    scripts/run python bench/boot_seconds.py [--rounds N] [--json FILE]

Each round boots one machine twice, in alternating order, under CHAP: by Panloom from a clone of the image, and by tgtd,
dnsmasq and Python's web server from a copy of it (``peer_boot``).  Each boot has an enclosure of its own.  Stages are
those that the image prints on the console; ``answering`` is the first page.  Goal: ratio of ``userland`` at most 1.1.
"""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import panloom_lab
import peer_boot
from measuring import alternate, arguments, medians, report

QUESTION = "How long from power-on to userland, beside tgtd and dnsmasq booting the same image?"
GOAL_RATIO = 1.1


def panloom(image: Path) -> dict[str, Any]:
    return asyncio.run(_panloom(image))


async def _panloom(image: Path) -> dict[str, Any]:
    async with panloom_lab.running(image, nodes=1) as lab:
        await lab.apply_text("bench.yaml", panloom_lab.DOCUMENT)
        powering = await panloom_lab.until_event(lab, "powering")
        answered = await panloom_lab.until_answers()
        on = powering["monotonic"]
        return {"seconds": {**panloom_lab.console_stages("n1", on), "answering": answered - on}}


def peers(image: Path) -> dict[str, Any]:
    disk = Path("/run/disk.img")
    shutil.copyfile(image, disk)
    result = peer_boot.boot(disk, "chap", restart=False)
    return {"seconds": {**result["stages"], "answering": result["page_seconds"]}}


def main() -> int:
    options = arguments(QUESTION, rounds=5).parse_args()
    image = panloom_lab.bootable_image()
    contenders = {"panloom": lambda: panloom(image), "tgtd + dnsmasq": lambda: peers(image)}
    rounds = alternate(contenders, options.rounds)
    found = medians(rounds)
    ours, theirs = found["panloom"], found["tgtd + dnsmasq"]
    result = {
        "goals": {"ratio of userland": f"<= {GOAL_RATIO}"},
        "median_seconds": found,
        "ratios": {stage: round(ours[stage] / theirs[stage], 3) for stage in ours if stage in theirs},
    }
    whole = report(options, QUESTION, rounds, result)
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
