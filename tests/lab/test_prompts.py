"""A machine's console asks what it becomes: nobody answers in time, or somebody elsewhere does."""

import pytest

from panloom.errors import ConfigErrors
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import make_blank_image
from support.lab import running_lab
from support.new_machines import PAN, donor, node_of, rule, server_of, until_booted, until_discovered
from support.waiting import until

pytestmark = pytest.mark.timeout(180)


def prompting(seconds, name="web", **more):
    return rule(name, approve="prompt", more=f"prompt: {{timeout: {seconds}s}}", **more)


def images(lab):
    """Return server → the image that its disk is a clone of."""
    return {row["name"]: row["image"] for row in lab.call(lab.lab.get("resources", "server"))["rows"]}


def test_cap_065_a_menu_of_donor_images_a_choice_by_time_out_by_the_api_or_by_rules_alone(tmp_path):
    blank = tmp_path / "db.img"
    make_blank_image(blank)
    with running_lab(tmp_path, chassis=Chassis.of(nodes=3, qemu=0, blades=3)) as lab:
        late, asked, other = lab.lab.chassis.machines
        lab.apply(PAN + donor("db", blank) + prompting(1, match=f"{{mac: {late.mac}}}"))
        lab.apply(prompting(3600, "long", match=f"{{mac: {asked.mac}}}") + rule("any"))
        for machine in (late, asked, other):
            lab.power(machine.name, "on")
        until(lambda: "2 db@1" in lab.console(asked.name), "its console shows the menu")
        shown = lab.console(asked.name)
        at = shown.index("Panloom: this machine becomes a server of shop, its disk a clone of")
        assert shown[at + 1 : at + 4] == ["1 web@1", "2 db@1", "0 no server: a spare"]
        assert "its console asks" in until_discovered(lab, asked)["why"]
        with pytest.raises(ConfigErrors, match=r"image dp: there is none of that name; there are db, db@1, web"):
            lab.call(lab.lab.post("nodes", asked.mac, "approve", body={"image": "dp"}))
        made = lab.call(lab.lab.post("nodes", asked.mac, "approve", body={"image": "db"}))
        assert made["server"] == server_of(asked, "long")
        until_booted(lab, late)
        until_booted(lab, other)
        assert images(lab) == {
            server_of(late): "web@1",
            server_of(asked, "long"): "db@1",
            server_of(other, "any"): "web@1",
        }
        assert not [line for line in lab.console(other.name) if "this machine becomes" in line]
        lab.power(asked.name, "reset")  # nobody sits at its menu any more
        until_booted(lab, asked)
        assert lab.node(node_of(asked))["rule"] == "long"
