"""Machines that nobody named: seen, taken in by a rule or a person, they boot from disks of their own."""

import pytest

from panloom.decide.records import target_of
from panloom.lab.chassis import Chassis
from support.lab import running_lab
from support.new_machines import PAN, node_of, rule, server_of, until_booted, until_discovered

pytestmark = pytest.mark.timeout(180)


def chassis(blades, **more):
    return Chassis.of(nodes=blades, qemu=0, blades=blades, **more)


def test_cap_064_066_069_a_machine_that_nobody_named_is_seen_matched_and_boots_from_a_disk_of_its_own(tmp_path):
    with running_lab(tmp_path, chassis=chassis(1)) as lab:
        (machine,) = lab.lab.chassis.machines
        lab.power(machine.name, "on")
        row = until_discovered(lab, machine)
        assert (row["state"], row["node"], row["vendor"], row["product"]) == (
            *("discovered", None),
            *("Panloom", "emulated machine"),
        )
        assert (row["architecture"], row["firmware"], row["cores"], row["nic"]) == ("x86-64", "bios", 1, "veth")
        assert (row["processor"], row["memory_octets"]) == ("emulated processor", machine.memory_octets)
        assert lab.call(lab.lab.get("resources", "server"))["rows"] == []  # nothing happens before somebody says so
        lab.apply(PAN + rule(match='{memory: ">= 128MiB", vendor: "pan*"}'))
        server = server_of(machine)
        lab.until_event("approved", node=node_of(machine))
        assert lab.until_up(server)["node"] == node_of(machine)
        shown = until_booted(lab, machine)
        assert (shown["state"], shown["rule"], shown["uuid"]) == ("in use", "web", row["uuid"])
        states = [state for state, _ in shown["provisioning"]]
        assert states == ["new", "discovered", "installing", "installed", "booted"]
        assert str(target_of(server)) in lab.call(lab.lab.sessions_of(node_of(machine)))
        assert lab.events("volume", server=server)
