"""How long is a server away when its machine dies, beside moving it by hand with tgtd and dnsmasq?

    scripts/run python bench/failover_seconds.py [--rounds N] [--case exits silent] [--settle SECONDS] [--json FILE]

Two cases: the machine ``exits`` (its QEMU is killed) and it falls ``silent`` (SIGSTOP).  Seconds count from there:

    detected     somebody knows            fenced       the old machine has no way to the disk any more
    first read   the spare reads the disk  userland     its init runs             answering    the first page

No peer moves an identity by itself.  What a script on the control node would do stands beside it in each round: probe
the page until it was away for 3 s (keepalived's default: three advertisements of a second), switch the old machine
off, take it out of tgtd's access list, cut its connections, change dnsmasq's reservation, and switch the spare on.  Its
``first read`` is iPXE's word that it boots from the disk; Panloom's is the first READ that the target saw.

Both sides first run undisturbed for ``--settle`` seconds.  It matters: Panloom begins to count the silence of a server
only 5 s after it has come up (``control.observer.ADOPTION_SECONDS``); with ``--settle 0`` a silent one is detected
5 s later than in the steady state.

Goals: first read at most 5 s and answering at most 12 s when the machine exits; answering at most 14 s when silent.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import panloom_lab
import peer_boot
from measuring import alternate, arguments, medians, report
from panloom.lab.qemu import Machine
from peer_boot import MACHINE, NODE, TGTADM, Peers, Powered, tgtadm

QUESTION = "How long is a server away when its machine dies, beside moving it by hand with tgtd and dnsmasq?"
GOALS = {"exits": {"first read": 5.0, "answering": 12.0}, "silent": {"answering": 14.0}}
FAULTS = {"exits": "kill", "silent": "stop"}
SILENCE_SECONDS = 3.0
SPARE = Machine(name="n2", mac="52:54:00:77:00:02", tap="n2")
SPARE_ADDRESS = "10.77.0.12"
DISKS = (1, 2)  # tgtd's numbers of the two targets


def panloom(image: Path, case: str, settle: float) -> dict[str, Any]:
    return asyncio.run(_panloom(image, case, settle))


async def _panloom(image: Path, case: str, settle: float) -> dict[str, Any]:
    async with panloom_lab.running(image, nodes=2) as lab:
        await lab.apply_text("bench.yaml", panloom_lab.DOCUMENT)
        await panloom_lab.until_answers()
        await panloom_lab.until_event(lab, "up")
        before = await lab.get("resources", "server", panloom_lab.SERVER)
        await asyncio.sleep(settle)
        at = time.monotonic()
        await lab.power(before["node"], FAULTS[case])
        placed = await panloom_lab.until_event(lab, "powering", epoch=2)
        answered = await panloom_lab.until_answers(epoch=2)
        fence = await panloom_lab.until_event(lab, "fence", node=before["node"])
        fenced = await panloom_lab.until_event(lab, "fence complete", node=before["node"])
        read = await panloom_lab.until_event(lab, "boot", text="first read", epoch=2)
        stages = panloom_lab.console_stages(placed["node"], at)
        return {
            "seconds": {
                "detected": fence["monotonic"] - at,
                "fenced": fenced["monotonic"] - at,
                "first read": read["data"]["reached"] - at,
                "userland": stages["userland"],
                "answering": answered - at,
            },
            "why": fence["text"],
            "held": [e["text"] for e in (await lab.get("events", after=0))["events"] if e["kind"] == "held"],
        }


class ByHand(Peers):
    """tgtd and dnsmasq with two machines and an access list, and the steps of a move."""

    def start(self) -> None:
        super().start()
        for command in (f"tuntap add {SPARE.tap} mode tap", f"link set {SPARE.tap} master lab0 up"):
            subprocess.run(["ip", *command.split()], check=True)
        for tid in DISKS:
            tgtadm("--op=unbind", "--mode=target", f"--tid={tid}", "--initiator-address=ALL")
            tgtadm("--op=bind", "--mode=target", f"--tid={tid}", f"--initiator-address={NODE}")

    def fence(self) -> None:
        """Let the old machine log in no more, and cut what connections it has."""
        for tid in DISKS:
            tgtadm("--op=unbind", "--mode=target", f"--tid={tid}", f"--initiator-address={NODE}")
            shown = subprocess.run(
                [*TGTADM, "--op=show", "--mode=conn", f"--tid={tid}"], capture_output=True, text=True, check=True
            ).stdout
            for session, connection in re.findall(r"Session: (\d+)\s+Connection: (\d+)", shown):
                tgtadm("--op=delete", "--mode=conn", f"--tid={tid}", f"--sid={session}", f"--cid={connection}")

    def move(self) -> None:
        """Let the spare in, and give it the reservation."""
        for tid in DISKS:
            tgtadm("--op=bind", "--mode=target", f"--tid={tid}", f"--initiator-address={SPARE_ADDRESS}")
        configuration = self._directory / "dnsmasq.conf"
        reservation = f"dhcp-host={MACHINE.mac},{NODE}"
        configuration.write_text(
            configuration.read_text().replace(reservation, f"dhcp-host={SPARE.mac},{SPARE_ADDRESS}")
        )
        dnsmasq = next(child for child in self._children if child.args[0] == "dnsmasq")
        dnsmasq.kill()
        dnsmasq.wait()
        self._spawn(*dnsmasq.args)

    def stop(self) -> None:
        super().stop()
        subprocess.run(["ip", "link", "delete", SPARE.tap], check=True)


def by_hand(image: Path, case: str, settle: float) -> dict[str, Any]:
    disk = Path("/run/disk.img")
    shutil.copyfile(image, disk)
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        peers = ByHand(Path(directory), disk, "chap")
        peers.start()
        old = Powered()
        new = None
        try:
            peer_boot.until(peer_boot.page, "the first page", within=90)
            time.sleep(settle)
            at = time.monotonic()
            os.kill(old.pid, signal.SIGKILL if case == "exits" else signal.SIGSTOP)
            heard = at
            while time.monotonic() - heard < SILENCE_SECONDS:
                heard = time.monotonic() if peer_boot.page() else heard
                time.sleep(0.05)
            detected = time.monotonic() - at
            old.off()
            peers.fence()
            fenced = time.monotonic() - at
            peers.move()
            new = Powered(SPARE)
            powered = time.monotonic() - at
            peer_boot.until(peer_boot.page, "the page, from the spare", within=90)
            answering = time.monotonic() - at
            read = next(seconds for seconds, line in tuple(new.lines) if "Booting from SAN device" in line)
            return {
                "seconds": {
                    "detected": detected,
                    "fenced": fenced,
                    "first read": powered + read,
                    "userland": powered + new.stages()["userland"],
                    "answering": answering,
                },
                "boots": peer_boot.page().get("boots"),
            }
        finally:
            for machine in filter(None, (old, new)):
                machine.off()
            peers.stop()


def main() -> int:
    parser = arguments(QUESTION, rounds=5)
    parser.add_argument("--case", choices=GOALS, nargs="+", default=list(GOALS))
    parser.add_argument("--settle", type=float, default=10.0, help="seconds between up and the fault (default 10)")
    options = parser.parse_args()
    image = panloom_lab.bootable_image()
    contenders = {}
    for case in options.case:
        contenders[f"{case}: panloom"] = lambda case=case: panloom(image, case, options.settle)
        contenders[f"{case}: by hand"] = lambda case=case: by_hand(image, case, options.settle)
    rounds = alternate(contenders, options.rounds)
    found = medians(rounds)
    result = {
        "goals": {
            case: {stage: f"<= {seconds:g} s" for stage, seconds in GOALS[case].items()} for case in options.case
        },
        "median_seconds": found,
        "ratios": {
            case: {
                stage: round(seconds / found[f"{case}: by hand"][stage], 3)
                for stage, seconds in found[f"{case}: panloom"].items()
                if stage in found[f"{case}: by hand"]
            }
            for case in options.case
        },
    }
    whole = report(options, QUESTION, rounds, result)
    return 1 if whole["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
