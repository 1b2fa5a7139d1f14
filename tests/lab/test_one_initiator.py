"""One initiator from firmware to power-off, or two with a hand-over, as the target's log tells."""

import re

import msgspec
import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import faults
from support.lab import PATIENT, pan, running_lab
from support.waiting import until

pytestmark = pytest.mark.timeout(120)
WRITES = 50


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A machine of either kind, in a process of its own or not, that writes on its disk, and was switched off."""
    chassis = Chassis.of(nodes=3, qemu=0, load_seconds=0.01)
    one, lone, two = chassis.machines
    machines = (
        msgspec.structs.replace(one, initiators=1),
        msgspec.structs.replace(lone, initiators=1, kind="lone"),
        two,
    )
    chassis = msgspec.structs.replace(chassis, machines=machines)
    with running_lab(tmp_path_factory.mktemp("initiators"), chassis=chassis) as running:
        running.declare(liveness=PATIENT)
        running.apply(pan(servers="web[1-3]", address="10.1.0.1[1-3]", more="failover: no"))
        for number in (1, 2, 3):
            running.until_answers(f"shop/web{number}")
            until(lambda number=number: max(running.marks(f"shop/web{number}"), default=0) > WRITES, "it writes")
        running.call(running.lab.kill("control"))  # nobody switches them on again
        for number in (1, 2, 3):
            running.power(f"n{number}", "off")
        yield running


def logins(lab, server):
    """Return the sessions of a server's disk, each login that there was."""
    log = (lab.lab.directory / "storage.log").read_text()
    return re.findall(rf"event=login session=(\S+) .*target=\S*:{server} ", log)


@pytest.mark.parametrize("server", ["shop.web1", "shop.web2"])
def test_cap_206_one_initiator_has_one_session_from_the_first_read_to_power_off(lab, server):
    assert len(logins(lab, server)) == 1
    marks = lab.marks(server)
    assert max(marks) > WRITES
    assert faults(marks, server.replace(".", "/")) == ()


def test_cap_206_two_initiators_have_a_session_each(lab):
    firmware, system = logins(lab, "shop.web3")
    assert firmware != system
    assert faults(lab.marks("shop.web3"), "shop/web3") == ()
