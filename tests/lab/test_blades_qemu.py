"""A bare machine with a real firmware and a real kernel, which nobody named, becomes a server from a donor's image."""

import pytest

from panloom.decide.records import target_of
from panloom.lab.chassis import Chassis
from support.lab import image, running_lab
from support.new_machines import PAN, node_of, rule, server_of, until_booted, until_discovered

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


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
