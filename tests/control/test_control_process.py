"""The whole life of servers with the real processes, over a real bridge, on played machines."""

import json
import shutil
import signal

import pytest

from panloom.decide.records import STEPS, Step
from panloom.errors import ConfigErrors, ConflictError, UnavailableError
from panloom.storage.client import StorageClient
from support.control_node import control_node, pan, run_panloom
from support.dhcp_wire import DhcpWire
from support.waiting import until

ONE = pan("shop", "web1")
PLACES = [step.value for step in STEPS] + ["finish"]


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=2) as made:
        yield made


def machine_of(control, server):
    return control[control.server(server)["node"]]


def fences(control, since=0):
    """Return the servers whose nodes were fenced."""
    return [event["server"] for event in control.events("fence", after=since)]


def test_from_a_document_to_a_server_that_is_up(control):
    control.start()
    control.apply(ONE)
    row = control.until_up("shop/web1")
    machine = control[row["node"]]
    assert (row["epoch"], row["mac"], machine.personality["NIC0_MAC"]) == (1, ["02:50:4c:00:00:01"], row["mac"][0])
    boot = dict(control.node(row["node"])["boot"]["stages"])
    assert list(boot) == ["power", "dhcp", "script", "login", "first read", "kernel"]
    machine.beacons = True
    control.until_event("boot", node=row["node"], text="userland")
    assert control.numbers_have_no_gap()
    assert machine.script.split("password ")[1].split()[0] not in control.log() + control.log("storage")
    assert control.apply(ONE)["revision"] == 0
    # A second server finds the pool known and free: its disk is made before it is placed.
    control.apply(pan("mail", "mx1"))
    assert control.until_up("mail/mx1")["node"] != row["node"]


def test_cap_106_192_a_dead_machine_s_server_moves_and_keeps_its_mac(control):
    control.start()
    control.apply(ONE)
    before = control.until_up("shop/web1")
    victim = control[before["node"]]
    victim.writes = True
    until(lambda: session_of(control, victim).writes > 3, "it writes")
    old_login = victim.script
    victim.kill()
    after = control.until_up("shop/web1", not_on={victim.name})
    assert (after["epoch"], after["mac"], after["moves"]) == (2, before["mac"], 1)
    assert " s after it began to move" in control.until_event("up", node=after["node"])["text"]
    assert control[after["node"]].personality["NIC0_MAC"] == before["mac"][0]
    # Switched on again, it is told to wait; and what it was once told opens nothing.
    victim.act("on")
    control.until_event("waiting", node=victim.name)
    assert control.node(victim.name)["state"] == "spare"
    assert "password" not in victim.script
    assert_is_refused(victim, old_login)


def session_of(control, machine):
    """Return the session to the disk that a machine runs from."""
    return next(s for s in control.sessions_of(machine.name) if not s.target.endswith(".personality"))


def lasts(control, machine):
    """Return for how many seconds a machine's session has been heard."""
    session = session_of(control, machine)
    return session.last_heard_at - session.login_at


def assert_is_refused(machine, script):
    before = len(machine.refusals)
    words = script.split()
    target = next(word for word in words if word.startswith("iscsi:")).split(":", 5)[-1]
    user, password = words[words.index("username") + 1], words[words.index("password") + 1]
    assert machine.log_in(target, "10.77.0.1:3260", user, password) is None
    assert len(machine.refusals) == before + 1


def test_a_silent_machine_is_fenced_though_its_power_switch_is_broken(control):
    control.start()
    control.apply(ONE)
    victim = control[control.until_up("shop/web1")["node"]]
    victim.switch_is_broken = victim.is_silent = True
    after = control.until_up("shop/web1", not_on={victim.name}, seconds=30)
    assert after["epoch"] == 2
    assert control.events("power off failed", node=victim.name)
    assert control.events("fence")[0]["data"]["cause"] == "nothing heard for 1 s"
    steps = [event["text"] for event in control.events("fenced")]
    assert steps == [step.value for step in STEPS[1:]]
    # When it goes on, its kernel logs in again and again.
    victim.is_silent = False
    until(lambda: victim.refusals, "the old machine is refused")
    assert control.node(victim.name)["state"] == "fenced"
    # Nobody has seen it off: it is no spare until it begins afresh.
    victim.switch_is_broken = False
    assert run_panloom(control, "node", "power", "reset", victim.name)[0] == 0
    until(lambda: control.node(victim.name)["state"] == "spare", "it has begun afresh")


@pytest.fixture(scope="module")
def durable(tmp_path_factory):
    """One control node with three machines for all places where the control process is killed."""
    with control_node(tmp_path_factory.mktemp("durable"), nodes=2) as control:
        control.start()
        control.apply(ONE)
        control.until_up("shop/web1")
        yield control


@pytest.mark.parametrize("place", PLACES)
def test_a_control_process_killed_at_any_step_of_a_fail_over_completes_it(durable, place):
    control = durable
    row = control.until_up("shop/web1")
    control.kill("control")
    control.start_control(PANLOOM_FAILPOINT=place)
    victim, since = control[row["node"]], control.last()
    old_login = victim.script
    victim.kill()
    control.died_by_itself("control")
    control.start_control()
    after = control.until_up("shop/web1", not_on={victim.name}, epoch=row["epoch"] + 1)
    assert after["moves"] == row["moves"] + 1
    assert len(control.events("fence complete", after=since)) <= 1
    victim.act("on")
    until(lambda: victim.stage == "waiting", "the old machine is told to wait")
    assert_is_refused(victim, old_login)
    assert control.numbers_rise()


def test_a_fence_that_storage_has_confirmed_is_completed_without_it(control):
    control.start()
    control.apply(ONE)
    victim = control[control.until_up("shop/web1")["node"]]
    control.kill("control")
    control.start_control(PANLOOM_FAILPOINT=Step.FILTER_PORT.value)
    since = control.last()
    victim.kill()
    control.died_by_itself("control")
    control.kill("storage")
    control.start_control()
    control.until_event("fence complete", after=since)
    assert [event["text"] for event in control.events("fenced")] == [step.value for step in STEPS[1:]]
    control.start_storage()
    control.until_up("shop/web1", not_on={victim.name}, epoch=2)


def test_a_storage_process_killed_and_restarted_costs_nobody_a_node(control):
    control.start()
    control.apply(pan("shop", "web[1-2]"))
    for name in ("shop/web1", "shop/web2"):
        control.until_up(name)
    since = control.last()
    control.kill("storage")
    control.until_event("storage lost", after=since)
    until(lambda: all(machine.stage == "lost" for machine in control.supply.machines.values()), "both lost their disks")
    control.start_storage()
    control.until_event("storage back", after=since)
    for name in ("shop/web1", "shop/web2"):
        control.until_up(name)
        until(lambda name=name: control.server(name)["why"] is None, "nothing holds it up any more")
    # Both were silent for as long as it was away; a death that is no silence is seen as ever.
    victim = machine_of(control, "shop/web1")
    victim.kill()
    control.until_event("fence complete", after=since)
    assert fences(control, since) == ["shop/web1"]


def test_a_control_process_that_was_stopped_accuses_nobody(control):
    control.start()
    control.apply(pan("shop", "web[1-2]"))
    for name in ("shop/web1", "shop/web2"):
        machine = control[control.until_up(name)["node"]]
        machine.beacons = True
    since = control.last()
    control.signal("control", signal.SIGSTOP)
    sessions = {machine.name: session_of(control, machine) for machine in control.supply.machines.values()}
    until(
        lambda: all(session_of(control, control[n]).last_heard_at > s.last_heard_at + 6 for n, s in sessions.items()),
        "the machines have gone on for 6 s", seconds=30,
    )  # fmt: skip
    control.signal("control", signal.SIGCONT)
    assert "we were late ourselves" in control.until_event("held", after=since)["text"]
    machine_of(control, "shop/web2").kill()
    control.until_event("fence complete", after=since)
    assert fences(control, since) == ["shop/web2"]


def test_cap_234_machines_that_were_on_first_boot_untouched(control):
    for machine in control.supply.machines.values():
        machine.act("on")
    for command in (("node", "power", "off", "n1"), ("failover", "shop/web1"), ("node", "approve", "n1")):
        code, said, why = run_panloom(control, *command)
        assert (code, said) == (1, "")
        assert f"no control process listens on {control.socket}; start it: panloom control" in why
    assert {machine.stage for machine in control.supply.machines.values()} == {"firmware"}
    control.start()
    control.apply(pan("shop", "web[1-2]"))
    for name in ("shop/web1", "shop/web2"):
        control.until_up(name)
    assert control.supply.calls == []
    assert [machine.boots for machine in control.supply.machines.values()] == [1, 1]


def test_a_boot_without_progress_is_tried_again_then_the_node_is_quarantined_until_released(control):
    broken = control["n1"]
    broken.is_broken = True
    control.start(boot_timeout="0.4s")
    control.apply(ONE.replace("image: web\n", "image: web\n    node: n1\n"))
    control.until_event("quarantined", node="n1", seconds=30)
    resets = control.events("reset", node="n1")
    assert [event["data"]["attempt"] for event in resets] == [1, 2, 3]
    assert control.supply.calls[:4] == [("n1", "on")] + [("n1", "reset")] * 3
    control.declare()  # with its usual patience
    control.until_up("shop/web1", not_on={"n1"}, epoch=2)
    node = control.node("n1")
    assert node["state"] == "quarantined"
    assert node["why"].endswith("after 3 resets; mend it, then: panloom node release n1")
    assert run_panloom(control, "node", "release", "n1")[0] == 0
    assert control.node("n1")["state"] == "spare"
    assert run_panloom(control, "node", "release", "n1")[0] == 1
    broken.is_broken = False
    machine_of(control, "shop/web1").kill()
    control.until_up("shop/web1", epoch=3)
    assert control.server("shop/web1")["node"] == "n1"


def test_a_boot_that_goes_round_is_reset_and_quarantined_like_one_that_stands_still(control):
    for machine in control.supply.machines.values():
        machine.finds_no_disk = True
    control.start_storage()
    control.start_control()
    platform = control.platform(boot_timeout="1.5s", max_boot_attempts=1)
    control.apply(platform.replace("}\nliveness", ", iscsi_port: 3261}\nliveness"), "lab.yaml")
    control.apply(ONE)
    told = control.until_event("held up", server="shop/web1")
    assert "listens at 10.77.0.1:3260, and machines are told 10.77.0.1:3261; " in told["text"]
    assert control.supply.calls == []
    control.apply(platform, "lab.yaml")
    until(lambda: "after script; 0 of 1 resets made" in (control.server("shop/web1")["why"] or ""), "it says why")
    told = control.until_event("quarantined")
    assert "no new stage for" in told["text"]
    assert "s after script, after 1 resets; mend it" in told["text"]
    assert [event["data"]["attempt"] for event in control.events("reset", node=told["node"])] == [1]


def test_a_changed_document_restarts_the_server_on_its_node(control):
    control.start()
    control.apply(ONE)
    before = control.until_up("shop/web1")
    control.apply(pan("shop", "web1", host=77))
    after = control.until_up("shop/web1", epoch=2)
    assert (after["node"], after["mac"], after["moves"]) == (before["node"], before["mac"], 0)
    assert control[after["node"]].personality["NIC0_ADDRESS"].endswith(".77")
    assert control.events("fence")[0]["data"]["cause"] == "its document changed"


def test_what_is_deleted_stops_keeps_its_disk_and_continues_its_epoch(control):
    control.start()
    control.apply(pan("shop", "web[1-2]"))
    row = control.until_up("shop/web2")
    control.until_up("shop/web1")
    with pytest.raises(ConflictError, match="carries shop/web"):
        control.client.delete("resources", "node", "n1")
    moved = control.platform().replace("port: port-n1\n", "port: port-n9\n")
    with pytest.raises(ConflictError, match="carries shop/web"):
        control.apply(moved, "platform.yaml")
    control.apply(ONE, prune=True)
    removed = control.until_event("removed", server="shop/web2")
    assert control[row["node"]].stage == "off"
    assert not [s for s in control.sessions_of(row["node"]) if "web2" in s.target]
    assert "shop.web2" in stored(control)
    control.apply(pan("shop", "web[1-2]"))
    again = control.until_up("shop/web2")
    assert again["epoch"] > row["epoch"]
    assert again["mac"] == row["mac"]
    control.client.delete("resources", "server", "shop/web2")
    control.until_event("removed", after=removed["number"], server="shop/web2")
    control.client.delete("resources", "volume", "shop/web2", yes="true")
    assert "shop.web2" not in stored(control)
    assert control.server("shop/web1")["epoch"] == 1
    assert run_panloom(control, "delete", "node", row["node"])[0] == 0


def stored(control):
    """Return the volumes that the storage process has, each with the epochs it was made under."""
    return {volume.name: volume for volume in control.storage(StorageClient.volumes).volumes}


@pytest.mark.parametrize("place", ["destroy data", "forget volume"])
def test_a_deletion_of_a_volume_cut_off_anywhere_is_completed_and_spares_the_next_of_its_name(control, place):
    control.start()
    control.apply(ONE)
    row = control.until_up("shop/web1")
    victim = control[row["node"]]
    victim.writes = True
    until(lambda: session_of(control, victim).writes > 3, "it writes")
    with pytest.raises(ConfigErrors, match="server shop/web1 uses it; first: panloom delete server shop/web1"):
        control.client.delete("resources", "volume", "shop/web1", yes="true")
    control.client.delete("resources", "server", "shop/web1")
    with pytest.raises(ConflictError, match=r"its server is (still )?being taken down"):
        control.client.delete("resources", "volume", "shop/web1", yes="true")
    control.until_event("removed", server="shop/web1")
    written = stored(control)["shop.web1"].allocated_octets
    control.kill("control")
    control.start_control(PANLOOM_FAILPOINT=place)
    with pytest.raises(UnavailableError):
        control.client.delete("resources", "volume", "shop/web1", yes="true")
    control.died_by_itself("control")
    # Its document is gone for good.  Wanted again before its data are gone, it waits for its own disk.
    control.kill("storage")
    control.start_control()
    control.apply(ONE)
    control.start_storage()
    control.until_event("destroyed")
    victim.writes = False
    control.until_up("shop/web1")
    assert stored(control)["shop.web1"].allocated_octets < written
    assert len(control.events("destroyed")) == 1


def test_a_lost_state_store_begins_above_the_epochs_that_the_disks_know(control):
    control.start()
    control.apply(ONE)
    first = control.until_up("shop/web1")
    control.client.post("servers", "shop/web1", "failover")
    control.until_up("shop/web1", epoch=2)
    control.kill("control")
    shutil.rmtree(control.directory / "state")
    control.start_control()
    control.declare()
    control.apply(ONE)
    after = control.until_up("shop/web1", seconds=30)
    assert after["epoch"] == 3
    assert first["mac"] == after["mac"]


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "deleted"])
def test_a_state_store_restored_from_a_copy_goes_on_above_the_epochs_that_the_disks_know(control, wanted):
    control.start()
    control.apply(ONE)
    control.until_up("shop/web1")
    control.kill("control")
    shutil.copytree(control.directory / "state", control.directory / "copy")
    control.start_control()
    for epoch in (2, 3):
        control.client.post("servers", "shop/web1", "failover")
        control.until_up("shop/web1", epoch=epoch)
    control.kill("control")
    shutil.rmtree(control.directory / "state")
    (control.directory / "copy").rename(control.directory / "state")
    control.start_control()
    if wanted:
        after = control.until_up("shop/web1", epoch=4, seconds=30)
        assert len(control.sessions_of(after["node"])) == 2
    else:
        control.client.delete("resources", "server", "shop/web1")
        control.until_event("removed", server="shop/web1")
    assert "going on above 3" in control.events("epoch")[0]["text"]


def test_an_image_that_is_missing_holds_up_nobody_else(control):
    control.start()
    control.apply(ONE)
    victim = control[control.until_up("shop/web1")["node"]]
    control.image.unlink()  # it is in the store; nobody needs the file any more
    control.kill("control")
    control.start_control()
    text = "apiVersion: panloom/v1\nkind: Image\nname: db\nsource: /nowhere/db.img\n"
    control.apply(text, "image.yaml")
    control.apply(pan("data", "db1").replace("image: web", "image: db"), "data.yaml")
    why = control.until_event("held up", after=0)["text"]
    assert "/nowhere/db.img" in why
    victim.kill()
    control.until_up("shop/web1", not_on={victim.name})
    assert control.server("data/db1")["state"] == "waiting"


def test_cap_190_a_personality_is_a_record_of_macs_addresses_and_disks(control):
    control.start()
    control.apply(ONE)
    row = control.until_up("shop/web1")
    code, said, _ = run_panloom(control, "personality", "export", "shop/web1")
    assert code == 0
    told = json.loads(said)
    machine = control[row["node"]]
    assert told["nics"] == [
        {
            "lan": "front", "mac": row["mac"][0], "address": row["address"][0], "prefix": 24, "router": "", "dns": "",
            "domain": "",
        }
    ]  # fmt: skip
    assert (told["server"], told["epoch"], told["node"]) == ("shop/web1", 1, row["node"])
    assert told["storage"] == {
        "target": "iqn.2026-11.dev.panloom:shop.web1", "lun": 0, "volume": "shop.web1", "image": "web@1"
    }  # fmt: skip
    assert machine.script.split("password ")[1].split()[0] not in said
    assert machine.personality["BEACON_KEY"] not in said
    code, _, why = run_panloom(control, "node", "power", "on", "n9")
    assert (code, why.splitlines()[0]) == (1, "node n9: there is none of that name; see: panloom get nodes")
    code, _, why = run_panloom(control, "console", "n9")
    assert (code, why.splitlines()[0]) == (1, "node n9: there is none of that name; see: panloom get nodes")
    code, _, why = run_panloom(control, "personality", "export", "shop/web9")
    assert (code, "there is none of that name" in why) == (1, True)


def test_cap_218_one_control_node_and_one_fabric_are_not_redundant_and_not_failed(control):
    control.start()
    control.apply(ONE)
    control.until_up("shop/web1")
    code, said, _ = run_panloom(control, "status", "-o", "json")
    status = json.loads(said)
    states = {part["part"]: part["state"] for part in status["parts"]}
    assert (code, status["state"]) == (0, "ok, not redundant")
    assert (states["control nodes"], states["fabrics"]) == ("not redundant", "not redundant")
    assert "failed" not in states.values()
    control.kill("storage")
    until(lambda: control.client.get("status")["state"] == "failed", "a part that fails is told apart", seconds=20)
    control.start_storage()


@pytest.fixture(scope="module")
def three_pans(tmp_path_factory):
    """Three PANs of one server each, and one spare for all of them."""
    with control_node(tmp_path_factory.mktemp("pans"), nodes=4) as control:
        control.start()
        for name in ("shop", "mail", "data"):
            control.apply(pan(name, "one1"), f"{name}.yaml")
            control.until_up(f"{name}/one1")
        yield control


def test_cap_191_196_one_spare_serves_whichever_pan_fails(three_pans):
    control = three_pans
    since = control.last()
    second, third = machine_of(control, "mail/one1"), machine_of(control, "data/one1")
    second.is_broken = True
    second.kill()
    control.until_up("mail/one1", not_on={second.name})
    # The pool holds broken machines only: each is tried and found wanting.
    control.declare(boot_timeout="1s", max_boot_attempts=1)
    third.is_broken = True
    third.kill()
    for machine in (second, third):
        control.until_event("quarantined", after=since, node=machine.name)
    held = control.until_event("held up", after=since, server="data/one1")
    assert held["text"].startswith("no spare: n1 carries ")
    assert f"{second.name} quarantined: " in held["text"]
    assert control.server("data/one1")["state"] == "waiting"
    assert "look at data/one1 (waiting)" in str(control.client.get("status")["parts"])
    # A repaired node comes back into the pool, and nobody asks for anything more.
    control.declare()
    second.is_broken = third.is_broken = False
    assert run_panloom(control, "node", "release", second.name)[0] == 0
    control.until_up("data/one1", not_on={third.name})


def test_three_servers_silent_at_once_are_held_and_none_is_fenced(three_pans):
    control = three_pans
    since = control.last()
    servers = [f"{name}/one1" for name in ("shop", "mail", "data")]
    victims = [machine_of(control, server) for server in servers]
    for victim in victims:  # a system that has just come up is given time to settle
        until(lambda victim=victim: lasts(control, victim) > 6, f"{victim.name} has settled", seconds=20)
    for victim in victims:
        victim.is_silent = True
    held = control.until_event("held", after=since, seconds=30)
    assert sorted(held["data"]["servers"]) == sorted(servers)
    assert "fell silent at once" in held["text"]
    for victim in victims[:2]:
        victim.is_silent = False
    control.until_event("fence", after=since)
    assert fences(control, since) == [servers[2]]


def test_cap_196_24_servers_and_one_spare(tmp_path):
    with control_node(tmp_path, nodes=25) as control:
        control.start(interval="0.5s", timeout="3s")
        control.apply(pan("shop", "web[1-24]"))
        names = [f"shop/web{number}" for number in range(1, 25)]
        for name in names:
            control.until_up(name, seconds=60)
        victim = machine_of(control, "shop/web13")
        victim.kill()
        row = control.until_up("shop/web13", not_on={victim.name})
        assert row["epoch"] == 2
        assert fences(control) == ["shop/web13"]
        assert len({control.server(name)["mac"][0] for name in names}) == 24


def test_a_spare_is_told_to_wait_and_an_unknown_machine_is_taken_in_by_a_person(control):
    control.start(nodes=["n1"], discovery=", discovery: 10.77.0.200-10.77.0.209")
    stranger = control["n2"]
    with DhcpWire(stranger.inside) as wire:
        client = stranger.client()
        assert str(wire.bind(client).yiaddr) == "10.77.0.200"
    control.until_event("discovered")
    row = control.node(stranger.mac)
    assert (row["state"], row["server"]) == ("discovered", None)
    control.apply(pan("shop", "web1"))  # first, for whose disk is there first has the node
    control.until_up("shop/web1")
    control.apply(pan("shop", "web[1-2]"))
    assert "no spare" in control.until_event("held up", server="shop/web2")["text"]
    assert run_panloom(control, "node", "approve", stranger.mac)[0] == 0
    name = f"n-{stranger.mac.replace(':', '')}"
    assert control.node(name)["state"] in ("spare", "in use")
    until(lambda: "has no power driver" in (control.server("shop/web2")["why"] or ""), "it must ask to boot first")
