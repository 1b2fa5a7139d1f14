"""A fence holds where the node's cable ends, and nowhere else: the real processes over real bridges."""

import socket
from ipaddress import IPv4Address

import pytest

from fabric.frames import ARP, IPV4, arp, ethernet, udp
from panloom.errors import ConflictError
from panloom.values import MacAddress
from support.control_node import control_node, pan, run_panloom
from support.lab import is_from
from support.waiting import until

ONE = pan("shop", "web1", more="node: n1")
MARK = 0x88B5  # the EtherType of local experiments, IEEE 802


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=2) as made:
        yield made


def declare(control, port):
    """Say in the document of n1 where its cable ends."""
    control.apply(control.platform().replace("port: port-n1", f"port: {port}"), "lab.yaml")


def stay_quiet(machine):
    """Let no bridge know of a machine that is off: its kernel sends nothing of its own."""
    for command in ("down", "addrgenmode none", "up"):
        machine.inside.ip(f"link set eth0 {command}")


def wire(inside, interface, protocol=0):
    """Return a socket for whole frames at an interface; it hears those of a protocol, of none if that is 0."""
    made = inside.socket(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)))
    made.bind((interface, protocol))
    made.settimeout(0.2)
    return made


def let_in(control, machine, row):
    """Have a machine claim a server's MAC and address; return the EtherTypes of what the bridge lets in of that.

    All was looked at when a mark is heard that another machine sends, at a port that is open.
    """
    (mac,), (address,) = row["mac"], row["address"]
    own, sender, receiver = MacAddress.parse(mac).to_octets(), IPv4Address(address), IPv4Address("10.77.0.1")
    control.inside.ip("link add open0 type veth peer name open1")
    for link in ("open0 master br0", "open0", "open1"):
        control.inside.ip(f"link set {link} up")
    heard = []
    with (
        wire(control.inside, "br0", 3) as ear,  # ETH_P_ALL, linux/if_ether.h
        wire(control.inside, "open1") as other,
        wire(machine.inside, "eth0") as mouth,
    ):
        mouth.send(arp(own, own, sender, receiver))
        mouth.send(udp(own, sender, receiver, 4096, 8192))

        def mark_is_heard():
            other.send(ethernet(bytes.fromhex("020000000099"), MARK, b""))
            try:
                while int.from_bytes((frame := ear.recv(2048))[12:14], "big") != MARK:
                    heard.append(frame)
            except TimeoutError:
                return False
            return True

        until(mark_is_heard, "the bridge lets the mark in")
    control.inside.ip("link del open0")
    return {int.from_bytes(frame[12:14], "big") for frame in heard if is_from(frame, mac, address)}


def test_a_node_whose_port_is_none_is_not_placed_on_until_the_port_appears(control):
    control.start()
    declare(control, "port-late")
    control.apply(ONE)
    assert control.until_up("shop/web1")["node"] == "n2"
    assert control.node("n1")["state"] == "no port"
    assert "port-late is no port of a bridge" in control.node("n1")["why"]
    _, said, _ = run_panloom(control, "status")
    assert "0 spare; look at n1" in said
    control.apply(pan("mail", "mx1"))
    control.until_event("held up", server="mail/mx1")
    assert "port-late is no port of a bridge" in control.server("mail/mx1")["why"]
    control.inside.ip("link set port-n1 down")
    control.inside.ip("link set port-n1 name port-late")
    control.inside.ip("link set port-late up")
    assert control.until_up("mail/mx1")["node"] == "n1"


def test_a_fence_at_a_port_that_is_not_the_node_s_is_not_confirmed(control):
    stay_quiet(control["n1"])
    control.inside.ip("link add port-x type veth peer name unused")
    control.inside.ip("link set port-x master br0 up")
    control.start()
    declare(control, "port-x")
    control.apply(ONE)
    held = control.until_event("held up", server="shop/web1")
    assert "come in at port-n1" in held["text"]
    assert control.server("shop/web1")["state"] == "booting"
    control["n1"].switch_is_broken = True
    run_panloom(control, "failover", "shop/web1")
    until(lambda: control.server("shop/web1").get("detail") == "drain writes done", "its writes are drained")
    until(lambda: "come in at port-n1" in (control.server("shop/web1")["why"] or ""), "it says why it does not go on")
    assert "come in at port-n1" in control.node("n1")["why"]
    with pytest.raises(ConflictError, match="carries shop/web1"):
        declare(control, "port-y")
    assert not control.events("fence complete")
    declare(control, "port-n1")  # which is so, and may be said while the node is in use
    row = control.until_up("shop/web1", not_on={"n1"})
    assert let_in(control, control["n1"], row) == set()


def test_a_machine_that_is_cut_off_is_fenced_all_the_same_and_met_by_the_filter_when_it_is_back(control):
    control.start()
    control.apply(ONE)
    row = control.until_up("shop/web1")
    assert let_in(control, control["n1"], row) == {ARP, IPV4}
    control["n1"].switch_is_broken = control["n1"].is_silent = True
    control.inside.ip("link set port-n1 nomaster")
    run_panloom(control, "failover", "shop/web1")
    control.until_up("shop/web1", not_on={"n1"})
    control.inside.ip("link set port-n1 master br0")
    assert let_in(control, control["n1"], row) == set()
