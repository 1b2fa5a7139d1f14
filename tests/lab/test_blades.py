"""Machines that nobody named: seen, taken in by a rule or a person, they boot from disks of their own."""

import re
from contextlib import ExitStack

import pytest

from panloom.decide.records import initiator_of, personality_target_of, target_of
from panloom.errors import ConfigErrors
from panloom.initiator import discover
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import BOOTS_OFFSET, Mark, make_blank_image
from support.lab import PATIENT, Sniffer, running_lab
from support.new_machines import PAN, access_of_all, node_of, rule, server_of, until_booted, until_discovered
from support.traced import Traced
from support.waiting import until

pytestmark = pytest.mark.timeout(180)
SECOND_HTTP_PORT = 8081
SEEN_SECONDS = 1.0  # from its first request to its row, most of which is the look whether its address is free


def chassis(blades, **more):
    return Chassis.of(nodes=blades, qemu=0, blades=blades, **more)


def is_dhcp_request(frame, mac):
    return frame[6:12] == bytes.fromhex(mac.replace(":", "")) and frame[12:14] == b"\x08\x00" and frame[36:38] == b"\0C"


def leased(lab, server):
    """Return the address that DHCP lent to a server."""
    return lab.events("dhcp", server=server)[-1]["text"].rpartition(" ")[2]


def fetched_from(lab, machine):
    """Return the ports from which a machine's firmware was told to fetch its script."""
    return set(re.findall(r"http://10\.77\.0\.1:(\d+)/boot", "\n".join(lab.console(machine.name))))


def shown_to(lab, node, address):
    """Return the targets that SendTargets shows a machine, asked in its place."""
    (access, *_) = (each for each in access_of_all(lab).values() if each.initiator == str(initiator_of(node)))
    lab.inside.ip(f"address add {address}/32 dev lo")
    found = lab.call(
        discover(
            ("10.77.0.1", 3260),
            initiator=initiator_of(node),
            user=access.user,
            secret=access.secret,
            local_address=address,
        )
    )
    return {str(target.name) for target in found}


def boots(lab, server):
    """Return how often a server says that its disk was booted, 0 while it says nothing."""
    page = lab.page(leased(lab, server))
    return int(page["boots"]) if page else 0


def test_cap_064_066_069_a_machine_that_nobody_named_is_seen_matched_and_boots_from_a_disk_of_its_own(tmp_path):
    with running_lab(tmp_path, chassis=chassis(1)) as lab:
        (machine,) = lab.lab.chassis.machines
        requests = Sniffer(lab.inside, lab.lab.chassis.bridge, lambda frame, _: is_dhcp_request(frame, machine.mac))
        lab.power(machine.name, "on")
        row = until_discovered(lab, machine)
        asked_at, _ = requests.close()[0]
        (told,) = lab.events("discovered")
        assert 0 < told["monotonic"] - asked_at < SEEN_SECONDS
        known = told["data"]["known"]  # by its request alone; the rest it says itself, from its firmware's script
        assert known == {name: row[name] for name in ("architecture", "firmware", "uuid")}
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
        before = lab.logins()
        lab.power(machine.name, "reset")
        until(lambda: boots(lab, server) >= 2, "it has booted once more, from the disk that it wrote to")
        initiator = str(initiator_of(node_of(machine)))
        again = [target for target, by in lab.logins()[len(before) :] if by == initiator]
        assert again[0] == str(target_of(server))
        assert set(again) == {str(target_of(server)), str(personality_target_of(server))}
        assert lab.server(server)["node"] == node_of(machine)


def test_cap_074_076_a_person_chooses_and_what_is_chosen_later_is_another_donor(tmp_path):
    """Machines without an enclosure, known by their MACs alone; the rule's donor changes between two of them."""
    with running_lab(tmp_path, chassis=chassis(3)) as lab:
        first, second, third = lab.lab.chassis.machines
        lab.apply(PAN + rule(match="{mac: 52:54:00:77:00:*}", approve="manual"))
        for machine in (first, second, third):
            lab.power(machine.name, "on")
        for machine in (first, second, third):
            assert until_discovered(lab, machine)["rule"] == "web"  # it fits, and a person must say so
        with pytest.raises(ConfigErrors, match="rule wep: there is none of that name; did you mean `web`"):
            lab.call(lab.lab.post("nodes", first.mac, "approve", body={"rule": "wep"}))
        made = lab.call(lab.lab.post("nodes", first.mac, "approve"))
        assert (made["node"], made["state"], made["server"]) == (node_of(first), "installing", server_of(first))
        spare = lab.call(lab.lab.post("nodes", second.mac, "approve", body={"rule": ""}))
        assert (spare["state"], spare["server"]) == ("spare", None)
        until_booted(lab, first)
        donor = tmp_path / "donor.img"
        make_blank_image(donor)
        with donor.open("r+b") as file:
            file.seek(BOOTS_OFFSET)
            file.write(Mark("shop/donor", 1, 41).encode())  # a donor that has booted 41 times
        golden = f"apiVersion: panloom/v1\nkind: Image\nname: donor\nsource: {donor}\n"
        lab.apply(golden + rule(image="donor", approve="manual"))
        lab.declare(storage={"http_port": SECOND_HTTP_PORT})
        lab.call(lab.lab.kill("control"))
        lab.call(lab.lab.start_control())
        until_discovered(lab, third)
        lab.call(lab.lab.post("nodes", third.mac, "approve"))
        until_booted(lab, third)
        rows = {row["name"]: row for row in lab.call(lab.lab.get("resources", "server"))["rows"]}
        assert {name: row["image"] for name, row in rows.items()} == {
            server_of(first): "web@1",
            server_of(third): "donor@1",
        }
        assert {name: lab.page(leased(lab, name))["boots"] for name in rows} == {
            server_of(first): "1",
            server_of(third): "42",
        }
        targets = {str(target(name)) for name in rows for target in (target_of, personality_target_of)}
        assert set(lab.call(lab.lab.get("resources", "platform", "lab"))["targets"]) == targets
        assert fetched_from(lab, first) == {"8080"}
        assert str(SECOND_HTTP_PORT) in fetched_from(lab, third)
        nodes = {row["name"]: row for row in lab.call(lab.lab.get("resources", "node"))["rows"]}
        assert (nodes[node_of(second)]["state"], nodes[node_of(second)]["server"]) == ("spare", None)
        lab.call(lab.lab.kill("control"))  # which would not take a third party for the machine
        shown = [shown_to(lab, node_of(machine), nodes[node_of(machine)]["address"]) for machine in (first, third)]
        assert shown == [
            {str(target(server_of(machine))) for target in (target_of, personality_target_of)}
            for machine in (first, third)
        ]
        assert set().union(*shown) == targets


def test_cap_217_no_other_program_takes_part_in_making_a_disk_and_admitting_a_machine(tmp_path):
    """None is begun, by its name or its path, by either process or a child of theirs; and none is missed."""
    with running_lab(tmp_path, chassis=chassis(1), start=False) as lab, ExitStack() as tracing:
        (machine,) = lab.lab.chassis.machines
        lab.call(lab.lab.start_supervisor())
        lab.call(lab.lab.start_storage(PATH="/nonexistent"))
        lab.call(lab.lab.start_control(PATH="/nonexistent"))
        processes = []
        for name in ("storage", "control"):
            (tmp_path / f"traced-{name}").mkdir()
            traced = Traced(lab.lab.pid(name), tmp_path / f"traced-{name}", only="execve,execveat")
            processes.append(tracing.enter_context(traced))
        lab.call(lab.lab.declare(lab.image))
        lab.declare(liveness=PATIENT)
        lab.apply(PAN + rule())
        lab.power(machine.name, "on")
        until_booted(lab, machine)
        assert until(lambda: lab.page(leased(lab, server_of(machine))), "it answers")["boots"] == "1"
        tracing.close()
        assert [traced.calls for traced in processes] == [{}, {}]
