"""A Debian of ours becomes a server of the lab: GRUB, Debian's kernel, open-iscsi, systemd, by BIOS and our iSCSI.

image, 1 GiB ──clone──▶ disk, 2 GiB ──grown──▶ boots ──▶ host name, machine-id, host keys, network, beacon its own
                        └─ MAC 1, session ─────────┴──▶ gate ──▶ support/guest/worst_networkd.sh ──▶ gate ──▶ poweroff
"""

import hashlib
import json
import struct
import subprocess
from dataclasses import dataclass

import pytest

from panloom.decide.personality import BEACON_PORT
from panloom.errors import MalformedError
from panloom.lab.image import WRITER_RING
from panloom.wire.beacon import Beacon
from support.debian_image import BOOT_SECONDS, debian_image, debian_lab, declare_server
from support.identities import KEY
from support.lab import Sniffer
from support.volume_reader import read_volume
from support.waiting import until
from support.worst_guest import open_gate, root_sessions, said, values

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1800)]

GIB = 1 << 30
PERIOD_ROUNDS, MANY_ROUNDS = 40, 100  # of worst_networkd.sh: each thing that it does once; what make long runs
SUPERBLOCK = (66 << 20) + 1024  # golden/disk.py: where the root file system begins


def beacon_in(frame: bytes, _direction: int) -> bool:
    try:
        return frame[36:38] == BEACON_PORT.to_bytes(2, "big") and bool(Beacon.decode(frame[42:]))
    except MalformedError:
        return False


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """A lab whose server waits for a machine that has what it needs, and there is none."""
    with debian_lab(tmp_path_factory.mktemp("debian"), debian_image()) as running:
        declare_server(running, needs="{memory: '>= 1TiB'}")
        yield running


@pytest.fixture(scope="module")
def unbooted(waiting, tmp_path_factory):
    """Both ends of the server's disk, as they are when control has made it and nobody has had it."""
    waiting.until_event("partitioned", server="shop/web1", seconds=120)
    path, volumes = tmp_path_factory.mktemp("unbooted") / "disk", waiting.lab.directory / "volumes"
    with path.open("wb") as file:
        file.write(read_volume(volumes, "shop.web1", range(1 << 20)))
        file.truncate(2 * GIB)
        file.seek(2 * GIB - 33 * 512)
        file.write(read_volume(volumes, "shop.web1", range(2 * GIB - 33 * 512, 2 * GIB)))
    assert waiting.disk_logins("n1") == 0
    assert not waiting.power("n1", "status")
    return path


@pytest.fixture(scope="module")
def lab(waiting, unbooted):
    declare_server(waiting)
    return waiting


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


def test_cap_067_the_disk_is_partitioned_to_its_end_before_anybody_boots(waiting, unbooted):
    before, after = partitions(waiting.image), partitions(unbooted)
    assert after["lastlba"] == 2 * GIB // 512 - 34
    assert after["partitions"][:2] == [
        {**part, "node": part["node"].replace(str(waiting.image), str(unbooted))} for part in before["partitions"][:2]
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
    assert facts["cidata"].split() == ["meta-data", "network-config", "user-data", "vendor-data"]
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


@dataclass
class Worst:
    """What was seen while systemd-networkd did its worst."""

    rounds: int
    said: list[str]
    sessions: list[list[str]]  # of the root disk: before and after
    logins: list[int]  # of the node to its disk: before and after
    epochs: list[list[str]]  # of the server, and what became of it
    tags: dict[int, tuple[int, int]]
    superblock: bytes  # once the machine is off


def standing(lab):
    row = lab.server("shop/web1")
    return [str(row["epoch"]), row["node"]]


@pytest.fixture(scope="module")
def worst(lab, facts, request):
    rounds = PERIOD_ROUNDS if request.config.option.markexpr == "not long" else MANY_ROUNDS
    lab.until_adopted("n1")
    sessions, logins, epochs = [root_sessions(lab)], [lab.disk_logins("n1")], [standing(lab)]
    open_gate(lab, f"{rounds}\n", seconds=BOOT_SECONDS)
    until(lambda: "done" in said(lab), "the worst is over", seconds=BOOT_SECONDS)
    sessions.append(root_sessions(lab))
    logins.append(lab.disk_logins("n1"))
    epochs.append(standing(lab))
    lines, tags = said(lab), lab.tags()
    lab.call(lab.lab.kill("control"))  # nobody switches the machine on again, when it goes off
    open_gate(lab, seconds=BOOT_SECONDS)
    until(lambda: not lab.power("n1", "status"), "the machine is off", seconds=BOOT_SECONDS)
    superblock = lab._volume("shop.web1", range(SUPERBLOCK, SUPERBLOCK + 1024))
    return Worst(rounds, lines, sessions, logins, epochs, tags, superblock)


def told(worst, word):
    return [line.removeprefix(f"{word} ") for line in worst.said if line.startswith(f"{word} ")]


def test_cap_005_networkd_at_its_worst_again_and_again_costs_no_write(worst):
    """Each sector of the ring holds the last tag that was written there: none failed, and none is torn."""
    assert [line for line in worst.said if line.startswith("fault")] == []
    (rounds,) = told(worst, "rounds")
    assert rounds.startswith(f"{worst.rounds} ")
    networkd = values(rounds)
    assert networkd["obeyed"] == networkd["asked"] > worst.rounds // 2
    (written,) = told(worst, "written")
    newest = int(written) - 1
    assert newest > 100
    expected = range(max(0, newest - len(WRITER_RING) + 1), newest + 1)
    assert sorted(number for _, number in worst.tags.values()) == list(expected)
    (errors,) = told(worst, "errors")
    assert values(errors) == {"disk": 0, "connection": 0}
    assert worst.sessions[0] == worst.sessions[1] != []
    assert worst.logins[0] == worst.logins[1]


def test_cap_004_the_system_sees_its_own_card_and_none_of_the_disks(worst):
    """At first, and when networkd has had files for every card that there is."""
    assert [line.split() for line in told(worst, "cards")] == [["eth0", "lo"], ["eth0", "lo"]]


def test_cap_018_a_server_without_network_is_not_taken_for_dead(worst):
    assert worst.epochs[0] == worst.epochs[1] == ["1", "n1"]


def test_cap_019_systemd_powers_off_and_leaves_a_clean_file_system(worst):
    magic, state = struct.unpack_from("<HH", worst.superblock, 0x38)
    (incompatible,) = struct.unpack_from("<I", worst.superblock, 0x60)
    assert magic == 0xEF53
    assert state == 1  # EXT4_VALID_FS, and no EXT4_ERROR_FS
    assert not incompatible & 4  # EXT4_FEATURE_INCOMPAT_RECOVER: a journal to be replayed
