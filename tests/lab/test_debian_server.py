"""A Debian of ours becomes a server of the lab: GRUB, Debian's kernel, open-iscsi, systemd, by BIOS and our iSCSI.

image, 1 GiB ──clone──▶ disk, 2 GiB ──grown──▶ boots ──▶ host name, machine-id, host keys, network, beacon its own
"""

import hashlib
import json
import subprocess

import msgspec
import pytest

from panloom.decide.personality import BEACON_PORT
from panloom.errors import MalformedError
from panloom.lab.chassis import Chassis
from panloom.lab.running import RunningLab
from panloom.wire.beacon import Beacon
from support.debian_image import debian_image
from support.identities import KEY
from support.lab import LabInTest, Sniffer, pan
from support.namespaces import LoopInside, namespace
from support.volume_reader import read_volume
from support.waiting import until

BOOT_SECONDS = 600.0
pytestmark = [pytest.mark.machine, pytest.mark.timeout(1800)]

GIB = 1 << 30
SERVERS = pan(
    servers="web1", address="10.1.0.11", more=f"disk: {{size: 2GiB}}\n    ssh_keys: ['{KEY}']\n    failover: no"
)


def beacon_in(frame: bytes, _direction: int) -> bool:
    try:
        return frame[36:38] == BEACON_PORT.to_bytes(2, "big") and bool(Beacon.decode(frame[42:]))
    except MalformedError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    chassis = Chassis.of(nodes=1)
    large = tuple(msgspec.structs.replace(machine, memory_octets=512 << 20) for machine in chassis.machines)
    image = debian_image()
    with namespace("lab") as inside, LoopInside(inside) as loop:
        directory = tmp_path_factory.mktemp("debian")
        running = RunningLab(directory, chassis=msgspec.structs.replace(chassis, machines=large))
        lab = LabInTest(running, inside, loop, image)
        try:
            lab.call(running.start(image), seconds=120)
            # An emulated processor may take minutes for what is seconds, and stand still meanwhile.
            lab.declare(boot_timeout="600s", liveness={"interval": "1s", "timeout": "60s"})
            lab.apply(SERVERS)
            yield lab
        finally:
            lab.call(running.stop())


@pytest.fixture(scope="module")
def beacons(lab):
    sniffer = Sniffer(lab.inside, lab.lab.chassis.bridge, beacon_in)
    try:
        until(lambda: len(sniffer.seen) >= 2, "two beacons", seconds=BOOT_SECONDS)
    finally:
        seen = sniffer.close()
    return [Beacon.decode(frame[42:]) for _, frame in seen]


@pytest.fixture(scope="module")
def facts(lab, beacons):
    lab.until_up("shop/web1", seconds=BOOT_SECONDS)
    return lab.until_answers("shop/web1", seconds=BOOT_SECONDS)


def partitions(path):
    told = subprocess.run(("sfdisk", "--json", path), check=True, capture_output=True, text=True)
    assert told.stderr == ""
    return json.loads(told.stdout)["partitiontable"]


def test_cap_067_the_disk_is_partitioned_to_its_end_before_anybody_boots(lab, facts, tmp_path):
    volumes = lab.lab.directory / "volumes"
    with (tmp_path / "disk").open("wb") as file:
        file.write(read_volume(volumes, "shop.web1", range(1 << 20)))
        file.truncate(2 * GIB)
        file.seek(2 * GIB - 33 * 512)
        file.write(read_volume(volumes, "shop.web1", range(2 * GIB - 33 * 512, 2 * GIB)))
    before, after = partitions(lab.image), partitions(tmp_path / "disk")
    assert after["lastlba"] == 2 * GIB // 512 - 34
    assert after["partitions"][:2] == [
        {**part, "node": part["node"].replace(str(lab.image), str(tmp_path / "disk"))}
        for part in before["partitions"][:2]
    ]
    old, new = before["partitions"][2], after["partitions"][2]
    assert (new["start"], new["uuid"], new["type"]) == (old["start"], old["uuid"], old["type"])
    assert 2 * GIB // 512 - 34 - (new["start"] + new["size"]) < 2 * 2048


def test_the_file_system_is_as_large_as_the_disk(facts):
    assert int(facts["root_octets"]) > 1.8 * GIB


def test_name_machine_id_and_keys_are_the_servers_own(lab, facts):
    assert facts["hostname"] == "web1"
    assert facts["machine_id"] == hashlib.sha256(f"machine-id:{facts['instance']}".encode()).hexdigest()[:32]
    assert facts["host_key"].startswith("AAAAC3NzaC1lZDI1NTE5")
    server = lab.server("shop/web1")
    assert (facts["mac"], facts["address"]) == (server["mac"][0], "10.1.0.11/24")


def test_keys_of_the_document_let_in(facts):
    assert facts["authorized_keys"] == "1"
    assert "/run/panloom/authorized_keys" in facts["keys_of_root"]


def test_the_kernel_finds_the_disc_for_cloud_init(facts):
    assert facts["cidata"].split() == ["meta-data", "network-config", "user-data"]
    told = json.loads(facts["meta_data"])
    assert told == {"instance-id": facts["instance"], "local-hostname": "web1", "public-keys": [KEY]}


def test_beacons_of_its_own_and_a_login_on_the_serial_line(lab, beacons, facts):
    assert {(beacon.server, beacon.epoch) for beacon in beacons} == {("shop/web1", 1)}
    assert beacons[1].counter > beacons[0].counter
    until(
        lambda: any("web1 ttyS0" in line for line in lab.console("n1")),
        "what a login prompt begins with",
        seconds=BOOT_SECONDS,
    )
    assert facts["units"].split() == ["active", "active", "active"]


def test_systemd_watches_the_agent_and_a_login_shows_which_server_this_is(facts):
    kind, watchdog, restarts = facts["watchdog"].split()
    assert (kind, watchdog, restarts) == ("notify", "1min", "0")
    assert facts["issue"] == "shop/web1 at 10.1.0.11, on node n1 (epoch 1)"


def test_the_control_node_shows_the_system_and_the_unit_that_failed(lab, facts):
    row = until(lambda: units_told(lab), "the agent has told which units failed", seconds=BOOT_SECONDS)
    assert row["failed_units"] == ["broken.service"]
    assert row["system"].startswith("Debian GNU/Linux 12")
    assert row["kernel"].endswith("-cloud-amd64")
    assert any(line == "PANLOOM units failed: broken.service" for line in lab.console("n1"))
    assert lab.node("n1")["vendor"] == "QEMU"


def units_told(lab):
    row = lab.server("shop/web1")
    return row if row.get("failed_units") else None
