"""`panloom lab` with a machine of QEMU's."""

import pytest

from support.lab_commands import LabCommands
from support.traces import kill_marked
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]


@pytest.fixture
def lab(tmp_path):
    yield LabCommands(tmp_path / "lab")
    kill_marked()


def test_machines_of_qemu_come_first_and_boot_beside_the_others(lab):
    lab.run("lab", "up", "--nodes", "2", "--qemu", "1")
    assert [row["kind"] for row in lab.nodes().values()] == ["QEMU", "emulated"]
    assert lab.run("node", "power", "on", "n[1-2]")[0] == "n1: power on\nn2: power on\n"
    until(lambda: {row["stage"] for row in lab.nodes().values()} == {"dhcp"}, "both ask to boot", seconds=40)
    lab.run("lab", "down")
    lab.assert_gone()
