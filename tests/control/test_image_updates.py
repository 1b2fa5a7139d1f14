"""Updates of an image with the real processes: new disks for servers that run, old ones that stay, and the way back."""

import json
import re
from contextlib import contextmanager

import pytest

from panloom.control.failpoint import VARIABLE
from panloom.errors import ConfigErrors, ConflictError
from support.control_node import IMAGE, control_node, pan, run_panloom
from support.played_machine import TAG_BLOCKS, TAG_LBA, UNBOOTABLE
from support.volume_reader import read_volume
from support.waiting import until

pytestmark = pytest.mark.timeout(240)
QUICK = "health: {settle: 100ms, within: 30s}"
SECTOR = 512
PLACES = ("update begun", "disk prepared", "fencing", "swap to new", "swapped to new", "updated")
PLACES_BACK = ("fencing, to go back", "swap to old", "swapped to old", "went back")
"""One for each state that a kill can leave: what lies between two of them leaves one of them."""


def image(control, version, octets, **fields):
    """Bring a version of the image web in."""
    path = control.directory / f"web{version}.img"
    path.write_bytes(octets)
    more = "".join(f"{key}: {value}\n" for key, value in fields.items())
    text = f"apiVersion: panloom/v1\nkind: Image\nname: web\nversion: {version}\nsource: {path}\n{more}"
    control.apply(text, f"web{version}.yaml")
    until(lambda: row(control, "image", f"web@{version}")["state"] == "ready", f"web@{version} is in the store")


def row(control, kind, name):
    return control.client.get("resources", kind, name)


def update(control, to="2", servers=(), width=1, name="web"):
    return control.client.post("images", name, "update", body={"to": to, "servers": list(servers), "width": width})


def until_ended(control, name="web", seconds=60.0):
    def ended():
        found = row(control, "update", name)
        return found if found["state"] in ("done", "stopped") else None

    return control._until(ended, "the update has ended", seconds)


def stages(found):
    return {turn["server"]: turn["stage"] for turn in found["turns"]}


def volumes(control):
    return {one["name"]: one for one in control.client.get("resources", "volume")["rows"]}


def tags(control, label):
    """Return the newest counter that a volume holds for each epoch that wrote to it."""
    octets = read_volume(
        control.directory / "store", label.replace("/", "."),
        range(TAG_LBA * SECTOR, (TAG_LBA + TAG_BLOCKS) * SECTOR),
    )  # fmt: skip
    found = {}
    for server, epoch, counter in re.findall(rb"(shop/web[0-9]):([0-9]+):([0-9]+)", octets):
        assert server.decode() in label
        found[int(epoch)] = max(found.get(int(epoch), 0), int(counter))
    return found


@contextmanager
def up(directory, servers, *, nodes, more=QUICK, **platform):
    with control_node(directory, nodes=nodes) as control:
        control.start(**platform)
        control.apply(pan("shop", servers, more=more))
        for server in control.client.get("resources", "server")["rows"]:
            control.until_up(server["name"])
        yield control


def test_the_servers_of_an_image_get_new_disks_one_after_the_other_and_the_old_ones_stay(tmp_path):
    with up(tmp_path, "web[1-3]", nodes=3) as control:
        names = [f"shop/web{number}" for number in (1, 2, 3)]
        for machine in control.supply.machines.values():
            machine.beacons = machine.writes = True
        until(lambda: all(tags(control, name) for name in names), "each server has written to its disk")
        image(control, 2, b"second" * 20_000)
        since = control.last()
        status, said, told = run_panloom(control, "image", "update", "web@2")
        assert (status, said.splitlines()[0]) == (0, "web: 3 of 3 servers have web@2"), told
        assert told.index("shop/web1: updated") < told.index("shop/web2:")
        for name in names:
            assert control.until_up(name, epoch=2)["image"] == "web@2"
            known = volumes(control)
            assert known[f"{name}-disk-2"]["server"] == name
            assert (known[name]["server"], known[name]["image"]) == (None, "web@1")
            assert set(tags(control, name)) == {1}
            until(lambda name=name: set(tags(control, f"{name}-disk-2")) == {2}, "it writes to its new disk")
        swaps = [
            event["number"] for event in control.events("image update", after=since) if "from now on" in event["text"]
        ]
        fences = [event["number"] for event in control.events("fence complete", after=since)]
        assert len(swaps) == len(fences) == 3
        assert all(fence < swap for fence, swap in zip(fences, swaps, strict=True))
        assert control.events("image updated", after=since)
        assert "3 of 3" in run_panloom(control, "get", "updates")[1]
        assert "shop/web2" in run_panloom(control, "show", "update", "web")[1]
        # once more: nothing to do, and the documents apply to no change
        assert run_panloom(control, "image", "update", "web@2")[:2] == (
            0, "There is nothing to update: every server meant has web@2.\n",
        )  # fmt: skip
        assert control.apply(pan("shop", "web[1-3]", more=QUICK))["revision"] == 0
        # the disk of the server cannot be deleted, the one before can
        with pytest.raises(ConfigErrors, match="server shop/web1 uses it"):
            control.client.delete("resources", "volume", "shop/web1-disk-2", yes="true")
        control.client.delete("resources", "volume", "shop/web1", yes="true")
        until(lambda: "shop/web1" not in volumes(control), "the old disk is gone")
        assert control.server("shop/web1")["volume"] == "shop/web1-disk-2"


def test_nothing_acknowledged_is_lost_by_an_update_and_by_the_way_back(tmp_path):
    """A server writes without pause: what its disk had acknowledged when it was fenced is there when it is back."""
    with up(tmp_path, "web1", nodes=1, more="health: {settle: 100ms, within: 3s, command: /bin/false}") as control:
        control["n1"].beacons = control["n1"].writes = True
        until(lambda: tags(control, "shop/web1").get(1, 0) > 5, "it writes")
        before = tags(control, "shop/web1")[1]
        image(control, 2, IMAGE)
        update(control)
        found = until_ended(control)
        assert (found["state"], stages(found)) == ("stopped", {"shop/web1": "went back"})
        assert "/bin/false: exit code 1" in found["story"]
        control.until_up("shop/web1", epoch=3)
        until(lambda: 3 in tags(control, "shop/web1"), "it writes to its old disk again")
        written = tags(control, "shop/web1")
        assert set(written) <= {1, 3}
        assert written.get(1, before) >= before
        assert set(tags(control, "shop/web1-disk-2")) == {2}  # what it wrote on trial stays, too
        known = volumes(control)
        assert (known["shop/web1"]["server"], known["shop/web1-disk-2"]["server"]) == ("shop/web1", None)
        assert control.server("shop/web1")["image"] == "web@1"


def test_a_version_that_does_not_boot_stops_at_its_first_server_and_no_node_is_blamed(tmp_path):
    with up(tmp_path, "web[1-2]", nodes=3, boot_timeout="500ms", max_boot_attempts=1) as control:
        image(control, 2, UNBOOTABLE * 1000)
        status, said, told = run_panloom(control, "image", "update", "web@2")
        assert status == 1, told
        assert "stopped: shop/web1 is not well with web@2" in said
        assert "shop/web1 went back to shop/web1" in said
        assert "go on: panloom image update web@2" in said
        found = row(control, "update", "web")
        assert stages(found) == {"shop/web1": "went back", "shop/web2": "left as it is"}
        assert control.until_up("shop/web1")["image"] == "web@1"
        assert control.until_up("shop/web2", epoch=1)
        nodes = control.client.get("resources", "node")["rows"]
        assert "quarantined" not in {node["state"] for node in nodes}


def test_several_at_a_time_and_only_those_that_were_named(tmp_path):
    with up(tmp_path, "web[1-3]", nodes=3) as control:
        image(control, 2, b"second" * 20_000, tags="[stable]")
        for to, servers, why in (
            ("7", [], "there is no 7; did you mean"),
            ("1", ["shop/web9"], "there is none of that name"),
        ):
            with pytest.raises(ConfigErrors, match=why):
                update(control, to, servers)
        with pytest.raises(ConflictError, match="is not being updated"):
            control.client.post("images", "web", "update", "stop")
        update(control, "stable", ["shop/web1", "shop/web3"], width=2)
        assert stages(until_ended(control)) == {"shop/web1": "updated", "shop/web3": "updated"}
        assert [control.server(f"shop/web{number}")["image"] for number in (1, 2, 3)] == ["web@2", "web@1", "web@2"]
        assert control.until_up("shop/web2", epoch=1)


def test_a_tag_that_means_nothing_any_more_keeps_no_server_from_its_old_disk(tmp_path):
    """The server asked for web@stable; the tag is taken away while its new disk is tried."""
    bad = "health: {settle: 100ms, within: 4s, command: /bin/false}"
    with control_node(tmp_path, nodes=1) as control:
        control.start()
        control.client.post("images", "web@1", "tags", body={"tags": ["stable"], "remove": False})
        until(lambda: row(control, "image", "web@1")["state"] == "ready", "web@1 is in the store")
        control.apply(pan("shop", "web1", more=bad).replace("image: web", "image: web@stable"))
        control.until_up("shop/web1")
        image(control, 2, b"second" * 20_000)
        update(control)
        until(lambda: stages(row(control, "update", "web")) == {"shop/web1": "on trial"}, "it is on trial")
        control.client.post("images", "web@1", "tags", body={"tags": ["stable"], "remove": True})
        assert stages(until_ended(control)) == {"shop/web1": "went back"}
        assert control.until_up("shop/web1", epoch=3)["image"] == "web@1"
        assert control.server("shop/web1")["volume"] == "shop/web1"


def test_a_server_that_falls_silent_on_trial_is_not_well(tmp_path):
    """Nobody moves it, since its document says so, and it has no checks: silence alone shows that it is not well."""
    health = "failover: {enabled: false}\n    health: {settle: 1s, within: 4s}"
    with up(tmp_path, "web1", nodes=1, more=health) as control:
        image(control, 2, b"second" * 20_000)
        update(control)
        control.until_up("shop/web1", epoch=2)
        control["n1"].is_silent = True
        found = until_ended(control)
        assert stages(found) == {"shop/web1": "went back"}


def test_another_server_is_not_taken_for_one_that_is_updated_already(tmp_path):
    with up(tmp_path, "web[1-2]", nodes=2, more="health: {settle: 100ms, within: 60s, command: /bin/false}") as control:
        image(control, 2, b"second" * 20_000)
        update(control, "2", ["shop/web1"])
        assert update(control, "2", ["shop/web1"])["servers"] == 1
        with pytest.raises(ConflictError, match="image web is being updated to web@2"):
            update(control, "2", ["shop/web2"])


def test_a_disk_that_no_document_knows_of_is_nobodys_new_disk(tmp_path):
    """The state may be a copy from before an earlier update, whose disks are in the store all the same."""
    with up(tmp_path, "web1", nodes=1) as control:
        image(control, 2, b"second" * 20_000)
        control.storage(lambda storage: storage.create_volume("shop.web1-disk-2", "web@1", 1 << 20))
        update(control)
        assert stages(until_ended(control)) == {"shop/web1": "updated"}
        assert control.server("shop/web1")["volume"] == "shop/web1-disk-3"


def killed(control, place):
    control.kill("control")
    control.start_control(**{VARIABLE: place})


@pytest.mark.parametrize("bad", [False, True])
def test_an_update_goes_on_after_kill_9_at_each_step(tmp_path, bad):
    """The control process dies at one place after the other; what it left, the next one takes up."""
    health = "health: {settle: 100ms, within: 2s, command: /bin/false}" if bad else QUICK
    with up(tmp_path, "web1", nodes=2, more=health) as control:
        image(control, 2, b"second" * 20_000)
        places = PLACES_BACK if bad else PLACES
        for number, place in enumerate(places):
            killed(control, place)
            if number == 0:
                try:
                    update(control)
                except Exception:  # noqa: BLE001 - it may die before it answers
                    pass
            control.died_by_itself("control")
        control.start_control()
        found = until_ended(control)
        assert stages(found) == {"shop/web1": "went back" if bad else "updated"}
        after = control.until_up("shop/web1")
        assert (after["image"], after["epoch"]) == (("web@1", 3) if bad else ("web@2", 2))
        assert set(volumes(control)) == {"shop/web1", "shop/web1-disk-2"}
        assert json.loads(run_panloom(control, "get", "servers", "-o", "json")[1])[0]["update"] is None
