"""A lab in the background: a chassis in namespaces of its own that outlives the command that started it.

    panloom lab up ─▶ claim ─▶ enclosure ─▶ image, processes, documents ─▶ let go: the command returns
                                   └─▶ minds its processes, as systemd would, until it is told to end

Its first process is the first of a PID namespace: with it, however it ends, ends everything.  What others need to find
it: ``lab.whereabouts``.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from panloom.errors import PanloomError
from panloom.lab.chassis import Chassis
from panloom.lab.checkout import find
from panloom.lab.disk_marks import make_blank_image
from panloom.lab.enclosure import Enclosure, run_enclosed
from panloom.lab.image import build_image
from panloom.lab.qemu import kvm_is_usable
from panloom.lab.running import RunningLab
from panloom.lab.story import Story
from panloom.lab.whereabouts import Claim, Whereabouts

DIRECTORY = Path("/run/panloom")  # within the lab
AGAIN_SECONDS = 0.2  # systemd's RestartSec is a tenth of a second by default


def start(whereabouts: Whereabouts, chassis: Chassis) -> int:
    """Start a lab and return once its documents are applied: the exit status, 130 when it was interrupted.

    ConflictError if there is one.  The process that calls this can start no other process afterwards, and has its
    standard files only: a lab that outlives its caller keeps none of the caller's, a lock of flock(1) for one.
    """
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    packages = find(".cache/debian", "PANLOOM_PACKAGES") if _has_qemu(chassis) else None
    claim = whereabouts.claim()
    status = 1
    try:
        status = run_enclosed(lambda enclosure: _inside(enclosure, claim, chassis, packages))
    finally:
        if status == 0:
            claim.let_go()
        else:
            claim.forget()
    return status


def _has_qemu(chassis: Chassis) -> bool:
    return any(machine.kind == "qemu" for machine in chassis.machines)


def _inside(enclosure: Enclosure, claim: Claim, chassis: Chassis, packages: Path | None) -> int:
    try:
        lab = RunningLab(DIRECTORY, chassis=chassis)
        claim.note(enclosure.pid, chassis, lab.control_socket)
        asyncio.run(_run(enclosure, lab, packages))
    except (PanloomError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"panloom lab up: {error}", style="red", markup=False)
        return 1
    finally:
        claim.forget()
    return 0


async def _run(enclosure: Enclosure, lab: RunningLab, packages: Path | None) -> None:
    try:
        with Story(Console(highlight=False)) as story:
            image = await _make_image(story, packages)
            story.begin("start the chassis")
            await lab.start(image, waiting=story.wait)
            story.done(_described(lab.chassis))
        enclosure.let_go()
        await _mind(lab)
    finally:
        await lab.stop()


async def _make_image(story: Story, packages: Path | None) -> Path:
    """Return the image of all servers: a system that boots where there are machines of QEMU's."""
    path = DIRECTORY / "web.img"
    path.parent.mkdir(parents=True, exist_ok=True)
    if packages is None:
        return make_blank_image(path)
    story.begin("build the image")
    made = await asyncio.to_thread(build_image, packages, path)
    story.done(f"{made.octets >> 20} MiB, Linux {made.kernel}, busybox")
    return path


def _described(chassis: Chassis) -> str:
    qemu = sum(machine.kind == "qemu" for machine in chassis.machines)
    how = "under KVM" if qemu and kvm_is_usable() else "no KVM"
    parts = [f"{qemu} of QEMU ({how})"] if qemu else []
    parts += [f"{len(chassis.machines) - qemu} emulated"] if qemu < len(chassis.machines) else []
    return f"{len(chassis.machines)} nodes, off: {', '.join(parts)}"


async def _mind(lab: RunningLab) -> None:
    """Start again what ends, until cancelled; UnavailableError when something does not start again."""
    async with asyncio.TaskGroup() as group:
        for name, again in (
            ("supervisor", lab.start_supervisor),
            ("storage", lab.start_storage),
            ("control", lab.start_control),
        ):
            group.create_task(_keep(lab, name, again), name=name)


async def _keep(lab: RunningLab, name: str, again: Callable[[], Awaitable[None]]) -> None:
    while True:
        status = await lab.ended(name)
        with (lab.directory / f"{name}.log").open("a") as log:
            log.write(f"panloom.lab process={name} ended={status} again=yes\n")
        await asyncio.sleep(AGAIN_SECONDS)
        await again()
