"""The chassis declares itself in documents that Panloom reads without a complaint."""

from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from panloom.fabric.links import Tap
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


def test_every_machine_has_a_cable_to_the_bridge():
    chassis = Chassis.of(nodes=2)
    assert [link for link in chassis.links() if isinstance(link, Tap)] == [Tap("n1", "lab0"), Tap("n2", "lab0")]
    assert {machine.tap for machine in chassis.machines} <= set(chassis.link_names())


def test_decode_undoes_encode():
    chassis = Chassis.of(nodes=3)
    assert msgspec.json.decode(msgspec.json.encode(chassis), type=Chassis) == chassis
