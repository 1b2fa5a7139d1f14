"""The targets that are held to the tests: ours, and tgtd; a process for each profile of LUN.

thin       gives space back that is unmapped
thick      does not
removable  a removable disk whose physical blocks are 4 KiB
protected  may not be written to: only the tests that write nothing belong there, and the one of write protection
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.storage_process import free_port
from support.target_process import TargetProcess
from support.tgtd import TARGET
from support.waiting import until

DISK_OCTETS = 192 << 20  # under 1 GiB, else READ(6) is not tested beyond the end
WORDS = {"thin": "", "thick": ",thick", "removable": ",removable,4k", "protected": ",ro"}
WRITES_NOTHING = (
    "Inquiry", "Mandatory", "ModeSense6", "Prefetch", "Prin", "Read6", "Read10", "Read12", "Read16", "ReadCapacity",
    "ReadDefectData", "ReadOnly", "ReportSupportedOpcodes", "TestUnitReady", "Verify", "iSCSIResiduals.Read",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What runs: of each profile the two URLs of its disk, the same over two portals, and the process."""

    urls: Mapping[str, tuple[str, str]]
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have taken."""
        lines = [Path(f"/proc/{pid}/stat").read_text() for pid in self.pids]
        ticks = sum(int(field) for line in lines for field in line.rpartition(")")[2].split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")


def belongs(test: str, profile: str) -> bool:
    """Whether a test has anything to say of a profile."""
    if profile == "removable":  # it asks for block i + 1 and wants block i + 8 first, where 8 are a physical block
        return test != "GetLBAStatus.UnmapSingle"
    return profile != "protected" or test.startswith(WRITES_NOTHING)


@contextmanager
def ours(directory: Path) -> Iterator[Target]:
    """Run ``panloom target`` for each profile."""
    with ExitStack() as stack:
        urls, pids = {}, []
        for profile, words in WORDS.items():
            place = directory / profile
            place.mkdir()
            (place / "store" / "volumes").mkdir(parents=True)  # reservations and atomic writes are kept there
            arguments = "--store", str(place / "store"), "--lun", f"1={_disk(place)}{words}"
            target = stack.enter_context(TargetProcess(place, *arguments, portals=2))
            urls[profile] = target.url(1, portal=0), target.url(1, portal=1)
            pids.append(target.process.pid)
        yield Target(urls, tuple(pids))


@contextmanager
def tgtd(directory: Path) -> Iterator[Target]:
    """Run tgtd for the two profiles that it does best with."""
    with ExitStack() as stack:
        urls, pids = {}, []
        for number, (profile, parameters) in enumerate({"thin": "", "removable": ",removable=1"}.items()):
            place = directory / profile
            place.mkdir()
            ports = free_port(), free_port()
            pids.append(stack.enter_context(_one_tgtd(place, 20 + number, ports, f"thin_provisioning=1{parameters}")))
            urls[profile] = f"iscsi://127.0.0.1:{ports[0]}/{TARGET}/1", f"iscsi://127.0.0.1:{ports[1]}/{TARGET}/1"
        yield Target(urls, tuple(pids))


@contextmanager
def _one_tgtd(directory: Path, control: int, ports: tuple[int, int], parameters: str) -> Iterator[int]:
    environment = {**os.environ, "TGT_IPC_SOCKET": str(directory / "tgtd.ipc")}
    portals = ",".join(f"portal=127.0.0.1:{port}" for port in ports)
    with (directory / "tgtd.log").open("wb") as log:
        command = ["tgtd", "-f", "-C", str(control), "--iscsi", portals]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def tell(*arguments: str) -> bool:
        command = ["tgtadm", "-C", str(control), "--lld=iscsi", *arguments]
        return subprocess.run(command, capture_output=True, env=environment, check=False).returncode == 0

    unit = ("--mode=logicalunit", "--tid=1", "--lun=1")
    try:
        until(lambda: tell("--op=show", "--mode=sys"), "tgtd answers")
        done = (
            tell("--op=new", "--mode=target", "--tid=1", f"--targetname={TARGET}"),
            tell("--op=new", *unit, f"--backing-store={_disk(directory)}"),
            tell("--op=update", *unit, "--params", parameters),
            tell("--op=bind", "--mode=target", "--tid=1", "--initiator-address=ALL"),
        )
        if not all(done):
            raise AssertionError(f"tgtd cannot be set up: {done}")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _disk(directory: Path) -> Path:
    path = directory / "disk.img"
    with path.open("wb") as file:
        file.truncate(DISK_OCTETS)
    return path
