"""How fast are disks over iSCSI beside tgtd and istgt?

    scripts/run python bench/iscsi_vs_peers.py [--rounds N] [--seconds S] [--mib N] [--only CASE …] [--json FILE]

The three serve files of the same size, in the page cache, on the loopback.  libiscsi's iscsi-perf reads at random
(4 KiB) or one after another (1 MiB); ``qemu-img bench -w``, over the same libiscsi, writes.  Every case is run against
each of them right after the others, in the opposite order each other round.  Beside the rate stands what the target's
process costs, and what its clients cost: processor seconds for 100,000 I/Os; and at the end the target's memory.
``loopback_floor`` is what a program in C reaches that moves as many octets between two processes and does nothing else.
``header digests``: both sides agree on CRC32C; libiscsi knows none for data.  At depth 32 the client fills a core of
its own: there the processor time tells more than the rate.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import ROOT, Round, arguments, medians, report
from panloom.storage.hot import build

QUESTION = "How fast are disks over iSCSI beside tgtd and istgt?"
GOALS = {
    "rate of ours / rate of tgtd (below which it is a defect)": {
        "read 4K depth 1": "2.0 (1.8)", "read 4K depth 32": "3.5 (3.3)", "write 4K depth 1": "1.9 (1.7)",
        "write 4K depth 32": "2.0 (1.8)", "read 1M depth 8": "3.5 (3.0)", "write 1M depth 8": "3.5 (3.0)",
        "two LUNs read 4K depth 32": "4.5 (4.0)", "header digests": "as without (0.8 of it)",
    },
    "processor time of ours / of tgtd": {
        "read 4K depth 32": 0.2, "read 1M depth 8": 0.2, "write 1M depth 8": 0.3, "other 4K": 0.4,
    },
}  # fmt: skip
IQN = "iqn.2026-11.dev.panloom:target"
START_SECONDS = 20.0
_AVERAGE = re.compile(r"iops average (\d+)")
_DONE = re.compile(r"Run completed in ([0-9.]+) seconds")
_LISTENING = re.compile(r"^listening \S+:(\d+) ")

# name: (who asks, octets, depth, how many at once or None for iscsi-perf, LUNs at once, digests)
CASES = {
    "read 4K depth 1": ("perf", 4096, 1, 1, False),
    "read 4K depth 32": ("perf", 4096, 32, 1, False),
    "read 1M depth 8": ("perf", 1 << 20, 8, 1, False),
    "write 4K depth 1": ("img", 4096, 1, 1, False),
    "write 4K depth 32": ("img", 4096, 32, 1, False),
    "write 1M depth 8": ("img", 1 << 20, 8, 1, False),
    "two LUNs read 4K depth 32": ("perf", 4096, 32, 2, False),
    "header digests read 4K depth 1": ("perf", 4096, 1, 1, True),
    "header digests read 4K depth 32": ("perf", 4096, 32, 1, True),
    "header digests read 1M depth 8": ("perf", 1 << 20, 8, 1, True),
    "header digests write 4K depth 32": ("img", 4096, 32, 1, True),
    "header digests write 1M depth 8": ("img", 1 << 20, 8, 1, True),
}
WRITES = {(4096, 1): 10000, (4096, 32): 40000, (1 << 20, 8): 1200}  # octets, depth: how many


class Target:
    """A process that serves LUNs; ``url(0)`` and ``url(1)`` are two of them."""

    def __init__(self, process: "subprocess.Popen[Any]", pid: int, url: Callable[[int], str]) -> None:
        self.process = process
        self.pid = pid
        self.url = url

    def processor_seconds(self) -> float:
        return time.clock_gettime(~self.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory_mib(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return round(int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024, 1)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(fact: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = fact()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(what)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[Any]") -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def ours(directory: Path, disks: list[Path], prefix: Sequence[str] = ()) -> Iterator[Target]:
    """Serve by ``panloom target``; ``prefix`` is what the command is begun with."""
    luns = [part for number, disk in enumerate(disks, 1) for part in ("--lun", f"{number}={disk}")]
    command = [sys.executable, "-c", "from panloom.command import main; main()", "target", "--portal", "127.0.0.1:0"]
    output = directory / "panloom.out"
    with output.open("wb") as out:
        process = subprocess.Popen([*prefix, *command, *luns], stdout=out)
    with ended(process):
        port = until(lambda: _LISTENING.search(output.read_text()), "panloom target listens")[1]
        yield Target(process, process.pid, lambda number: f"iscsi://127.0.0.1:{port}/{IQN}/{number + 1}")


@contextlib.contextmanager
def tgtd(directory: Path, disks: list[Path], prefix: Sequence[str] = ()) -> Iterator[Target]:
    """Serve by tgtd, as it is after installation."""
    port = free_port()
    environment = {**os.environ, "TGT_IPC_SOCKET": str(directory / "tgtd.ipc")}
    control = ["tgtadm", "-C", "9", "--lld=iscsi"]
    with (directory / "tgtd.log").open("wb") as log:
        command = ["tgtd", "-f", "-C", "9", "--iscsi", f"portal=127.0.0.1:{port}"]
        process = subprocess.Popen([*prefix, *command], stdout=log, stderr=log, env=environment)

    def tell(*words: str) -> bool:
        return not subprocess.run([*control, *words], env=environment, capture_output=True, check=False).returncode

    with ended(process):
        until(lambda: tell("--op=show", "--mode=sys"), "tgtd answers")
        tell("--op=new", "--mode=target", "--tid=1", f"--targetname={IQN}")
        for number, disk in enumerate(disks, 1):
            tell("--op=new", "--mode=logicalunit", "--tid=1", f"--lun={number}", f"--backing-store={disk}")
        tell("--op=bind", "--mode=target", "--tid=1", "--initiator-address=ALL")
        yield Target(process, process.pid, lambda number: f"iscsi://127.0.0.1:{port}/{IQN}/{number + 1}")


@contextlib.contextmanager
def istgt(directory: Path, disks: list[Path], prefix: Sequence[str] = ()) -> Iterator[Target]:
    """Serve by istgt, with the larger bursts that its own example has; it knows no InitialR2T=No."""
    port, control = free_port(), free_port()
    units = "\n".join(f"  LUN{number} Storage {disk} Auto" for number, disk in enumerate(disks))
    configuration = directory / "istgt.conf"
    (directory / "auth.conf").write_text("")
    configuration.write_text(f"""\
[Global]
  NodeBase "iqn.2026-11.dev.panloom"
  PidFile {directory}/istgt.pid
  AuthFile {directory}/auth.conf
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 16
  MaxConnections 4
  MaxOutstandingR2T 16
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
[UnitControl]
  AuthMethod None
  Portal UC1 127.0.0.1:{control}
  Netmask 127.0.0.0/8
[PortalGroup1]
  Portal DA1 127.0.0.1:{port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName target
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 64
{units}
""")
    with (directory / "istgt.log").open("wb") as log:
        process = subprocess.Popen([*prefix, "istgt", "-D", "-c", configuration], stdout=log, stderr=log)
    with ended(process):
        url = f"iscsi://127.0.0.1:{port}/{IQN}"
        ask = ["iscsi-inq", f"{url}/0"]
        until(lambda: not subprocess.run(ask, capture_output=True, check=False).returncode, "istgt answers")
        yield Target(process, process.pid, lambda number: f"{url}/{number}")


CONTENDERS = {"panloom": ours, "tgtd": tgtd, "istgt": istgt}


def run(target: Target, case: str, seconds: int) -> tuple[float, float, float]:
    """Return I/Os a second, and the processor seconds of the target and of the clients for 100,000 of them."""
    who, octets, depth, luns, digests = CASES[case]
    urls = [target.url(number) for number in range(luns)]
    query = "?header_digest=crc32c" if digests else ""
    commands: list[list[str]]
    if who == "perf":
        way = ["-r"] if octets == 4096 else []
        commands = [
            ["iscsi-perf", *way, "-b", str(octets // 512), "-m", str(depth), "-t", str(seconds), url + query]
            for url in urls
        ]
    else:
        count = WRITES[octets, depth] * seconds // 2
        step = octets if octets > 4096 else 69632
        size = ["-c", str(count), "-d", str(depth), "-s", str(octets), "-S", str(step)]
        commands = [["qemu-img", "bench", "-w", "-t", "none", *size, disk_of(url, digests)] for url in urls]
    before, clients = target.processor_seconds(), children_seconds()
    started = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for each in commands]
    said = [each.communicate(timeout=120)[0] for each in started]
    spent, clients = target.processor_seconds() - before, children_seconds() - clients
    rate = 0.0
    for text in said:
        found = _AVERAGE.findall(text) if who == "perf" else _DONE.findall(text)
        if not found:
            raise RuntimeError(f"{case}: {text[-500:]}")
        rate += float(found[-1]) if who == "perf" else count / float(found[-1])
    done = rate * seconds if who == "perf" else count
    return rate, spent / done * 100_000, clients / done * 100_000


def children_seconds() -> float:
    """Return the processor time of what was started and has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def disk_of(url: str, digests: bool) -> str:
    """Return a disk's name for qemu-img, which takes digests in this form only."""
    _, _, portal, target, lun = url.split("/")
    disk = {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": int(lun)}
    return "json:" + json.dumps({"driver": "raw", "file": disk | ({"header-digest": "crc32c"} if digests else {})})


def floors(directory: Path, seconds: int) -> dict[str, float]:
    """Return what a program in C that does nothing but answer reaches, as a target's rates are told."""
    program = directory / "loopback_floor"
    if (
        not shutil.which("cc")
        or subprocess.run(
            ["cc", "-O2", "-o", program, Path(__file__).with_name("loopback_floor.c")], check=False
        ).returncode
    ):
        return {}
    found = {}
    for case, (_, octets, depth, luns, digests) in CASES.items():
        if luns == 1 and not digests:
            sizes = (48 + octets, 48) if case.startswith("write") else (48, 48 + octets)
            words = [program, *map(str, (*sizes, depth, seconds))]
            rate, processor = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
            found |= {case: float(rate), f"{case}, processor": float(processor)}
    return found


def measure(targets: dict[str, Target], cases: list[str], rounds: int, seconds: int) -> list[Round]:
    done: list[Round] = []
    for number in range(rounds):
        done.append({name: {"rates": {}, "load_average": os.getloadavg()[0]} for name in targets})
        for case in cases:
            for name in list(targets) if number % 2 == 0 else list(targets)[::-1]:
                try:
                    rate, processor, clients = run(targets[name], case, seconds)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    done[-1][name]["error"] = str(error)
                    continue
                told = {case: rate, f"{case}, processor": processor, f"{case}, clients' processor": clients}
                done[-1][name]["rates"] |= told
                print(f"round {number + 1}: {case}: {name}: {rate:.0f}/s, {processor:.2f}", file=sys.stderr, flush=True)
    return done


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--seconds", type=int, default=2, help="how long each run is (default 2)")
    parser.add_argument("--mib", type=int, default=512, help="the size of each disk (default 512)")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="these cases")
    parser.add_argument("--without", nargs="*", default=[], choices=CONTENDERS, help="leave these out")
    options = parser.parse_args()
    here = ROOT / ".cache" / "bench"
    here.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iscsi-", dir=here)))
        targets = {}
        for name, serve in CONTENDERS.items():
            if name in options.without or not shutil.which(name if name != "panloom" else "python3"):
                continue
            disks = [directory / f"{name}.{number}" for number in range(2)]
            for disk in disks:
                with disk.open("wb") as file:
                    for _ in range(options.mib):
                        file.write(os.urandom(1 << 20))
            try:
                targets[name] = stack.enter_context(serve(directory, disks))
            except TimeoutError as error:
                print(f"{name} is left out: {error} not", file=sys.stderr)
        os.sync()
        floor = floors(directory, options.seconds)
        rounds = measure(targets, options.only, options.rounds, options.seconds)
        memory = {name: target.memory_mib() for name, target in targets.items()}
    found = medians(rounds)
    ratios = {
        f"panloom / {peer}": {
            case: round(found["panloom"][case] / value, 3) for case, value in found[peer].items() if value
        }
        for peer in found
        if peer != "panloom"
    }
    result = {
        "goals": GOALS,
        "build": build(),
        "median": found,
        "ratios": ratios,
        "memory_mib": memory,
        "loopback_floor": floor,
    }
    report(options, QUESTION, rounds, result)
    for peer, by_case in ratios.items():
        print(peer, file=sys.stderr)
        for case, ratio in by_case.items():
            print(f"  {ratio:6.2f}  {case}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
