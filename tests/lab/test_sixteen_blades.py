"""Sixteen machines that nobody named, switched on together: each becomes a server of its own, by rules alone."""

import hashlib

import msgspec
import pytest

from panloom.decide.records import BASE_IQN, initiator_of, personality_target_of, target_of
from panloom.initiator import Session
from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import faults
from panloom.protocol.iscsi_initiator_login import LoginRefusedError
from panloom.values import Iqn
from support.lab import PATIENT, running_lab
from support.new_machines import PAN, access_of_all, node_of, rule, server_of, until_booted
from support.waiting import until

pytestmark = pytest.mark.timeout(240)
PORTAL = ("10.77.0.1", 3260)
ODD = "iqn.1991-05.com.example.maker:shelf.7_slot.3"
COUNT, LARGE_OCTETS = 16, 1 << 30


def chassis():
    """The first is set to a name of its own, the second to the same, the third is larger; all write on their disks."""
    made = Chassis.of(nodes=COUNT, qemu=0, blades=COUNT, load_seconds=0.2)
    first, second, third, *others = made.machines
    odd = [msgspec.structs.replace(machine, initiator=ODD) for machine in (first, second)]
    return msgspec.structs.replace(
        made, machines=(*odd, msgspec.structs.replace(third, memory_octets=LARGE_OCTETS), *others)
    )


def rule_of(machine):
    return "large" if machine.memory_octets == LARGE_OCTETS else "web"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab in which all sixteen have booted."""
    with running_lab(tmp_path_factory.mktemp("sixteen"), chassis=chassis()) as running:
        running.declare(liveness=PATIENT)
        running.apply(PAN + rule() + rule("large", '{memory: ">= 512MiB"}'))
        for machine in running.lab.chassis.machines:
            running.power(machine.name, "on")
        for machine in running.lab.chassis.machines:
            until_booted(running, machine, seconds=90)
        yield running


def test_cap_075_sixteen_machines_become_sixteen_servers_at_the_same_time(lab):
    machines = lab.lab.chassis.machines
    nodes = {row["name"]: row for row in lab.call(lab.lab.get("resources", "node"))["rows"]}
    assert set(nodes) == {node_of(machine) for machine in machines}
    assert len({row["address"] for row in nodes.values()}) == COUNT
    for machine in machines:
        server = server_of(machine, rule_of(machine))
        assert nodes[node_of(machine)]["server"] == server
        targets = {str(target_of(server)), str(personality_target_of(server))}
        assert set(lab.call(lab.lab.sessions_by(access_of_all(lab)[min(targets)].initiator))) == targets
    volumes = {row["name"] for row in lab.call(lab.lab.get("resources", "volume"))["rows"]}
    assert volumes == {server_of(machine, rule_of(machine)) for machine in machines}


def test_cap_072_names_are_the_machines_own_or_made_and_nobody_types_any(lab):
    access = access_of_all(lab)
    held = [access[str(target_of(server_of(machine, rule_of(machine))))] for machine in lab.lab.chassis.machines]
    names = [each.initiator for each in held]
    assert ODD in names[:2]
    assert names.count(ODD) == 1  # it is no name of the second one's: two machines never pass for one another
    made = [str(initiator_of(node_of(machine))) for machine in lab.lab.chassis.machines]
    assert [name for name in names if name != ODD] == [
        one for one, name in zip(made, names, strict=True) if name != ODD
    ]
    for name in (*names, *access):
        assert str(Iqn.parse(name)) == name
    assert len({*names, *access}) == len(names) + len(access)
    assert all(target.startswith(f"{BASE_IQN}:shop.") for target in access)


def test_cap_071_a_machines_disk_is_its_own_and_nobody_elses(lab):
    access = access_of_all(lab)
    first, second = (str(target_of(server_of(machine))) for machine in lab.lab.chassis.machines[-2:])
    strangers = ("iqn.2026-11.example:stranger", access[second].initiator, access[first].initiator)
    refused = lab.last_event()
    for name in strangers:  # the last one has the name, the user and the secret, and not the machine's address
        with pytest.raises(LoginRefusedError) as refusal:
            lab.call(
                Session.open(
                    PORTAL,
                    initiator=Iqn.parse(name),
                    target=Iqn.parse(first),
                    user=access[first].user,
                    secret=access[first].secret,
                )
            )
        assert refusal.value.status == (2, 2), name  # RFC 7143 section 11.13.5: not allowed to use the target
    lab.until_event("login refused", after=refused)
    assert len({each.initiator for each in access.values()}) == COUNT
    assert len({each.address for each in access.values()}) == COUNT


def test_cap_077_what_one_machine_writes_changes_neither_its_donor_nor_the_others(lab):
    servers = [server_of(machine, rule_of(machine)) for machine in lab.lab.chassis.machines]
    for server in servers:
        until(lambda server=server: len(lab.marks(server)) > 3, f"{server} has written")
    for server in servers:
        assert faults(lab.marks(server), server) == ()
    (image,) = lab.call(lab.lab.get("resources", "image"))["rows"]
    (donor,) = (lab.lab.directory / "volumes" / "images").glob("web@1.*")
    assert hashlib.sha256(donor.read_bytes()).hexdigest() == image["sha256"]


def test_a_rule_that_asks_for_more_gets_the_machine_that_has_it(lab):
    large = lab.lab.chassis.machines[2]
    shown = lab.node(node_of(large))
    assert (shown["rule"], shown["server"], shown["memory_octets"]) == (
        "large",
        server_of(large, "large"),
        LARGE_OCTETS,
    )
    rules = {row["rule"]: row for row in lab.call(lab.lab.get("resources", "rule"))["rows"]}
    assert rules["large"]["nodes"] == [node_of(large)]
    assert len(rules["web"]["nodes"]) == COUNT - 1
