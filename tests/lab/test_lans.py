"""Virtual LANs over two fabrics, in a whole lab of emulated machines: documents in, frames out."""

import fcntl
import socket
import struct
from pathlib import Path

import pytest

from panloom.errors import UnavailableError
from panloom.fabric.namespaces import within
from panloom.lab.chassis import Chassis
from support.lab import PATIENT, running_lab
from support.waiting import until

pytestmark = pytest.mark.timeout(180)
SIOCGIFHWADDR = 0x8927  # linux/sockios.h
WEB1, WEB2 = "10.5.0.11", "10.5.0.12"
PANS = """
apiVersion: panloom/v1
kind: PAN
name: shop
lans:
  front: {subnet: 10.1.0.0/24}
  red: {subnet: 10.5.0.0/24, network: fabrics}
  blue: {subnet: 10.6.0.0/24, network: fabrics}
servers:
  web[1-2]:
    image: web
    nics:
      - {lan: front, address: "10.1.0.1[1-2]"}
      - {lan: red, address: "10.5.0.1[1-2]"}
---
apiVersion: panloom/v1
kind: PAN
name: mail
lans:
  front: {subnet: 10.2.0.0/24}
  red: {subnet: 10.5.0.0/24, network: fabrics}
servers:
  db1:
    image: web
    nics:
      - {lan: front, address: 10.2.0.11}
      - {lan: red, address: 10.5.0.11}
"""
"""Both PANs have a LAN of one name, with the same addresses."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    chassis = Chassis.of(nodes=4, qemu=0, fabrics=True)
    with running_lab(tmp_path_factory.mktemp("lans"), chassis=chassis) as running:
        running.declare(liveness=PATIENT)
        running.apply(PANS)
        for server in ("shop/web1", "shop/web2", "mail/db1"):
            running.until_up(server)
        yield running


def system_of(lab, server):
    """Return the namespace of the machine's system that carries a server: the one that has its MAC."""
    mac = bytes.fromhex(lab.server(server)["mac"][0].replace(":", ""))
    for process in Path("/proc").glob("[0-9]*"):
        words = (process / "cmdline").read_bytes().split(b"\0") if (process / "cmdline").exists() else []
        if b"panloom.lab.supervisor" in words and str(lab.lab.power_socket).encode() in words:
            for descriptor in (process / "fd").iterdir():
                if descriptor.is_symlink() and str(descriptor.readlink()).startswith("net:") and has(descriptor, mac):
                    return descriptor
    return None


def has(file, mac):
    try:
        with within(file), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            request = struct.pack("16s24x", b"os0")
            return fcntl.ioctl(asker, SIOCGIFHWADDR, request)[18:24] == mac
    except (OSError, UnavailableError):
        return False


def ask(lab, server, address):
    """Return what the server at an address says of itself to another server, None if nobody answers that."""
    system = system_of(lab, server)
    return page(system, address) if system is not None else None


def page(system, address):
    """Return what the server at an address says of itself to the system in a namespace, None if nobody answers."""
    with within(system):
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with caller:
        caller.settimeout(4)
        try:
            caller.connect((address, 80))
            caller.sendall(b"GET /facts.txt HTTP/1.0\r\n\r\n")
            said = b"".join(iter(lambda: caller.recv(4096), b""))
        except OSError:
            return None
    return dict(line.split("=", 1) for line in said.decode().partition("\r\n\r\n")[2].splitlines() if "=" in line)


def until_heard(lab, server, address, **facts):
    """Wait until a server hears these facts from an address."""

    def heard():
        said = ask(lab, server, address)
        return said if said and facts.items() <= said.items() else None

    return until(heard, f"{server} hears {facts} from {address}", seconds=60)


def test_cap_087_107_108_servers_of_a_lan_reach_each_other_and_nobody_of_another_pan(lab):
    """Addresses and names of LANs may be the same in two PANs, and a server has a NIC in each of its LANs."""
    assert until_heard(lab, "shop/web2", WEB1)["server"] == "shop/web1"
    assert until_heard(lab, "shop/web1", WEB2)["server"] == "shop/web2"
    assert ask(lab, "mail/db1", WEB2) is None
    assert ask(lab, "mail/db1", WEB1)["server"] == "mail/db1"  # itself
    assert lab.page(WEB1) is None  # nor does the control node


def test_show_lan_tells_vni_and_members(lab):
    red = lab.call(lab.lab.get("resources", "lan", "shop/red"))
    other = lab.call(lab.lab.get("resources", "lan", "mail/red"))
    members = {member["server"]: member for member in red["members"]}
    assert {server: member["node"] for server, member in members.items()} == {
        server: lab.server(server)["node"] for server in ("shop/web1", "shop/web2")
    }
    vnis = {red["vni"], other["vni"], *(member["vni"] for lan in (red, other) for member in lan["members"])}
    assert len(vnis) == 5
    assert None not in vnis


def test_cap_102_a_lan_comes_and_goes_while_its_members_run(lab):
    boots = {server: lab.server(server)["epoch"] for server in ("shop/web1", "shop/web2")}
    lab.apply(PANS.replace('"10.5.0.1[1-2]"}', '"10.5.0.1[1-2]"}\n      - {lan: blue, address: "10.6.0.1[1-2]"}'))
    assert until_heard(lab, "shop/web2", "10.6.0.11")["server"] == "shop/web1"
    lab.apply(PANS)
    until(lambda: ask(lab, "shop/web2", "10.6.0.11") is None, "the LAN is gone", seconds=30)
    until_heard(lab, "shop/web2", WEB1)
    assert {server: lab.server(server)["epoch"] for server in boots} == boots


def test_a_control_process_that_ends_and_starts_again_cuts_nothing(lab):
    until_heard(lab, "shop/web2", WEB1)
    web2 = system_of(lab, "shop/web2")
    lab.call(lab.lab.kill("control"))
    assert page(web2, WEB1)["server"] == "shop/web1"
    lab.call(lab.lab.start_control())
    lab.until_up("shop/web1")
    assert page(web2, WEB1)["server"] == "shop/web1"


def test_a_server_that_moves_is_found_by_its_lan_under_the_same_mac(lab):
    before = lab.server("shop/web1")
    assert lab.power(before["node"], "kill") is False
    moved = lab.until_up("shop/web1", not_on=[before["node"]])
    assert until_heard(lab, "shop/web2", WEB1, node=moved["node"])["epoch"] == str(before["epoch"] + 1)
    assert moved["mac"] == before["mac"]
