"""The chassis declares itself in documents that Panloom reads without a complaint."""

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import msgspec
import pytest

from panloom.errors import ConfigError
from panloom.fabric.links import Address, Bridge, Tap
from panloom.lab.chassis import Chassis, documents
from panloom.model.load import File, load
from panloom.model.sources import Findings


def test_documents_say_what_the_chassis_is():
    chassis = Chassis.of(nodes=3)
    findings = Findings()
    text = documents(chassis, power_socket=Path("/run/panloom/power.sock"), image=Path("/images/web.img"))
    resources = load([File("chassis.yaml", text)], findings).resources
    assert findings.errors() == ()
    assert set(resources) == {"/want/platform", "/want/node/n1", "/want/node/n2", "/want/node/n3", "/want/image/web@1"}
    for number, machine in enumerate(chassis.machines, start=1):
        node = resources[f"/want/node/n{number}"]
        assert (str(node.mac), node.address, node.port) == (
            machine.mac,
            IPv4Address(f"10.77.0.{10 + number}"),
            machine.tap,
        )
        assert node.memory_octets == machine.memory_octets
        assert (node.power.driver, node.power.name) == ("socket", machine.name)


@pytest.mark.parametrize(("qemu", "timeout_seconds"), [(0, 1.0), (1, 3.0), (None, 3.0)])
def test_a_chassis_of_emulated_machines_alone_judges_silence_sooner(qemu, timeout_seconds):
    chassis = Chassis.of(nodes=3, qemu=qemu)
    text = documents(chassis, power_socket=Path("/run/panloom/power.sock"), image=Path("/images/web.img"))
    liveness = load([File("chassis.yaml", text)], Findings()).resources["/want/platform"].liveness
    assert liveness.timeout_seconds == timeout_seconds
    assert liveness.interval_seconds < timeout_seconds / 2


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"nodes": 0}, "0 do not fit into a chassis; it takes 1 to 180"),
        ({"nodes": 181}, "181 do not fit"),
        ({"nodes": 2, "qemu": 3}, "3 of 2 nodes cannot be QEMU's"),
        ({"nodes": 2, "qemu": -1}, "-1 of 2 nodes"),
    ],
)
def test_a_chassis_that_cannot_be_is_refused(wanted, why):
    with pytest.raises(ConfigError, match=why):
        Chassis.of(**wanted)


def test_a_chassis_with_fabrics_declares_them_with_bridges_and_addresses_of_its_own():
    chassis, findings = Chassis.of(nodes=2, qemu=0, fabrics=True), Findings()
    text = documents(chassis, power_socket=Path("/run/panloom/power.sock"), image=Path("/images/web.img"))
    fabrics = load([File("chassis.yaml", text)], findings).resources["/want/platform"].fabrics
    assert findings.errors() == ()
    for network in (fabrics.a, fabrics.b):
        assert Bridge(network.interface) in chassis.links()
        assert Address(network.interface, IPv4Interface((network.subnet.network_address + 1, 24))) in chassis.links()
        assert network.interface in chassis.link_names()


def test_every_machine_has_a_cable_to_the_bridge():
    chassis = Chassis.of(nodes=2)
    assert [link for link in chassis.links() if isinstance(link, Tap)] == [Tap("n1", "lab0"), Tap("n2", "lab0")]
    assert {machine.tap for machine in chassis.machines} <= set(chassis.link_names())


def test_machines_of_qemu_have_each_kind_of_firmware_in_turn():
    chassis = Chassis.of(nodes=4, qemu=3, firmware=("bios", "uefi"))
    assert [machine.firmware for machine in chassis.machines[:3]] == ["bios", "uefi", "bios"]
    assert chassis.firmware == {"bios", "uefi"}
    assert Chassis.of(nodes=4, qemu=0, firmware=("uefi-pxe",)).firmware == set()


@pytest.mark.parametrize(
    ("firmware", "timeout"), [("bios", "30s"), ("uefi", "60s"), ("uefi-pxe", "60s"), ("uefi-http", "60s")]
)
def test_uefi_has_more_time_to_boot(firmware, timeout):
    text = documents(Chassis.of(nodes=1, firmware=(firmware,)), power_socket=Path("/p"), image=Path("/i"))
    assert f"boot_timeout: {timeout}" in text


def test_decode_undoes_encode():
    chassis = Chassis.of(nodes=3, firmware=("uefi",))
    assert msgspec.json.decode(msgspec.json.encode(chassis), type=Chassis) == chassis
