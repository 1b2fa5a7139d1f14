"""A bare machine with a real firmware and a real kernel, which nobody named, becomes a server from a donor's image."""

import pytest

from panloom.decide.records import target_of
from panloom.lab.chassis import Chassis
from panloom.lab.inventory import make_inventory
from support.lab import PACKAGES, image, running_lab
from support.new_machines import PAN, node_of, rule, server_of, until_booted, until_discovered
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


def test_a_bare_machine_that_nobody_named_looks_at_what_it_has_by_a_small_linux(tmp_path):
    with running_lab(tmp_path, chassis=Chassis.of(nodes=1, blades=1), start=False) as lab:
        files = lab.lab.directory / "files"
        files.mkdir()
        make_inventory(PACKAGES, files)
        lab.call(lab.lab.start_supervisor())
        lab.call(lab.lab.start_storage())
        lab.call(lab.lab.start_control())
        lab.call(lab.lab.declare(lab.image))
        (machine,) = lab.lab.chassis.machines
        lab.power(machine.name, "on")

        def looked():
            rows = lab.call(lab.lab.get("resources", "node"))["rows"]
            return next((row for row in rows if row["mac"] == machine.mac and row["links"]), None)

        row = until(looked, "the inventory has told what it found", seconds=90)
        assert (row["state"], row["nics"], row["links"]) == ("discovered", [machine.mac], [machine.mac])
        assert (row["vendor"], row["uuid"], row["cores"]) == ("QEMU", str(machine.uuid), 1)
        assert row["processor"]
        assert row["disks"] == []
        again = len(lab.console(machine.name))
        until(lambda: "waits to be approved" in "\n".join(lab.console(machine.name)[again:]), "it waits", seconds=60)


def test_cap_070_a_bare_machine_with_the_rom_of_a_plain_nic_boots_from_a_disk_of_its_own(tmp_path):
    with running_lab(tmp_path, chassis=Chassis.of(nodes=1, blades=1), start=False) as lab:
        lab.call(lab.lab.start(image(writer=False)))
        (machine,) = lab.lab.chassis.machines
        lab.power(machine.name, "on")
        row = until_discovered(lab, machine, seconds=60)
        assert (row["vendor"], row["architecture"], row["firmware"], row["cores"]) == ("QEMU", "x86-64", "bios", 1)
        assert row["memory_octets"] == machine.memory_octets
        assert (row["nic"], row["uuid"], row["product"][:11]) == ("virtio-net", str(machine.uuid), "Standard PC")
        lab.apply(PAN + rule(match='{memory: ">= 128MiB", vendor: QEMU}'))
        until_booted(lab, machine, seconds=120)
        server = server_of(machine)
        assert lab.until_up(server)["node"] == node_of(machine)
        assert set(lab.call(lab.lab.sessions_of(node_of(machine)))) >= {str(target_of(server))}
