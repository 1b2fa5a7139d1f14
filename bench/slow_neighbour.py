"""How much slower is a disk while another one of the same target takes a second for everything, beside tgtd?

    scripts/run python bench/slow_neighbour.py [--rounds N] [--seconds S] [--json FILE]

LUN 1 is a file in the page cache, LUN 2 one of a file system that answers a second late.  4 KiB of LUN 1 are read, one
READ after the other, and every READ is timed: alone; while four commands are under way to LUN 2 in the same session;
while they are in another session.  A ping waits as long as a READ does: both are answered by the connection's loop.

Goal: at the 99th percentile less than twice what it is alone.
"""

import asyncio
import contextlib
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import iscsi_vs_peers
from measuring import ROOT, Round, arguments, medians, report
from panloom.initiator import Session, Timing
from panloom.values import Iqn

QUESTION = "How much slower is a disk while another one of the same target takes a second for everything, beside tgtd?"
GOAL = 2.0
DELAY_SECONDS, DEPTH, BLOCK, OCTETS = 1.0, 4, 4096, 64 << 20
SLOW_FILE_SYSTEM = ROOT / "tests" / "support" / "slow_file_system.py"
TIMING = Timing(login_seconds=30.0, reconnect_seconds=0.0)
_PORT = re.compile(r":(\d+)/")


@contextlib.asynccontextmanager
async def busy(session: Session, lun: int) -> AsyncIterator[None]:
    """Have some commands under way to a unit, as long as the block lasts."""

    async def go_on(number: int) -> None:
        while True:
            await session.read(lun, number * BLOCK, BLOCK)
            await session.write(lun, number * BLOCK, bytes(BLOCK))

    tasks = [asyncio.create_task(go_on(number)) for number in range(DEPTH)]
    await asyncio.sleep(2 * DELAY_SECONDS)  # by then the unit is known to be slow
    try:
        yield
        failed = [task.exception() for task in tasks if task.done()]
        if failed:
            raise RuntimeError(f"the slow unit is not busy: {failed}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def reads(session: Session, lun: int, seconds: float) -> list[float]:
    """Return how long each READ took."""
    took = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await session.read(lun, random.randrange(OCTETS // BLOCK) * BLOCK, BLOCK)
        took.append(time.monotonic() - begun)
    return took


async def measure(port: int, first_lun: int, directory: Path, seconds: float) -> dict[str, Any]:
    """Return the percentiles of the three ways."""
    delay = directory / "delay"
    names = [Iqn(f"iqn.2026-11.dev.panloom:bench{number}") for number in (1, 2)]
    quick, slow = first_lun, first_lun + 1
    one, other = [
        await Session.open(("127.0.0.1", port), initiator=name, target=Iqn(iscsi_vs_peers.IQN), timing=TIMING)
        for name in names
    ]
    took = {}
    async with one, other:
        await reads(one, quick, 1.0)
        took["alone"] = await reads(one, quick, seconds)
        delay.write_text(str(DELAY_SECONDS))
        for way, session in (("same session", one), ("other session", other)):
            async with busy(session, slow):
                took[way] = await reads(one, quick, seconds)
        delay.unlink()
    rates = {}
    for way, all_ in took.items():
        percentiles = statistics.quantiles(all_, n=100)
        rates |= {f"{way}, median µs": percentiles[49] * 1e6, f"{way}, p99 µs": percentiles[98] * 1e6}
        rates[f"{way}, longest µs"] = max(all_) * 1e6
    return {"rates": {name: round(value, 1) for name, value in rates.items()}}


def run(name: str, seconds: float) -> dict[str, Any]:
    here = ROOT / ".cache" / "bench"
    here.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slow-", dir=here) as place:
        directory = Path(place)
        (directory / "quick").write_bytes(os.urandom(OCTETS))
        (directory / "disk").write_bytes(bytes(1 << 20))
        disks = [directory / "quick", directory / "slow" / "disk"]
        prefix = [sys.executable, str(SLOW_FILE_SYSTEM), str(directory)]
        with iscsi_vs_peers.CONTENDERS[name](directory, disks, prefix) as target:
            port = _PORT.search(target.url(0))
            assert port is not None
            return asyncio.run(measure(int(port[1]), 1, directory, seconds))


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each way is measured (default 4)")
    options = parser.parse_args()
    rounds: list[Round] = []
    for number in range(options.rounds):
        rounds.append({})
        for name in ("panloom", "tgtd")[:: 1 if number % 2 == 0 else -1]:
            try:
                rounds[-1][name] = {"load_average": os.getloadavg()[0], **run(name, options.seconds)}
            except Exception as error:  # noqa: BLE001  a round that fails is a result too
                rounds[-1][name] = {"error": f"{type(error).__name__}: {error}"}
            print(f"round {number + 1}: {name}: {rounds[-1][name]}", file=sys.stderr, flush=True)
    found = medians(rounds)
    ratios = {
        name: {way: round(of[f"{way}, p99 µs"] / of["alone, p99 µs"], 2) for way in ("same session", "other session")}
        for name, of in found.items()
    }
    goals = {"p99 beside a slow disk / p99 alone": GOAL}
    report(options, QUESTION, rounds, {"goals": goals, "median": found, "p99 ratios": ratios})
    print(ratios, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
