"""Consoles from another network, by an SSH server on the control node; and who may do what there."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from support.lab import running_lab
from support.namespaces import namespace
from support.terminal import COMMAND, console
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
ADDRESS = "192.0.2.1"
SERVE = f"""
# No account and no record of the machine's is touched: the server sees a list of users and logs of its own.
mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs none /var/log && mount -t tmpfs none /run &&
exec dropbear -F -E -s -r "$1/host" -p {ADDRESS}:22
"""
LETS = """
apiVersion: panloom/v1
kind: Platform
name: lab
storage: {{interface: lab0, address: 10.77.0.1, subnet: 10.77.0.0/24}}
consoles: {consoles}
"""


@contextmanager
def ssh(lab):
    """Serve SSH to another network; yields the command that opens a console from there, NODE to be added."""
    directory = lab.lab.directory / "ssh"
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    for key in ("host", "client"):
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", directory / key], check=True, capture_output=True)
    shown = subprocess.run(
        ["dropbearkey", "-y", "-f", directory / "client"], check=True, capture_output=True, text=True
    )
    public = next(line for line in shown.stdout.splitlines() if line.startswith("ssh-"))
    (home / ".ssh" / "authorized_keys").write_text(public + "\n")
    (home / ".ssh" / "authorized_keys").chmod(0o600)
    (directory / "passwd").write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
    with namespace("outside") as outside:
        lab.inside.ip(f"link add uplink type veth peer name eth0 netns {outside.name}")
        lab.inside.ip(f"address add {ADDRESS}/24 dev uplink")
        lab.inside.ip("link set uplink up")
        outside.ip("address add 192.0.2.2/24 dev eth0")
        outside.ip("link set eth0 up")
        with (directory / "log").open("wb") as log:
            lab.inside.start("unshare", "--mount", "sh", "-c", SERVE, "sh", directory, stderr=log)
        script = f"import socket; socket.create_connection(('{ADDRESS}', 22), 1)"
        until(lambda: outside.run(sys.executable, "-c", script, check=False).returncode == 0, "SSH is served")
        yield outside.command(
            *("dbclient", "-y", "-y", "-t", "-i", directory / "client", f"root@{ADDRESS}"),
            *(f"PANLOOM_SOCKET={lab.lab.control_socket} PYTHONPATH={os.environ.get('PYTHONPATH', '')}", sys.executable),
            *("-c", "'from panloom.command import main; main()'", "console"),
        )


def lets(lab, consoles):
    lab.apply(LETS.format(consoles=consoles), "platform.yaml")


def test_cap_198_a_console_from_here_and_from_another_network_and_not_for_those_who_may_not(tmp_path):
    with running_lab(tmp_path / "lab", nodes=1) as lab, ssh(lab) as from_outside:
        with console(lab, "n1", command=from_outside) as far:
            far.until(rb"n1: its console\. Leave with \^\]\.\r", "it is open from outside, and may type")
            lab.power("n1", "on")
            far.until(rb"Ctrl-B", "the boot loader says how to stop it")
            far.type(b"\x02")
            far.until(rb"iPXE>", "typing has reached it")
            with console(lab, "n1") as near:
                near.until(rb"You read; somebody else types", "it is open here too")
                far.enter("echo from afar")
                near.until(rb"\nfrom afar", "both see the same")
                near.leave()
            lets(lab, "{type: [ada]}")
            far.type(b"x")
            far.until(rb"root may not type at the console of n1", "who may no longer type cannot")
            far.leave()
        for command in (COMMAND, from_outside):
            with console(lab, "n1", command=command) as terminal:
                terminal.until(rb"You read; the platform's `consoles:` lets you do no more", "one may only read")
                terminal.until(rb"iPXE>", "and does")
                terminal.leave()
        lets(lab, "{type: [ada], read: [group:nogroup]}")
        for command in (COMMAND, from_outside):
            for arguments in (("n1",), ("n1", "--replay")):
                with console(lab, *arguments, command=command) as terminal:
                    terminal.until(rb"root may not look at consoles", "one may do nothing")
                    assert terminal.process.wait(timeout=20) == 1
                    assert b"iPXE" not in terminal.seen
        lets(lab, "{type: [group:root]}")
        with console(lab, "n1", command=from_outside) as far:
            far.until(rb"Leave with \^\]\.\r", "a group may type")
            far.leave()
        refused = [event["data"]["who"] for event in lab.events("console", text="refused")]
        assert refused == ["root"] * 4
