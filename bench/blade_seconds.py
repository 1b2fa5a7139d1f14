"""How soon is a machine that nobody named a server, with a disk of its own?

    scripts/run python bench/blade_seconds.py [--rounds N] [--case one sixteen qemu] [--json FILE]

A rule is there before the machines are.  From their power-on, seconds:

    seen       it has an address, and panloom get nodes shows it: the last of all
    installed  node, server, target and disk are made
    userland   its system runs, from that disk
    up         the control node has heard of it

    one, sixteen   emulated machines, whose firmware is our own, so that what is measured is ours
    qemu           one machine of QEMU's with SeaBIOS, its iPXE and Debian's kernel; ``own share``: from when it is
                   seen to the answer with its server's boot script, less the second that iPXE sleeps in between

Goals: one at most 3 s, sixteen together at most 15 s; one of QEMU's at most 25 s, of which ours at most 1 s.
"""

import asyncio
import sys
import time
from typing import Any

from measuring import alternate, arguments, medians, report
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import make_blank_image
from panloom.lab.running import RunningLab
from panloom_lab import DIRECTORY, bootable_image, until_event

QUESTION = "How soon is a machine that nobody named a server, with a disk of its own?"
GOALS = {"one": {"up": 3.0}, "sixteen": {"up": 15.0}, "qemu": {"up": 25.0, "own share": 1.0}}
MACHINES = {"one": 1, "sixteen": 16, "qemu": 1}
SLEPT_SECONDS = 1.0
WITHIN_SECONDS = 120.0
DOCUMENTS = """
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24, range: 10.1.0.100-10.1.0.199}
---
apiVersion: panloom/v1
kind: Rule
name: web
server: {pan: shop, image: web, lans: [front]}
"""


def measure(case: str) -> dict[str, Any]:
    return asyncio.run(_measure(case))


async def _measure(case: str) -> dict[str, Any]:
    count = MACHINES[case]
    lab = RunningLab(DIRECTORY, chassis=Chassis.of(nodes=count, qemu=count if case == "qemu" else 0, blades=count))
    DIRECTORY.mkdir(parents=True)
    image = bootable_image() if case == "qemu" else make_blank_image(DIRECTORY / "blank.img")
    try:
        await lab.start(image)
        await until_event(lab, "image")
        await lab.apply_text("bench.yaml", DOCUMENTS)
        began = time.monotonic()
        await asyncio.gather(*(lab.power(machine.name, "on") for machine in lab.chassis.machines))
        deadline = began + WITHIN_SECONDS
        while len(ups := await _events(lab, "up")) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {WITHIN_SECONDS:.0f} s: {count} servers are up, but {len(ups)}")
            await asyncio.sleep(0.1)
        boots = await _events(lab, "boot")
        seen = max(event["monotonic"] for event in await _events(lab, "discovered"))
        made = [event["monotonic"] for event in await _events(lab, "blade") if event["text"].startswith("installed")]
        stages = {
            "seen": seen,
            "installed": max(made),
            "userland": max(event["data"]["reached"] for event in boots if event["text"] == "userland"),
            "up": max(event["monotonic"] for event in ups),
        }
        seconds = {stage: at - began for stage, at in stages.items()}
        scripts = [event["data"]["reached"] for event in boots if event["text"] == "script"]
        return {"seconds": {**seconds, "own share": max(scripts) - seen - SLEPT_SECONDS}}
    finally:
        await lab.stop()


async def _events(lab: RunningLab, kind: str) -> list[dict[str, Any]]:
    return [event for event in (await lab.get("events", after=0))["events"] if event["kind"] == kind]


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--case", choices=GOALS, nargs="+", default=list(GOALS))
    options = parser.parse_args()
    rounds = alternate({case: lambda case=case: measure(case) for case in options.case}, options.rounds)
    result = {
        "goals": {
            case: {stage: f"<= {seconds:g} s" for stage, seconds in GOALS[case].items()} for case in options.case
        },
        "median_seconds": medians(rounds),
    }
    return 1 if report(options, QUESTION, rounds, result)["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
