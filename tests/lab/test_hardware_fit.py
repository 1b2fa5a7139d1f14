"""Spares are chosen by what they have, which they say themselves; a plan tells before where none would fit."""

import pytest

from panloom.lab.chassis import Chassis
from support.lab import pan, running_lab
from support.waiting import until

pytestmark = pytest.mark.timeout(120)


def asking(cores):
    return pan(servers="web1", address="10.1.0.11", more=f"needs: {{cores: {cores}}}")


def test_what_a_spare_said_of_itself_decides_and_is_known_while_it_is_off_and_after_a_restart(tmp_path):
    with running_lab(tmp_path, chassis=Chassis.of(nodes=1, qemu=0)) as lab:
        lab.power("n1", "on")
        until(lambda: lab.node("n1").get("cores"), "the spare has said what it is")
        lab.power("n1", "off")
        until(lambda: lab.node("n1")["power"] == "off", "it is off")
        lab.call(lab.lab.kill("control"))
        lab.call(lab.lab.start_control())
        shown = until(lambda: lab.node("n1"), "it is known again")
        assert (shown["cores"], shown["architecture"], len(shown["nics"])) == (1, "x86-64", 1)
        until(lambda: lab.node("n1")["state"] == "spare", "its power supervisor answers")
        body = {"files": [{"name": "web.yaml", "text": asking(4)}]}
        planned = lab.call(lab.lab.post("plan", body=body))
        (booting,) = [change for change in planned["changes"] if change["kind"] == "server"]
        assert booting["note"] == "waits: no spare: n1 has 1 core, and 4 are needed"
        assert planned["warnings"] == ["no spare for shop/web1: n1 has 1 core, and 4 are needed"]
        lab.apply(asking(4))
        until(lambda: "has 1 core" in (lab.server("shop/web1")["why"] or ""), "it says why it waits")
        applied = lab.apply(asking(1))
        assert applied["warnings"] == ["no spare for shop/web1: no machine is free"]
        lab.until_up("shop/web1")
