"""kill -9 of the control process at each step of taking a machine in: the next one goes on where the last one stood."""

import pytest

from panloom.control.failpoint import VARIABLE
from panloom.lab.chassis import Chassis
from support.lab import PATIENT, LabInTest, running_lab
from support.new_machines import PAN, node_of, rule, server_of, until_booted
from support.waiting import until

pytestmark = pytest.mark.timeout(240)
PLACES = ("take in", "taken in", "note installed", "noted installed", "note booted", "noted booted")
STATES = ("new", "discovered", "installing", "installed", "booted")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("kills"), chassis=Chassis.of(nodes=2, qemu=0, blades=2)) as running:
        running.declare(liveness=PATIENT)
        running.apply(PAN + rule())
        yield running


def kinds(lab: LabInTest, kind: str):
    return lab.call(lab.lab.get("resources", kind))["rows"]


def assert_provisioned_once(lab: LabInTest, machine):
    """One node, one server on it, one disk, and a way on which each state stands once."""
    shown = until_booted(lab, machine, seconds=60)
    server = server_of(machine)
    assert [row["name"] for row in kinds(lab, "node") if row["mac"] == machine.mac] == [node_of(machine)]
    assert [row["node"] for row in kinds(lab, "server") if row["name"] == server] == [node_of(machine)]
    assert [row["state"] for row in kinds(lab, "volume") if row["name"] == server] == ["ready"]
    assert tuple(state for state, _ in shown["provisioning"]) == STATES
    assert lab.server(server)["epoch"] == 1


def test_a_machine_is_taken_in_once_though_the_control_process_dies_at_each_step(lab):
    machine = lab.lab.chassis.machines[0]
    for place in PLACES:
        lab.call(lab.lab.kill("control"))
        lab.call(lab.lab.start_control(**{VARIABLE: place}))
        lab.power(machine.name, "on")
        assert lab.call(lab.lab.ended("control")) == -9, place
    lab.call(lab.lab.kill("control"))
    lab.call(lab.lab.start_control())
    assert_provisioned_once(lab, machine)


def test_a_storage_process_that_dies_before_the_disk_is_made_holds_it_up_and_no_more(lab):
    machine = lab.lab.chassis.machines[1]
    lab.call(lab.lab.kill("storage"))
    lab.power(machine.name, "on")
    until(lambda: node_of(machine) in {row["name"] for row in kinds(lab, "node")}, "it is taken in")
    assert lab.node(node_of(machine))["state"] == "installing"
    lab.call(lab.lab.start_storage())
    assert_provisioned_once(lab, machine)
