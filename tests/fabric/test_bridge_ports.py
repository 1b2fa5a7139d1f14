"""The ports of real bridges, and what the bridges have learnt."""

import asyncio
import subprocess
import sys

from panloom.fabric import bridge_ports
from panloom.values import MacAddress
from support.dhcp_wire import DhcpWire
from support.namespaces import LoopInside, machines

NO_SOCKET = """
import resource
from panloom.errors import KernelError
from panloom.fabric import bridge_ports
bridge_ports.observe()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    bridge_ports.observe()
except KernelError as error:
    print(error)
"""
ONE, TWO = "52:54:00:77:00:01", "52:54:00:77:00:02"


async def observe():
    return await asyncio.to_thread(bridge_ports.observe)


def test_a_machine_is_seen_at_the_port_where_its_frames_came_in():
    with machines({"n1": ONE, "n2": TWO}) as chassis, LoopInside(chassis.control) as inside:
        chassis.control.ip("link add loose type veth peer name other")
        chassis.control.ip("link set port-n2 address 02:00:00:00:00:02")
        with DhcpWire(chassis["n1"]) as wire:
            wire.send(b"hello", MacAddress.parse(ONE))
        cabling = inside.call(observe())
        assert cabling.bridged == {"port-n1", "port-n2"}
        assert cabling.learnt[ONE] == {"port-n1"}
        assert "02:00:00:00:00:02" not in cabling.learnt  # the port's own: nothing with it comes in there
        chassis.control.ip("link set port-n1 nomaster")
        assert inside.call(observe()).bridged == {"port-n2"}
        assert ONE not in inside.call(observe()).learnt


def test_a_kernel_that_does_not_answer_is_an_error_that_is_tried_again():
    done = subprocess.run((sys.executable, "-c", NO_SOCKET), capture_output=True, text=True, timeout=20, check=True)
    assert "cannot be read" in done.stdout
