"""Updates of an image under emulated machines that write without pause and prove their disks by what is on them."""

import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.disk_marks import IMAGE_OCTETS, faults
from support.lab import PATIENT, pan, running_lab
from support.waiting import until

pytestmark = pytest.mark.timeout(240)
SERVERS = {"shop/web1": "10.1.0.11", "shop/web2": "10.1.0.12"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    chassis = Chassis.of(nodes=3, qemu=0, load_seconds=0.02)
    with running_lab(tmp_path_factory.mktemp("updates"), chassis=chassis) as running:
        running.declare(liveness=PATIENT)
        running.apply(pan(more="health: {tcp: 80, settle: 200ms, within: 60s}"))
        for server in SERVERS:
            running.until_answers(server)
        yield running


def bring_in(lab, version):
    """Bring a version of the image in whose first octets are its own."""
    path = lab.lab.directory / f"web{version}.img"
    path.write_bytes(f"version {version}".encode().ljust(IMAGE_OCTETS, b"\0"))
    text = f"apiVersion: panloom/v1\nkind: Image\nname: web\nversion: {version}\nsource: {path}\n"
    lab.apply(text, f"web{version}.yaml")

    def ready():
        return lab.call(lab.lab.get("resources", "image", f"web@{version}"))["state"] == "ready"

    until(ready, f"web@{version} is in the store")


def update(lab, to):
    lab.call(lab.lab.post("images", "web", "update", body={"to": to, "servers": [], "width": 1}))

    def ended():
        row = lab.call(lab.lab.get("resources", "update", "web"))
        return row if row["state"] in ("done", "stopped") else None

    return until(ended, f"the update to {to} has ended", seconds=90)


def acknowledged(lab, server, epochs):
    """Return the highest number of a mark that a server was answered under one of those epochs."""
    placed = {(event["node"], event["epoch"]) for event in lab.events("placed", server=server)}
    numbers = [-1]
    for node, epoch in placed:
        begin = f"PANLOOM wrote={epoch}:"
        said = [line.removeprefix(begin) for line in lab.console(node) if line.startswith(begin)]
        numbers += [int(number) for number in said if epoch in epochs]
    return max(numbers)


def test_each_server_boots_from_a_new_disk_and_its_old_one_holds_all_that_was_acknowledged(lab):
    until(lambda: all(max(lab.marks(server), default=-1) > 5 for server in SERVERS), "both have written")
    bring_in(lab, 2)
    found = update(lab, "2")
    assert {turn["server"]: turn["stage"] for turn in found["turns"]} == dict.fromkeys(SERVERS, "updated")
    for server in SERVERS:
        page = lab.until_answers(server, epoch=2)
        assert page["boots"] == "1"  # of this disk
        old, new = lab.marks(server), lab.marks(f"{server}-disk-2")
        assert {mark.epoch for mark in old.values()} == {1}
        known = acknowledged(lab, server, {1})
        assert known > 5
        assert faults(old, server, acknowledged=known) == ()
        assert {mark.epoch for mark in new.values()} <= {2}
        assert lab.server(server)["volume"] == f"{server}-disk-2"


def test_a_server_whose_port_stays_closed_goes_back_with_all_that_was_acknowledged(lab):
    """It has its disk from before again, goes on counting there, and no other server is touched."""
    lab.apply(pan(more="health: {tcp: 81, settle: 200ms, within: 4s}"))
    before = {server: lab.server(server) for server in SERVERS}
    bring_in(lab, 3)
    found = update(lab, "3")
    assert {turn["server"]: turn["stage"] for turn in found["turns"]} == {
        "shop/web1": "went back",
        "shop/web2": "left as it is",
    }
    assert "port 81 of 10.1.0.11: Connection refused" in found["story"]
    epoch = before["shop/web1"]["epoch"]
    page = lab.until_answers("shop/web1", epoch=epoch + 2)
    assert int(page["boots"]) > 1  # of this disk
    label = before["shop/web1"]["volume"]
    assert lab.server("shop/web1")["volume"] == label
    until(lambda: any(mark.epoch == epoch + 2 for mark in lab.marks(label).values()), "it writes to its old disk again")
    known = acknowledged(lab, "shop/web1", {epoch, epoch + 2})
    assert faults(lab.marks(label), "shop/web1", acknowledged=known) == ()
    assert lab.server("shop/web2")["epoch"] == before["shop/web2"]["epoch"]
    said = [line for machine in lab.lab.chassis.machines for line in lab.console(machine.name)]
    assert not [line for line in said if line.startswith("PANLOOM fault=")]
