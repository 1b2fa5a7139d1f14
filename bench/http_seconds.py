"""How fast does HTTP boot hand out files, beside nginx?

    scripts/run python bench/http_seconds.py [--rounds N] [--json FILE]

    large             512 MiB by curl; MB/s
    small             files of 600 octets by wrk over 16 connections that stay; requests a second
    small, anew       the same with a connection for each, as iPXE asks; requests a second

nginx has one worker, since ours is one process, and sendfile.  The large file is compared once.  How long processors
worked for the server while it was sent stands beside it, since MB/s are few where others have the processors.

Goal: 400 MB/s.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import serving
from measuring import ROOT, alternate, arguments, medians, report

QUESTION = "How fast does HTTP boot hand out files, beside nginx?"
FILES = ROOT / ".cache" / "bench" / "http"
LARGE, SMALL = ("large", 512 << 20), ("small", 600)
PORT = 8080
CONNECTIONS = 16  # what one client may have
GOAL_RATE = 400.0
BASE = f"http://{serving.SERVER}:{PORT}/files"
PROCESSOR = "large: processor of the server, s"
CASES = ("large", "small", "small, anew")
SPEED = "%{size_download} %{speed_download}"


def panloom() -> AbstractContextManager[int]:
    return serving.panloom(files=FILES)


@contextmanager
def nginx() -> Iterator[int]:
    with serving.directory() as directory:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
        (directory / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ {temporary} access_log {directory}/access.log; sendfile on; tcp_nopush on;\n"
            f"  server {{ listen {serving.SERVER}:{PORT}; location /files/ {{ alias {FILES}/; }} }} }}\n"
        )
        command = ("nginx", "-p", directory, "-e", directory / "error.log", "-c", directory / "nginx.conf")
        with serving.process(*command, ready=serving.tcp_taken(PORT)) as pid:
            yield pid


SERVERS = {"panloom": panloom, "nginx": nginx}


def measure(name: str, seconds: int) -> dict[str, Any]:
    """Measure all cases; an enclosure's work."""
    with ExitStack() as stack:
        stack.enter_context(serving.cable())
        pid = stack.enter_context(SERVERS[name]())
        compare()
        before = serving.processor_seconds(pid)
        rate = large()
        return {
            "rates": {
                "large": rate,
                PROCESSOR: serving.processor_seconds(pid) - before,
                "small": small(seconds),
                "small, anew": small(seconds, "--header", "Connection: close"),
            }
        }


def compare() -> None:
    with subprocess.Popen(
        [*serving.IN_CLIENT, "curl", "--silent", "--fail", f"{BASE}/{LARGE[0]}"], stdout=subprocess.PIPE
    ) as curl:
        subprocess.run(["cmp", "-", FILES / LARGE[0]], stdin=curl.stdout, check=True)


def large() -> float:
    """Return MB/s."""
    options = ("--silent", "--fail", "--output", "/dev/null", "--write-out", SPEED)
    command = [*serving.IN_CLIENT, "curl", *options, f"{BASE}/{LARGE[0]}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    octets, speed = map(float, told.split())
    if octets != LARGE[1]:
        raise RuntimeError(f"{octets:.0f} octets came")
    return speed / 1e6


def small(seconds: int, *more: str) -> float:
    """Return requests a second."""
    options = ("--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", *more)
    command = [*serving.IN_CLIENT, "wrk", *options, f"{BASE}/{SMALL[0]}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in told:
        raise RuntimeError(told)
    return float(re.search(r"Requests/sec: +([0-9.]+)", told)[1])


def main() -> int:
    parser = arguments(QUESTION, rounds=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each rate (default 4)")
    options = parser.parse_args()
    for name, octets in (LARGE, SMALL):
        serving.random_file(FILES / name, octets)
    rounds = alternate({name: lambda name=name: measure(name, options.seconds) for name in SERVERS}, options.rounds)
    found = medians(rounds)
    result = {
        "goals": {"large": f">= {GOAL_RATE:g} MB/s"},
        "units": {"large": "MB/s", PROCESSOR: "s", "small": "requests a second", "small, anew": "requests a second"},
        "median_rates": found,
        "ratios": {
            case: round(found["panloom"][case] / found["nginx"][case], 3) for case in CASES if all(found.values())
        },
    }
    whole = report(options, QUESTION, rounds, result)
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
