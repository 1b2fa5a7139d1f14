"""How soon does a whole chassis of emulated machines answer, and a server whose machine dies?

    scripts/run python bench/emulated_seconds.py [--rounds N] [--case boot exits silent] [--load SECONDS] [--json FILE]

26 machines carry 24 servers, each writing a mark on its disk every ``--load`` seconds all the while (0: none).

    boot     from the document of 24 servers: to the first page, and to the last
    exits    a machine's process is killed (SIGKILL) after ``--settle`` seconds: detected, fenced, userland, answering
    silent   the same, but it is stopped (SIGSTOP)

The firmware of these machines is our own, so that what is measured is ours: DHCP, script, login, fence, placement.  How
long machines with real firmware take, beside tgtd and dnsmasq: ``boot_seconds.py`` and ``failover_seconds.py``.

Goals: 24 servers answer at most 8 s after they were declared; a server answers again at most 1 s after its machine
exited, and at most 2 s after it fell silent.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from measuring import alternate, arguments, medians, report
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import make_blank_image
from panloom.lab.running import RunningLab
from panloom_lab import DIRECTORY, until_event

QUESTION = "How soon does a whole chassis of emulated machines answer, and a server whose machine dies?"
GOALS = {"boot": {"last page": 8.0}, "exits": {"answering": 1.0}, "silent": {"answering": 2.0}}
FAULTS = {"exits": signal.SIGKILL, "silent": signal.SIGSTOP}
NODES, SERVERS = 26, 24
VICTIM = "n1"
DOCUMENT = f"""
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {{subnet: 10.1.0.0/24}}
servers:
  web[1-{SERVERS}]:
    image: web
    nics:
      - {{lan: front, address: "10.1.0.[11-{10 + SERVERS}]"}}
"""
ATTEMPT_SECONDS, EVERY_SECONDS = 0.5, 0.05
WITHIN_SECONDS = 60.0


def measure(case: str, settle: float, load: float) -> dict[str, Any]:
    return asyncio.run(_measure(case, settle, load))


async def _measure(case: str, settle: float, load: float) -> dict[str, Any]:
    chassis = Chassis.of(nodes=NODES, qemu=0, load_seconds=load)
    first, *others = chassis.machines
    first = msgspec.structs.replace(first, kind="lone")  # so that there is a process to kill or to stop
    lab = RunningLab(DIRECTORY, chassis=msgspec.structs.replace(chassis, machines=(first, *others)))
    DIRECTORY.mkdir(parents=True)
    try:
        await lab.start(make_blank_image(DIRECTORY / "blank.img"))
        await until_event(lab, "image")
        began = time.monotonic()
        await lab.apply_text("bench.yaml", DOCUMENT)
        pages = await asyncio.gather(*(answered(number) for number in range(1, SERVERS + 1)))
        if case == "boot":
            return {"seconds": {"first page": min(pages) - began, "last page": max(pages) - began}}
        for number in range(1, SERVERS + 1):
            await until_event(lab, "up", server=f"shop/web{number}")
        await asyncio.sleep(settle)
        return await moved(lab, FAULTS[case])
    finally:
        await lab.stop()


async def moved(lab: RunningLab, fault: signal.Signals) -> dict[str, Any]:
    """Let one machine fail; return the seconds of its server's way to another."""
    server = (await lab.get("resources", "node", VICTIM))["server"]
    pid = pid_of(VICTIM)
    at = time.monotonic()
    os.kill(pid, fault)
    answering = await answered(int(server.removeprefix("shop/web")), epoch=2) - at
    fence = await until_event(lab, "fence", server=server)
    fenced = await until_event(lab, "fence complete", server=server)
    userland = await until_event(lab, "boot", server=server, epoch=2, text="userland")
    events = (await lab.get("events", after=0))["events"]
    return {
        "seconds": {
            "detected": fence["monotonic"] - at,
            "fenced": fenced["monotonic"] - at,
            "userland": userland["data"]["reached"] - at,
            "answering": answering,
        },
        "why": fence["text"],
        "held": [event["text"] for event in events if event["kind"] == "held"],
        "others fenced": [e["server"] for e in events if e["kind"] == "fence" and e["server"] != server],
    }


def pid_of(node: str) -> int:
    """Return the process of a machine that has one of its own."""
    log = (DIRECTORY / "supervisor.log").read_text().splitlines()
    pid = int(next(line for line in reversed(log) if f"node={node} power=on" in line).rpartition("pid=")[2])
    if node.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
        raise RuntimeError(f"process {pid} is not {node}")
    return pid


async def answered(number: int, *, epoch: int = 1) -> float:
    """Wait for a server's page under an epoch; return the monotonic second at which it was there.

    A connection that is under way when a machine comes up is tried again after a second: so there is a new one every
    ``EVERY_SECONDS``, and the first that gets an answer counts.
    """
    attempts: set[asyncio.Task[float | None]] = set()
    deadline = time.monotonic() + WITHIN_SECONDS
    try:
        while time.monotonic() < deadline:
            attempts.add(asyncio.create_task(_page(number, epoch)))
            done, attempts = await asyncio.wait(attempts, timeout=EVERY_SECONDS)
            if found := [at for at in (task.result() for task in done) if at is not None]:
                return min(found)
            if done:
                await asyncio.sleep(EVERY_SECONDS)
    finally:
        for task in attempts:
            task.cancel()
    raise TimeoutError(f"not within {WITHIN_SECONDS:.0f} s: the page of shop/web{number}")


async def _page(number: int, epoch: int) -> float | None:
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            reader, writer = await asyncio.open_connection(f"10.1.0.{10 + number}", 80)
            try:
                writer.write(b"GET /facts.txt HTTP/1.0\r\n\r\n")
                lines = (await reader.read()).decode().splitlines()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    wanted = {f"server=shop/web{number}", f"epoch={epoch}"}
    return time.monotonic() if wanted <= set(lines) else None


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--case", choices=GOALS, nargs="+", default=list(GOALS))
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between up and the fault (default 3)")
    parser.add_argument("--load", type=float, default=0.1, help="seconds between two marks of a server (default 0.1)")
    options = parser.parse_args()
    contenders = {case: lambda case=case: measure(case, options.settle, options.load) for case in options.case}
    rounds = alternate(contenders, options.rounds)
    result = {
        "goals": {
            case: {stage: f"<= {seconds:g} s" for stage, seconds in GOALS[case].items()} for case in options.case
        },
        "median_seconds": medians(rounds),
    }
    return 1 if report(options, QUESTION, rounds, result)["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
