"""A machine that boots by IPv6 alone: script, disk and personality come from there, and its server comes up."""

import pytest

from panloom.lab.chassis import DISCOVERY, STORAGE
from support.lab import ONE, running_lab
from support.loss import losing

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
OURS, NODE = "2001:db8:77::a4d:1", "2001:db8:77::a4d:b"


def test_a_server_comes_up_on_a_machine_that_is_reached_by_ipv6_alone(tmp_path):
    with running_lab(tmp_path, nodes=1, start=False) as lab:
        lab.lab.directory.mkdir(exist_ok=True)
        lab.call(lab.lab.start_supervisor())
        lab.inside.ip(f"address add {OURS}/64 dev lab0 nodad")
        lab.call(lab.lab.start_storage(f"[{OURS}]:3260"))
        lab.call(lab.lab.start_control())
        lab.call(lab.lab.declare(lab.image))
        subnet = {"address": str(STORAGE.ip), "subnet": str(STORAGE.network), "discovery": DISCOVERY}
        lab.declare(storage={"interface": "lab0", "prefix": "2001:db8:77::/64", **subnet})
        with losing(lab.inside, percent=100):  # of IPv4
            lab.apply(ONE)
            assert lab.until_up("shop/web1", seconds=120)["node"] == "n1"
        page = lab.until_answers("shop/web1")
        assert (page["node"], page["boots"]) == ("n1", "1")
        said = (lab.lab.directory / "storage.log").read_text()
        logins = [line for line in said.splitlines() if "event=login" in line]
        assert any("personality" in line for line in logins)
        assert all(f"[{NODE}]" in line for line in logins)
