"""How long the peers take: tgtd and dnsmasq boot the lab's image on a QEMU machine, as Panloom does.

    scripts/run python bench/peer_boot.py [--runs N] [--auth chap none] [--restart]

    enclosure ── bridge lab0 (10.77.0.1) ─┬─ tgtd: targets shop.web1 and shop.web1.personality, LUN 1 of each
                                          ├─ dnsmasq: DHCP, router advertisements
                                          ├─ the boot script over HTTP (CHAP only)
                                          └─ tap n1 ── QEMU

Everything lives in an enclosure and vanishes with it.  The result is JSON on standard output: for each run the seconds
from power-on to each stage and to the first page, what the page says, who has which address, and the beacons heard;
with ``--restart``, how long a restart of tgtd stopped the machine's writes.  All runs boot the same disk.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from panloom.lab.enclosure import Enclosure, run_enclosed
from panloom.lab.image import WRITER_RING, build_image
from panloom.lab.qemu import Machine, command_line, kvm_is_usable

PORTAL = "10.77.0.1"
NODE = "10.77.0.11"
PAGE = "http://10.1.0.11/facts.txt"
TARGET = "iqn.2026-11.dev.panloom:shop.web1"
INITIATOR = "iqn.2026-11.dev.panloom:node.n1"
MACHINE = Machine(name="n1", mac="52:54:00:77:00:01", tap="n1")
RECOVERY_SECONDS = 120  # after which the guest gives its disk up (initramfs.sh: recovery_tmo)
USER, SECRET = "shop.web1", "correct-horse-16"
PERSONALITY = f"""PANLOOM_PERSONALITY='1'
PAN='shop'
SERVER='web1'
NODE='n1'
EPOCH='1'
NICS='1'
NIC0_MAC='02:50:4c:00:00:01'
NIC0_LAN='front'
NIC0_ADDRESS='10.1.0.11'
NIC0_PREFIX='24'
NIC0_ROUTER=''
NIC0_DNS=''
NIC0_DOMAIN=''
BEACON_ADDRESS='{PORTAL}'
BEACON_PORT='7077'
BEACON_KEY='00112233'
BEACON_SECONDS='1'
"""
SCRIPT = f"""#!ipxe
set initiator-iqn {INITIATOR}
set username {USER}
set password {SECRET}
sanboot iscsi:{PORTAL}:6:3260:1:{TARGET}
"""
DNSMASQ = f"""port=0
interface=lab0
bind-interfaces
dhcp-authoritative
no-ping
leasefile-ro
dhcp-range=10.77.0.10,10.77.0.99,255.255.255.0,1h
dhcp-host={MACHINE.mac},{NODE}
dhcp-option=encap:175,176,1b
enable-ra
dhcp-range=fd77::,ra-only,64,1h
quiet-ra
"""
DNSMASQ_AUTH = {
    "chap": f"dhcp-boot=http://{PORTAL}:8080/boot.ipxe\n",
    "none": f'dhcp-option=option:root-path,"iscsi:{PORTAL}:6:3260:1:{TARGET}"\ndhcp-option=203,"{INITIATOR}"\n',
}


def until(fact: Callable[[], object], what: str, *, within: float) -> object:
    end = time.monotonic() + within
    while not (value := fact()):
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {within:.0f} s")
        time.sleep(0.02)
    return value


class Peers:
    """tgtd, dnsmasq and a web server for the script; one directory for their files."""

    def __init__(self, directory: Path, disk: Path, auth: str) -> None:
        self._directory = directory
        self._disk = disk
        self._auth = auth
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for command in (
            "link add lab0 type bridge stp_state 0 forward_delay 0",
            f"address add {PORTAL}/24 dev lab0",
            "address add 10.1.0.1/24 dev lab0",
            "address add fd77::1/64 dev lab0 nodad",
            "link set lab0 up",
            f"tuntap add {MACHINE.tap} mode tap",
            f"link set {MACHINE.tap} master lab0 up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        (self._directory / "personality").write_text(PERSONALITY.ljust(4096, "\n"))
        (self._directory / "boot.ipxe").write_text(SCRIPT)
        (self._directory / "dnsmasq.conf").write_text(DNSMASQ + DNSMASQ_AUTH[self._auth])
        self.start_target()
        log = f"--log-facility={self._directory}/dnsmasq.log"
        self._spawn(
            "dnsmasq",
            "-k",
            "--user=root",
            "-C",
            f"{self._directory}/dnsmasq.conf",
            log,
            f"--pid-file={self._directory}/dnsmasq.pid",
        )
        self._serve_script()

    def start_target(self) -> None:
        """Open the portal last: who logs in finds all or nothing."""
        self.tgtd = self._spawn("tgtd", "-f", "-C", "7", "--iscsi", "portal=127.0.0.1:3261")
        until(
            lambda: (
                subprocess.run([*TGTADM, "--op=show", "--mode=sys"], capture_output=True, check=False).returncode == 0
            ),
            "tgtd",
            within=5,
        )
        if self._auth == "chap":
            tgtadm("--op=new", "--mode=account", f"--user={USER}", f"--password={SECRET}")
        disks = {TARGET: self._disk, f"{TARGET}.personality": self._directory / "personality"}
        for tid, (target, backing) in enumerate(disks.items(), start=1):
            tgtadm("--op=new", "--mode=target", f"--tid={tid}", f"--targetname={target}")
            tgtadm("--op=new", "--mode=logicalunit", f"--tid={tid}", "--lun=1", f"--backing-store={backing}")
            if self._auth == "chap":
                tgtadm("--op=bind", "--mode=account", f"--tid={tid}", f"--user={USER}")
            tgtadm("--op=bind", "--mode=target", f"--tid={tid}", "--initiator-address=ALL")
        tgtadm("--op=new", "--mode=portal", f"--param=portal={PORTAL}:3260")

    def tell(self) -> str:
        """Return what tgtd is, has said and serves, for whoever looks for a fault."""
        shown = subprocess.run([*TGTADM, "--op=show", "--mode=target"], capture_output=True, text=True, check=False)
        said = (self._directory / "tgtd.out").read_text()
        return f"tgtd ended with {self.tgtd.poll()}\n{said}{shown.stdout}{shown.stderr}"

    def stop(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        subprocess.run(["ip", "link", "delete", "lab0"], check=True)
        subprocess.run(["ip", "link", "delete", MACHINE.tap], check=True)

    def _spawn(self, *command: str) -> "subprocess.Popen[bytes]":
        log = (self._directory / f"{command[0]}.out").open("ab")
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._children.append(child)
        return child

    def _serve_script(self) -> None:
        self._spawn(sys.executable, "-m", "http.server", "8080", "--bind", PORTAL, "--directory", str(self._directory))


TGTADM = ("tgtadm", "-C", "7", "--lld=iscsi")


def tgtadm(*arguments: str) -> None:
    subprocess.run([*TGTADM, *arguments], check=True)


def page() -> dict[str, str]:
    try:
        with urllib.request.urlopen(PAGE, timeout=0.5) as answer:
            return dict(line.split("=", 1) for line in answer.read().decode().splitlines())
    except OSError:
        return {}


class Powered:
    """A machine that is on, and the lines of its console with the seconds since power-on."""

    def __init__(self, machine: Machine = MACHINE) -> None:
        self.lines: list[tuple[float, str]] = []
        self._started = time.monotonic()
        command = command_line(machine, kvm=kvm_is_usable())
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def stages(self) -> dict[str, float]:
        found = ((at, re.search(r"PANLOOM stage=(\w+)", text)) for at, text in tuple(self.lines))
        return {match[1]: round(at, 2) for at, match in found if match}

    def tell(self) -> str:
        """Return the end of what its console showed."""
        return "\n".join(f"{at:7.2f} {text}" for at, text in self.lines[-20:])

    def off(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout:
            text = line.decode("latin1").strip()
            self.lines.append((self.seconds, text))
            if os.environ.get("CONSOLE"):
                print(f"{self.seconds:7.2f} {text}", file=sys.stderr)


def boot(disk: Path, auth: str, *, restart: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        peers = Peers(Path(directory), disk, auth)
        peers.start()
        beacons = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        beacons.bind((PORTAL, 7077))
        beacons.settimeout(10)
        machine = Powered()
        try:
            until(lambda: "userland" in machine.stages(), "userland", within=120)
            facts = until(page, "the page", within=30)
            result = {
                "auth": auth,
                "stages": machine.stages(),
                "page_seconds": round(machine.seconds, 2),
                "page": facts,
            }
            result["neighbours"] = neighbours()
            if restart:
                result["restart_seconds"] = restart_target(peers, disk, machine)
            result["beacons"] = [beacons.recv(1024).decode() for _ in range(2)]
            return result
        finally:
            machine.off()
            beacons.close()
            peers.stop()


def neighbours() -> dict[str, str]:
    """Return address → MAC of the machines that were heard of."""
    shown = subprocess.run(
        ["ip", "-4", "neighbour", "show", "dev", "lab0"], capture_output=True, text=True, check=True
    ).stdout
    return {
        words[0]: words[words.index("lladdr") + 1] for words in map(str.split, shown.splitlines()) if "lladdr" in words
    }


def restart_target(peers: Peers, disk: Path, machine: Powered) -> float:
    """Kill tgtd, start it anew; return the seconds until the machine's writer has written again."""
    until(lambda: tags(disk).count(b"\n") > 50, "the writer", within=30)
    peers.tgtd.kill()
    peers.tgtd.wait()
    before, began = tags(disk), time.monotonic()
    peers.start_target()
    try:
        until(lambda: tags(disk) != before, "a write after the restart of tgtd", within=RECOVERY_SECONDS)
    except SystemExit as missed:
        raise SystemExit(f"{missed}\n{peers.tell()}\n{machine.tell()}") from None
    return round(time.monotonic() - began, 2)


def tags(disk: Path) -> bytes:
    with disk.open("rb") as file:
        file.seek(WRITER_RING.start * 512)
        return file.read(len(WRITER_RING) * 512).strip(b"\0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--auth", choices=DNSMASQ_AUTH, default=["chap"], nargs="+")
    parser.add_argument("--restart", action="store_true")
    options = parser.parse_args()
    packages = Path(os.environ["PANLOOM_PACKAGES"])
    with tempfile.TemporaryDirectory(prefix=f"panloom-peer-{os.getpid()}-") as directory:
        disk = Path(directory) / "disk.img"
        build_image(packages, disk, extra_files={"/panloom-writer": b""} if options.restart else {})

        def measure(_enclosure: Enclosure) -> int:
            runs = [boot(disk, auth, restart=options.restart) for _ in range(options.runs) for auth in options.auth]
            print(json.dumps(runs, indent=2))
            return 0

        return run_enclosed(measure)


if __name__ == "__main__":
    sys.exit(main())
