"""How much more do two exporters of one device give than one?

    scripts/run python bench/two_exporters.py [--rounds N] [--seconds S] [--mbit N] [--json FILE]

    client ──┬── a link of 400 Mbit/s ── host 1: panloom target disk,ro
             └── a link of 400 Mbit/s ── host 2: panloom target disk,ro        the same file, in the page cache

Two of libiscsi's iscsi-perf read 64 KiB at a time, eight under way each: both from host 1, or one from each.  Where
links are slower than hosts, a second host adds its link.  On the loopback it adds only what processors are left for it,
which clients and hosts share here.

Goal: 1.6 times as much over links.
"""

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from iscsi_vs_peers import IQN, ended, until
from measuring import alternate, arguments, medians, report

QUESTION = "How much more do two exporters of one device give than one?"
GOAL = 1.6
OCTETS, PIECE, DEPTH, PORT = 64 << 20, 65536, 8, 3260
LINKS, LOOPBACK = "links, MB/s", "loopback, MB/s"
_AVERAGE = re.compile(r"iops average ([0-9]+)")


def ip(words: str) -> None:
    """Run ``ip WORDS``."""
    subprocess.run(["ip", *words.split()], check=True)


@contextlib.contextmanager
def exporter(directory: Path, name: str, portal: str, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve the file, and yield the URL of the unit."""
    command = [sys.executable, "-c", "from panloom.command import main; main()", "target", "--portal", portal]
    output = directory / f"{name}.out"
    with output.open("wb") as out:
        process = subprocess.Popen([*prefix, *command, "--lun", f"1={directory}/disk,ro"], stdout=out)
    with ended(process):
        until(lambda: "listening" in output.read_text(), f"{name} listens")
        yield f"iscsi://{portal}/{IQN}/1"


def read(urls: tuple[str, str], seconds: int) -> float:
    """Return how many MB/s two clients read together."""
    command = ["iscsi-perf", "-b", str(PIECE // 512), "-m", str(DEPTH), "-t", str(seconds)]
    started = [subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) for url in urls]
    rates = [_AVERAGE.findall(each.communicate(timeout=120)[0]) for each in started]
    return sum(float(rate[-1]) for rate in rates) * PIECE / 1e6


def measure(hosts: int, seconds: int, mbit: int) -> dict[str, Any]:
    """Return what so many hosts give, over links and over the loopback; in an enclosure."""
    rates = {}
    with tempfile.TemporaryDirectory(prefix="panloom-bench-") as place, contextlib.ExitStack() as stack:
        directory = Path(place)
        (directory / "disk").write_bytes(bytes(range(256)) * (OCTETS // 256))
        urls = []
        for number in range(hosts):
            name, net = f"host{number}", f"10.88.{number}"
            ip(f"netns add {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"address add {net}.1/24 dev {name}")
            ip(f"link set {name} up")
            for words in (f"address add {net}.2/24 dev eth0", "link set eth0 up"):
                ip(f"-n {name} {words}")
            limit = f"rate {mbit}mbit burst 256kb latency 50ms"
            subprocess.run(f"ip netns exec {name} tc qdisc add dev eth0 root tbf {limit}".split(), check=True)
            prefix = ("ip", "netns", "exec", name)
            urls.append(stack.enter_context(exporter(directory, name, f"{net}.2:{PORT}", prefix)))
        rates[LINKS] = read((urls[0], urls[-1]), seconds)
        local = [f"127.0.0.1:{PORT + number}" for number in range(hosts)]
        urls = [stack.enter_context(exporter(directory, f"local{portal[-1]}", portal)) for portal in local]
        rates[LOOPBACK] = read((urls[0], urls[-1]), seconds)
    return {"rates": rates}


def main() -> int:
    """Run both ways in turn and tell the ratios."""
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--seconds", type=int, default=4, help="how long each is measured (default 4)")
    parser.add_argument("--mbit", type=int, default=400, help="the rate of a link (default 400)")
    options = parser.parse_args()
    contenders = {
        name: partial(measure, hosts, options.seconds, options.mbit)
        for name, hosts in (("one exporter", 1), ("two exporters", 2))
    }
    rounds = alternate(contenders, options.rounds)
    found = medians(rounds)
    ratios = {what: round(found["two exporters"][what] / found["one exporter"][what], 2) for what in (LINKS, LOOPBACK)}
    report(options, QUESTION, rounds, {"goals": {LINKS: f">= {GOAL}"}, "median": found, "ratios": ratios})
    print(ratios, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
