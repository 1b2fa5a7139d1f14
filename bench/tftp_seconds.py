"""How fast does TFTP hand out a boot file, beside tftpd-hpa and dnsmasq?

    scripts/run python bench/tftp_seconds.py [--rounds N] [--json FILE]

    512, 1428, 1468     30 MiB by curl, with that blksize and the other end next door; MB/s
    5 ms away           4 MiB by atftp, which asks for windowsize 16 and blksize 1428, over a cable that takes 2.5 ms
                        each way; MB/s.  Neither peer knows windows: one block a round trip
    64 at once          64 machines of 256 KiB each by curl, over a cable that loses 5 % of the frames each way; MB/s in
                        all.  Beside it how many were whole within 40 s, the seconds until the last of them had
                        its first octet (curl whose request is lost asks again after 6 s), and from there on the
                        longest time in which one got nothing

Every file that arrives is compared.  Goals: 20 MB/s at 1428, five times tftpd-hpa 5 ms away, and 64 at once whole with
no stall over 5 s.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import serving
from measuring import ROOT, alternate, arguments, medians, report

QUESTION = "How fast does TFTP hand out a boot file, beside tftpd-hpa and dnsmasq?"
FILES = ROOT / ".cache" / "bench" / "tftp"
LARGE, FAR, SMALL = ("large", 30 << 20), ("far", 4 << 20), ("small", 256 << 10)
BLKSIZES = (512, 1428, 1468)
WAY_SECONDS, WINDOWSIZE = 0.0025, 16
MACHINES, LOSS, MOST_SECONDS = 64, 0.05, 40.0
GOAL_RATE, GOAL_TIMES, GOAL_STALL = 20.0, 5.0, 5.0
OUT = Path("/run/out")
WHOLE, STALL, FIRST = (f"64 at once: {what}" for what in ("whole", "longest stall, s", "last first octet, s"))


def panloom() -> AbstractContextManager[None]:
    return serving.panloom(files=FILES)


def tftpd_hpa() -> AbstractContextManager[None]:
    options = ("--foreground", "--user", "root", "--address", f"{serving.SERVER}:69", "--secure", FILES)
    return serving.process("in.tftpd", *options, ready=serving.udp_taken(69))


def dnsmasq() -> AbstractContextManager[None]:
    options = ("--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=/dev/null", "--user=root", "--port=0")
    tftp = ("--interface=s0", "--bind-interfaces", "--enable-tftp", f"--tftp-root={FILES}", "--tftp-max=100")
    return serving.process("dnsmasq", *options, *tftp, ready=serving.udp_taken(69))


Server = Callable[[], AbstractContextManager[None]]
SERVERS: dict[str, Server] = {"panloom": panloom, "tftpd-hpa": tftpd_hpa, "dnsmasq": dnsmasq}


def measure(case: str, server: Server) -> dict[str, Any]:
    """Measure one case; an enclosure's work."""
    match case:
        case "5 ms away":
            cable, work = serving.cable(way_seconds=WAY_SECONDS), far
        case "64 at once":
            cable, work = serving.cable(loss=LOSS), many
        case _:
            cable, work = serving.cable(), lambda: near(int(case))
    with cable, server():
        return work()


def near(blksize: int) -> dict[str, Any]:
    options = ("--silent", "--tftp-blksize", str(blksize), "--output", str(OUT))
    return {"rates": {str(blksize): fetch(LARGE, "curl", *options, f"tftp://{serving.SERVER}/{LARGE[0]}")}}


def far() -> dict[str, Any]:
    options = (
        "--option",
        "blksize 1428",
        "--option",
        f"windowsize {WINDOWSIZE}",
        "--get",
        "-r",
        FAR[0],
        "-l",
        str(OUT),
    )
    return {"rates": {"5 ms away": fetch(FAR, "atftp", *options, serving.SERVER)}}


def fetch(file: tuple[str, int], *command: str) -> float:
    """Return MB/s."""
    began = time.monotonic()
    subprocess.run([*serving.IN_CLIENT, *command], check=True, timeout=MOST_SECONDS, capture_output=True)
    seconds = time.monotonic() - began
    check(OUT, file[0])
    return file[1] / 1e6 / seconds


def many() -> dict[str, Any]:
    outs = {OUT.with_name(f"out-{number}"): f"10.77.1.{number}" for number in range(1, MACHINES + 1)}
    for address in outs.values():
        serving.ip(f"-n client address add {address}/16 dev c0")
    options = ("--silent", "--tftp-blksize", "1428", "--no-buffer", "--interface")
    url = f"tftp://{serving.SERVER}/{SMALL[0]}"
    began = now = time.monotonic()
    clients = {
        out: subprocess.Popen([*serving.IN_CLIENT, "curl", *options, address, "--output", str(out), url])
        for out, address in outs.items()
    }
    sizes, grown = dict.fromkeys(outs, 0), dict.fromkeys(outs, began)
    stall = first = 0.0
    try:
        while clients and now - began < MOST_SECONDS:
            time.sleep(0.02)
            now = time.monotonic()
            for out in list(clients):
                ended = clients[out].poll() is not None
                size = out.stat().st_size if out.exists() else 0
                if sizes[out]:
                    stall = max(stall, now - grown[out])
                elif size:
                    first = max(first, now - began)
                if size > sizes[out]:
                    sizes[out], grown[out] = size, now
                if ended:
                    del clients[out]
    finally:
        for client in clients.values():
            client.kill()
            client.wait()
    whole = [out for out in outs if sizes[out] == SMALL[1]]
    for out in whole:
        check(out, SMALL[0])
    return {
        "rates": {
            "64 at once": sum(sizes.values()) / 1e6 / (now - began),
            WHOLE: len(whole),
            STALL: stall,
            FIRST: first,
        }
    }


def check(out: Path, name: str) -> None:
    if out.read_bytes() != (FILES / name).read_bytes():
        raise RuntimeError(f"{name} arrived spoiled")
    out.unlink()


def ratios(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    ours = found["panloom"]
    return {
        f"panloom / {peer}": {
            case: round(ours[case] / rate, 3)
            for case, rate in theirs.items()
            if case in ours and case not in (WHOLE, STALL, FIRST)
        }
        for peer, theirs in found.items()
        if peer != "panloom"
    }


def main() -> int:
    parser = arguments(QUESTION, rounds=3)
    cases = [*map(str, BLKSIZES), "5 ms away", "64 at once"]
    parser.add_argument("--case", choices=cases, nargs="+", default=cases)
    options = parser.parse_args()
    for name, octets in (LARGE, FAR, SMALL):
        serving.random_file(FILES / name, octets)
    contenders = {
        f"{case}: {name}": lambda case=case, server=server: measure(case, server)
        for case in options.case
        for name, server in SERVERS.items()
    }
    rounds = alternate(contenders, options.rounds)
    found: dict[str, dict[str, float]] = {}
    for contender, rates in medians(rounds).items():
        found.setdefault(contender.partition(": ")[2], {}).update(rates)
    result = {
        "goals": {
            "1428": f">= {GOAL_RATE:g} MB/s",
            "5 ms away": f">= {GOAL_TIMES:g} times tftpd-hpa",
            "64 at once": f"every octet right, no stall over {GOAL_STALL:g} s",
        },
        "median_megabytes_a_second": found,
        "ratios": ratios(found),
    }
    whole = report(options, QUESTION, rounds, result)
    return 1 if any("panloom" in failure for failure in whole["failed"]) else 0


if __name__ == "__main__":
    sys.exit(main())
