"""One server on Panloom's own chassis, for benchmarks that set it beside the peers of ``peer_boot``.

Both sides boot the same image on the same emulated machines, from files on an enclosure's own /run, and are watched in
the same way: stages by the lines of the serial console, answering by ``peer_boot.page``.
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import peer_boot
from measuring import ROOT
from panloom.lab.chassis import Chassis
from panloom.lab.image import build_image
from panloom.lab.running import RunningLab

SERVER = "shop/web1"
DOCUMENT = """
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24}
servers:
  web1:
    image: web
    nics:
      - {lan: front, address: 10.1.0.11}
"""
DIRECTORY = Path("/run/panloom")
LINE = re.compile(r"^[\d-]{10} (\d\d):(\d\d):(\d\d\.\d\d\d) PANLOOM stage=(\w+)")
DAY_SECONDS = 86400.0
WITHIN_SECONDS = 90.0


def bootable_image() -> Path:
    """Return the lab's image, built once for all benchmarks."""
    path = ROOT / ".cache" / "bench" / "web.img"
    build_image(Path(os.environ.get("PANLOOM_PACKAGES", ROOT / ".cache" / "debian")), path)
    return path


@contextlib.asynccontextmanager
async def running(image: Path, *, nodes: int) -> AsyncIterator[RunningLab]:
    """Start a lab without servers; call this in an enclosure."""
    lab = RunningLab(DIRECTORY, chassis=Chassis.of(nodes=nodes))
    try:
        await lab.start(image)
        yield lab
    finally:
        await lab.stop()


async def until_answers(*, epoch: int = 1) -> float:
    """Wait for the server's page under this epoch or a later one; return the monotonic second at which it was there."""
    page = await until(lambda: _answer(epoch), "the page")
    return float(page["at"])


async def _answer(epoch: int) -> dict[str, Any]:
    page = await asyncio.to_thread(peer_boot.page)
    return {**page, "at": time.monotonic()} if page and int(page["epoch"]) >= epoch else {}


async def until_event(lab: RunningLab, kind: str, **facts: object) -> Mapping[str, Any]:
    """Wait for an event with these facts and return the first."""

    async def happened() -> Mapping[str, Any] | None:
        events = (await lab.get("events", after=0))["events"]
        return next((e for e in events if e["kind"] == kind and all(e.get(n) == f for n, f in facts.items())), None)

    return await until(happened, f"event {kind} {facts}")


async def until(fact: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not (value := await fact()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WITHIN_SECONDS:.0f} s: {what}")
        await asyncio.sleep(0.02)
    return value


def console_stages(node: str, since: float) -> dict[str, float]:
    """Return the stages on a machine's console in seconds after ``since``, a time of the monotonic clock."""
    wall = (
        since + time.time() - time.monotonic() - time.timezone + time.daylight * (time.timezone - time.altzone)
    ) % DAY_SECONDS
    found: dict[str, float] = {}
    for line in (DIRECTORY / "console" / f"{node}.log").read_text(errors="replace").splitlines():
        if match := LINE.match(line):
            at = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
            found[match[4]] = (at - wall) % DAY_SECONDS
    return found
