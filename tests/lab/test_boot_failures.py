"""Boots of real machines that do not come up: what is told of each, as ``panloom show node`` prints it."""

import os
import re
import socket
import subprocess
import sys

import pytest

from support.lab import pan, running_lab
from support.terminal import console
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
HTTP_PORT = 8080
NOTHING = """
apiVersion: panloom/v1
kind: Image
name: nothing
version: 1
source: {source}
"""


def show(lab, node):
    done = subprocess.run(
        (sys.executable, "-W", "error", "-c", "from panloom.command import main; main()", "show", "node", node),
        env={**os.environ, "PANLOOM_SOCKET": str(lab.lab.control_socket), "COLUMNS": "100"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def until_told(lab, node, cause):
    """Wait until the boot has stopped for a cause, and return what is shown of it."""
    boots = []

    def is_told():
        boots.append(lab.node(node).get("boot") or {})
        return cause in (boots[-1].get("likely") or "")

    try:
        until(is_told, f"{node} has stopped because {cause}", seconds=60)
    except AssertionError as error:
        raise AssertionError(f"{error}; {boots[-1]}") from error
    return show(lab, node)


def listening(inside):
    def make():
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", HTTP_PORT))
        made.listen()
        return made

    return inside.socket(make)


def test_what_stops_a_boot_is_told_with_its_mend(tmp_path):
    (tmp_path / "nothing.img").write_bytes(bytes(1 << 20))
    with running_lab(tmp_path / "lab", start=False) as lab:
        with listening(lab.inside):
            lab.call(lab.lab.start(lab.image))
            until(lambda: lab.node("n1")["power"] == "off", "its power is known")
            lab.power("n1", "on")
            shown = until_told(lab, "n1", "our boot services are not open")
            assert re.search(r": stopped after power on\n +0\.0 s  power on\n", shown)
            assert f"port {HTTP_PORT}" in shown
        lab.until_event("boot services", text="open on lab0 at 10.77.0.1")

        lab.apply(NOTHING.format(source=tmp_path / "nothing.img"))
        void = pan(servers="db1", address="10.2.0.21", name="void", more="node: n2")
        lab.apply(void.replace("10.1.0.0", "10.2.0.0").replace("web", "nothing"))
        with console(lab, "n3") as terminal:
            lab.power("n3", "on")
            terminal.until(rb"Ctrl-B", "the boot loader says how to stop it")
            terminal.type(b"\x02")
            terminal.until(rb"iPXE>", "it stands at its prompt")
            lab.apply(pan(servers="web1", address="10.1.0.11", more="node: n3"))
            assert "autoboot" in until_told(lab, "n3", "somebody stopped it at the prompt")
            target = lab.call(lab.lab.get("personalities", "shop/web1"))["storage"]["target"]
            lab.until_event("placed", server="shop/web1")
            for line in (
                "dhcp", "set initiator-iqn iqn.2026-11.dev.panloom:node.n3", "set username x", "set password x",
                f"sanboot iscsi:10.77.0.1::::{target}",
            ):  # fmt: skip
                terminal.enter(line)
                terminal.until(rb"iPXE> $", f"after {line} it asks for more")
            shown = until_told(lab, "n3", "it proved a secret")
            assert "event: login refused: the CHAP response is wrong\n" in shown
            assert "panloom node power reset n3\n" in shown
            terminal.leave()

        shown = until_told(lab, "n2", "no boot loader")
        assert re.search(r"console: Boot from SAN device 0x80 failed: .+\n", shown)
        assert "first read" in shown or "begun" in shown
        lab.call(lab.lab.kill("storage"))
        assert "start it: panloom storage" in until_told(lab, "n2", "the storage process does not answer")
        assert max(len(line) for line in shown.splitlines()) <= 100
