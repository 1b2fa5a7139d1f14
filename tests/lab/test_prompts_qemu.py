"""A real iPXE shows the menu of donor images on its serial line and is told there, by keys, which to take."""

import pytest

from panloom.lab.chassis import Chassis
from support.lab import image, running_lab
from support.new_machines import PAN, donor, rule, server_of, until_booted
from support.serial_line import SerialLine

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


def test_cap_065_a_bare_machines_console_shows_a_menu_of_donor_images_and_a_key_chooses(tmp_path):
    golden = image(writer=False)
    with running_lab(tmp_path, chassis=Chassis.of(nodes=1, blades=1), start=False) as lab:
        lab.call(lab.lab.start(golden))
        (machine,) = lab.lab.chassis.machines
        lab.apply(PAN + donor("db", golden) + rule(approve="prompt", more="prompt: {timeout: 1h}"))
        with SerialLine(lab, machine.name) as line:
            lab.power(machine.name, "on")
            line.until(b"this machine becomes a server of shop")
            line.until(b"web@1")
            line.until(b"db@1")
            line.type(b"2")
            line.until(b"db is chosen")
            until_booted(lab, machine, seconds=120)
        assert lab.server(server_of(machine))["image"] == "db@1"
