"""How long does a real Debian take, from a recipe to its first page, by BIOS and by UEFI?

    scripts/run python bench/debian_seconds.py [--rounds N] [--json FILE]

``panloom image build`` makes the disk, once; packages that an earlier run has downloaded are in .cache/bench.  Then a
machine of each firmware boots a clone of it, in an enclosure of its own: GRUB, Debian's kernel, open-iscsi, systemd,
and a page that the recipe adds, served at the address of the server's virtual NIC.  Stages are those that it prints.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import panloom_lab
from measuring import ROOT, alternate, arguments, medians, report
from panloom.golden.build import build_image
from panloom.lab.chassis import Chassis
from panloom.lab.qemu import FirmwareKind
from panloom.lab.running import RunningLab

QUESTION = "How long does a real Debian take, from a recipe to its first page, by BIOS and by UEFI?"
MEMORY_OCTETS = 512 << 20
WITHIN_SECONDS = 400.0
RECIPE = r"""
size: 1GiB
files:
  /usr/local/sbin/facts: |
    #!/bin/sh
    . /run/panloom/personality
    mkdir -p /run/page
    printf 'server=%s/%s\nepoch=%s\nkernel=%s\nsystem=%s\n' \
        "$PAN" "$SERVER" "$EPOCH" "$(uname -r)" "$(systemctl --version | head -n 1)" > /run/page/facts.txt
  /etc/systemd/system/page.service: |
    [Unit]
    After=panloom-personality.service network.target
    [Service]
    ExecStartPre=/usr/local/sbin/facts
    ExecStart=/bin/busybox httpd -f -p 80 -h /run/page
    [Install]
    WantedBy=multi-user.target
run: [systemctl enable page.service]
"""


def boot(image: Path, firmware: FirmwareKind) -> dict[str, Any]:
    panloom_lab.WITHIN_SECONDS = WITHIN_SECONDS  # systemd in an emulator
    return asyncio.run(_boot(image, firmware))


async def _boot(image: Path, firmware: FirmwareKind) -> dict[str, Any]:
    chassis = Chassis.of(nodes=1, firmware=(firmware,))
    (machine,) = chassis.machines
    machine = msgspec.structs.replace(machine, memory_octets=MEMORY_OCTETS)
    lab = RunningLab(panloom_lab.DIRECTORY, chassis=msgspec.structs.replace(chassis, machines=(machine,)))
    try:
        await lab.start(image)
        await lab.apply_text("bench.yaml", panloom_lab.DOCUMENT)
        powering = await panloom_lab.until_event(lab, "powering")
        answered = await panloom_lab.until_answers()
        page = await asyncio.to_thread(panloom_lab.peer_boot.page)
        on = powering["monotonic"]
        seconds = {**panloom_lab.console_stages("n1", on), "answering": answered - on}
        return {"seconds": seconds, "page": page, "server": (await lab.get("resources", "server", panloom_lab.SERVER))}
    finally:
        await lab.stop()


def build(output: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        recipe = Path(directory) / "debian.yaml"
        recipe.write_text(RECIPE)
        began = time.monotonic()
        made = build_image(recipe, output, archive=output.parent / "archive")
        return {"seconds": time.monotonic() - began, "octets": made.octets, **made.provenance}


def main() -> int:
    options = arguments(QUESTION, rounds=1).parse_args()
    image = ROOT / ".cache" / "bench" / "debian.img"
    built = build(image)
    kinds: tuple[FirmwareKind, ...] = ("bios", "uefi")

    def contender(firmware: FirmwareKind) -> Callable[[], dict[str, Any]]:
        return lambda: boot(image, firmware)

    rounds = alternate({firmware: contender(firmware) for firmware in kinds}, options.rounds)
    result = {"goals": {}, "built": built, "median_seconds": medians(rounds), "ratios": {}}
    whole = report(options, QUESTION, rounds, result)
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
