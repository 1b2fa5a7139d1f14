"""How many exchanges of DHCP a second, beside dnsmasq and kea, with few leases and with many?

    scripts/run python bench/dhcp_rate.py [--rounds N] [--json FILE]

``perfdhcp`` stands behind a relay's address and asks for one lease after the other: DISCOVER, OFFER, REQUEST, ACK, at
a rate that rises until fewer than 99 % of the exchanges that it begins come to their end.  The number is the exchanges
that came to their end, each second, where they were most of those steps that passed.  Both are perfdhcp's own counts.
What came and found its socket full is not in them, and is noted beside them: a step may fail by perfdhcp as well.

    10 leases        clients without a lease, where ten others have theirs already
    50,000 leases    clients without a lease, where fifty thousand others have theirs already
    again            ten clients, over and over

Ours acknowledges no lease that is not synced.  dnsmasq writes its file anew for every change, kea appends to its own;
neither syncs.  Goals: 1,000 exchanges a second, and as many with 50,000 leases as with 10.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec

import serving
from boot_server import Settings
from measuring import alternate, arguments, medians, report
from panloom.boot.lease_book import PREFIX, LeaseRecord
from panloom.state.sqlite import SqliteStore
from panloom.values import MacAddress

QUESTION = "How many exchanges of DHCP a second, beside dnsmasq and kea, with few leases and with many?"
GOAL_RATE = 1000
CASES = {"10 leases": (10, 40_000), "50,000 leases": (50_000, 40_000), "again": (10, 10)}  # leases, clients that ask
LADDER = (5, 10, 25, 50, 100, 200, 300, 500, 750, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000)
FIRST_STEP = 1000
FIRST_STEPS = {("dnsmasq", "10 leases"): 200, ("dnsmasq", "50,000 leases"): 10}  # which takes 45 s to read them
LEAST_COMPLETED = 0.99  # of the exchanges begun
RELAY, RELAYED, MASK = "10.64.0.1", "10.64.0.0/15", "255.254.0.0"
SETTINGS = Settings(interface="s0", store="", relay=RELAY, relayed=RELAYED)
WAYS = ("sent", "received")
HOUR = 3600
OTHERS_MAC, OTHERS_ADDRESS = MacAddress.parse("52:54:00:00:00:00"), IPv4Address("10.65.0.0")  # who have leases
LAST = OTHERS_ADDRESS + 60_000
KEA_COLUMNS = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n"


def leases(number: int) -> Iterator[tuple[MacAddress, IPv4Address]]:
    return ((MacAddress(OTHERS_MAC.number + i), OTHERS_ADDRESS + i) for i in range(number))


@contextmanager
def panloom(directory: Path, others: int, clients: int) -> Iterator[None]:
    store = directory / "state.sqlite"
    asyncio.run(_store(store, others))
    with serving.panloom(settings=msgspec.structs.replace(SETTINGS, store=str(store), nodes=clients)):
        yield


async def _store(path: Path, others: int) -> None:
    store = await SqliteStore.open(path)
    try:
        written = [(f"{PREFIX}{address}", LeaseRecord(str(mac), time.time() + 600)) for mac, address in leases(others)]
        for start in range(0, len(written), 1000):
            piece = {key: msgspec.json.encode(record) for key, record in written[start : start + 1000]}
            await store.commit(put=piece)
    finally:
        await store.close()


@contextmanager
def dnsmasq(directory: Path, others: int, _clients: int) -> Iterator[None]:
    ends = int(time.time()) + HOUR
    written = [f"{ends} {mac} {address} * 01:{mac}\n" for mac, address in leases(others)]
    (directory / "leases").write_text("".join(written))
    (directory / "conf").write_text(
        "port=0\ninterface=s0\nbind-interfaces\ndhcp-authoritative\nno-ping\nuser=root\nquiet-dhcp\n"
        f"dhcp-leasefile={directory}/leases\ndhcp-lease-max=200000\n"
        f"dhcp-range={SETTINGS.first_address},{LAST},{MASK},1h\n"
    )
    command = ("dnsmasq", "--keep-in-foreground", "--log-facility=/dev/null", f"--conf-file={directory}/conf")
    with serving.process(*command, ready=serving.udp_taken(67)):
        yield


@contextmanager
def kea(directory: Path, others: int, _clients: int) -> Iterator[None]:
    ends = int(time.time()) + HOUR
    rows = [f"{address},{mac},01:{mac},{HOUR},{ends},1,0,0,,0,\n" for mac, address in leases(others)]
    file = directory / "leases.csv"
    file.write_text(KEA_COLUMNS + "".join(rows))
    configuration: dict[str, Any] = {
        "interfaces-config": {"interfaces": ["s0"], "dhcp-socket-type": "udp"},
        "lease-database": {"type": "memfile", "persist": True, "name": str(file), "lfc-interval": 0},
        "valid-lifetime": HOUR,
        "subnet4": [{"id": 1, "subnet": RELAYED, "pools": [{"pool": f"{SETTINGS.first_address} - {LAST}"}]}],
        "loggers": [{"name": "kea-dhcp4", "severity": "ERROR"}],
    }
    (directory / "kea.json").write_bytes(msgspec.json.encode({"Dhcp4": configuration}))
    environment = {**os.environ, "KEA_PIDFILE_DIR": str(directory), "KEA_LOCKFILE_DIR": str(directory)}
    command = ("kea-dhcp4", "-c", directory / "kea.json")
    with serving.process(*command, ready=serving.udp_taken(67), env=environment):
        yield


Server = Callable[..., AbstractContextManager[None]]


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Climb the ladder in each case; an enclosure's work."""
    rates, steps = {}, {}
    with serving.cable(client=RELAY):
        serving.ip(f"route add {RELAYED} dev s0")
        serving.ip("-n client route add 10.77.0.0/16 dev c0")
        for case, (others, clients) in CASES.items():

            def at(rate: int, others: int = others, clients: int = clients) -> dict[str, float]:
                with serving.directory() as directory, SERVERS[name](directory, others, clients):
                    return ask(rate, clients, seconds)

            rates[case], steps[case] = climb(at, FIRST_STEPS.get((name, case), FIRST_STEP))
    return {"rates": rates, "steps": steps}


def climb(at: Callable[[int], dict[str, float]], first: int) -> tuple[float, list[dict[str, float]]]:
    """Return the most exchanges a second that were completed at a step that passed, 0 if none did, and all steps."""
    steps = [at(first)]
    way = 1 if passed(steps[0]) else -1
    number = LADDER.index(first)
    while 0 <= number + way < len(LADDER):
        number += way
        steps.append(at(LADDER[number]))
        if passed(steps[-1]) != (way > 0):
            break
    return max((step["completed"] for step in steps if passed(step)), default=0.0), steps


def passed(step: dict[str, float]) -> bool:
    return step["completed"] > 0 and step["completed"] >= LEAST_COMPLETED * step["offered"]


def ask(rate: int, clients: int, seconds: float) -> dict[str, float]:
    """Ask for a while; return what perfdhcp told, and how many answers came that it did not read."""
    options = ("-4", "-l", "c0", "-r", rate, "-R", clients, "-p", seconds, "-W", 500_000)
    command = list(map(str, (*serving.IN_CLIENT, "perfdhcp", *options, serving.SERVER)))
    before = unread()
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30).stdout
    return {"rate": rate, **reading(told, seconds), "answers that perfdhcp missed": unread() - before}


def reading(told: str, seconds: float) -> dict[str, float]:
    """Return the exchanges a second that perfdhcp says it began and completed, and its mean delays in milliseconds."""
    sent, received = (list(map(int, re.findall(rf"^{what} packets: ([0-9]+)", told, re.MULTILINE))) for what in WAYS)
    if len(sent) != 2 or len(received) != 2:
        return {"offered": 0.0, "completed": 0.0}
    delays = map(float, re.findall(r"avg delay: ([0-9.]+) ms", told))
    return {
        "offered": round(sent[0] / seconds, 1),
        "completed": round(received[1] / seconds, 1),
        **{f"delay of {half}": delay for half, delay in zip(("DISCOVER", "REQUEST"), delays, strict=False)},
    }


def unread() -> int:
    """Return how many datagrams came to the client's namespace and found their socket full."""
    command = (*serving.IN_CLIENT, "cat", "/proc/net/snmp")
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names, numbers = (line.split() for line in told.splitlines() if line.startswith("Udp:"))
    return int(dict(zip(names, numbers, strict=True))["RcvbufErrors"])


def main() -> int:
    parser = arguments(QUESTION, rounds=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each step (default 4)")
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS))
    options = parser.parse_args()
    contenders = {name: lambda name=name: measure(name, options.seconds) for name in options.only}
    rounds = alternate(contenders, options.rounds)
    found = medians(rounds)
    ours = found.get("panloom", {})
    result = {
        "goals": {
            "exchanges a second": f">= {GOAL_RATE} completed, >= {LEAST_COMPLETED:.0%} of those begun, leases synced",
            "50,000 leases / 10 leases": ">= 1",
        },
        "median_completed_exchanges_a_second": found,
        "ratios": {"50,000 leases / 10 leases": round(ours["50,000 leases"] / ours["10 leases"], 3)} if ours else {},
    }
    whole = report(options, QUESTION, rounds, result)
    return 1 if whole["failed"] else 0


SERVERS: dict[str, Server] = {"panloom": panloom, "dnsmasq": dnsmasq, "kea": kea}

if __name__ == "__main__":
    sys.exit(main())
