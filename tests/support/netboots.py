"""Machines that boot from the network all at once, by busybox: udhcpc, TFTP, a check sum; and a server that is killed.

    machine   until it has booted: DHCP ▶ its file by TFTP ▶ is its SHA-256 right?
    judge     kills the server when so much of the files has arrived, starts it again, and reads what the machines noted

Every machine notes each address that it is given.  Nobody gives one back, so that no address may ever have been two
machines'.
"""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support import boot_process
from support.foreign import busybox
from support.loss import losing
from support.namespaces import Chassis, machines
from support.waiting import until

LOSS_PERCENT = 5
_FILE = "undionly.kpxe"
_PXE = "PXEClient:Arch:00000:UNDI:002001"
_LEASE = """\
#!/bin/sh
cd "$(dirname "$0")"
case $1 in
    deconfig) ip address flush dev eth0 ;;
    bound) ip address replace "$ip/16" dev eth0; echo "$ip" >> addresses; echo "$boot_file" > boot_file ;;
esac
"""
_BOOT = """\
cd "$1"
until [ -e booted ]; do
    "$2" udhcpc -f -q -n -t 3 -T 1 -i eth0 -V "$3" -s "$1/lease" || continue
    echo x >> attempts
    "$2" tftp -g -b 1428 -r "$(cat boot_file)" -l arrived "$4" && sha256sum --status -c sum && mv arrived booted
done
"""


class Netboots:
    """A chassis of machines, and the process that boots them."""

    def __init__(self, chassis: Chassis, directory: Path, octets: int, seed: int) -> None:
        self._chassis = chassis
        self._directory = directory
        self._chance = random.Random(seed)
        self._server: subprocess.Popen[bytes] | None = None
        files = directory / "files"
        files.mkdir(parents=True, exist_ok=True)
        content = self._chance.randbytes(octets)
        (files / _FILE).write_bytes(content)
        self._octets, self._sum = octets, hashlib.sha256(content).hexdigest()
        self.boots = self.kills = self.attempts = 0
        self.seconds: list[float] = []
        self.violations: list[str] = []
        self.owners: dict[str, int] = {}  # address → machine, over all rounds

    def round(self, number: int, *, kills: int, seconds: float) -> None:
        """Boot ``number`` machines at once, kill the server so many times, and wait until all have booted."""
        places = [self._prepare(machine) for machine in range(number)]
        began = time.time()
        self._start()
        running = [
            self._chassis[f"m{machine}"].start(
                *("sh", "-c", _BOOT, "boot", place, busybox(), _PXE, str(boot_process.ADDRESS)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for machine, place in enumerate(places)
        ]
        whole = number * self._octets
        for share in sorted(self._chance.uniform(0.02, 0.8) for _ in range(kills)):
            until(lambda share=share: _arrived(places) >= share * whole, f"{share:.0%} of the files", seconds=seconds)  # type: ignore[misc]
            self._kill()
            self._start()
        booted = [place / "booted" for place in places]
        until(lambda: all(path.exists() for path in booted), f"{number} machines have booted", seconds=seconds)
        for process in running:
            process.wait(30)
        self._kill()
        self._judge(places, began)

    def end(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _prepare(self, machine: int) -> Path:
        place = self._directory / f"m{machine}"
        place.mkdir(exist_ok=True)
        for path in place.iterdir():
            path.unlink()
        (place / "lease").write_text(_LEASE)
        (place / "lease").chmod(0o755)
        (place / "sum").write_text(f"{self._sum}  arrived\n")
        return place

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        program = (sys.executable, boot_process.__file__, str(self._directory))
        self._server = self._chassis.control.start(*program, stdout=subprocess.PIPE, env=environment)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def _kill(self) -> None:
        self.kills += 1
        self.end()

    def _judge(self, places: list[Path], began: float) -> None:
        for machine, place in enumerate(places):
            self.boots += 1
            self.attempts += len((place / "attempts").read_text().split())
            self.seconds.append((place / "booted").stat().st_mtime - began)
            if hashlib.sha256((place / "booted").read_bytes()).hexdigest() != self._sum:
                self.violations.append(f"machine {machine} booted octets that nobody served")
            for address in (place / "addresses").read_text().split():
                owner = self.owners.setdefault(address, machine)
                own = str(boot_process.NODES + machine) if machine % 2 == 0 else address
                if owner != machine or address != own:
                    self.violations.append(f"{address} was machine {owner}'s and was given to machine {machine}")


def _arrived(places: list[Path]) -> int:
    total = 0
    for place in places:
        for name in ("arrived", "booted"):
            try:
                total += (place / name).stat().st_size
                break
            except FileNotFoundError:
                continue
    return total


@contextmanager
def netboots(directory: Path, number: int, *, octets: int, seed: int) -> Iterator[Netboots]:
    """Make a chassis of ``number`` machines on a wire that loses packets, whichever way they go."""
    macs = {f"m{machine}": str(boot_process.mac_of(machine)) for machine in range(number)}
    with ExitStack() as stack:
        chassis = stack.enter_context(machines(macs, address=f"{boot_process.ADDRESS}/16"))
        stack.enter_context(losing(chassis.control, *chassis.nodes.values(), percent=LOSS_PERCENT))
        made = Netboots(chassis, directory, octets, seed)
        stack.callback(made.end)
        yield made
