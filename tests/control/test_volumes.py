"""Disks from documents to the storage process, on real processes: grown, frozen, cloned, flattened, thick."""

import json
import re
import signal

import pytest

from panloom.errors import ConfigErrors, ConflictError
from panloom.storage.client import StorageClient
from panloom.storage.exports import Access, ExportedLun
from panloom.storage.limits import Limits
from panloom.wire.scsi_cdb import BlockCommand, Operation
from support.control_node import control_node, pan, run_panloom
from support.initiator import Initiator, connect
from support.waiting import until

MIB = 1 << 20
ONE = pan("shop", "web1")


@pytest.fixture
def control(tmp_path):
    with control_node(tmp_path, nodes=1) as made:
        made.start()
        yield made


def volume(control, name):
    """Return what the storage process says of a volume, None if it has none of that name."""
    volumes = control.storage(StorageClient.volumes).volumes
    return next((facts for facts in volumes if facts.name == name), None)


def test_what_is_known_without_the_disks_is_told_while_their_process_stands_still(control):
    control.apply(ONE)
    node = control.until_up("shop/web1")["node"]
    control.signal("storage", signal.SIGSTOP)
    try:
        row = control.server("shop/web1")
        assert (row["node"], row["epoch"], row["disk_octets"]) == (node, 1, None)
        assert "the storage process has not answered for 3 s" in run_panloom(control, "get", "snapshots")[2]
        disk = control.client.get("resources", "volume", "shop/web1")
        assert (disk["statistics"], disk["why"]) == (None, "the storage process has not answered for 3 s")
    finally:
        control.signal("storage", signal.SIGCONT)
    until(lambda: control.server("shop/web1")["disk_octets"] == MIB, "the disk is shown again")


NAMES = {
    "InitiatorName": "iqn.2026-11.dev.panloom:somebody",
    "TargetName": "iqn.2026-11.dev.panloom:shop.data",
    "SessionType": "Normal",
}


def do_known_load(control):
    """10 WRITEs of 4 KiB, 20 READs of a block, 2 flushes of shop/data, by an initiator of its own."""
    lun = ExportedLun(0, volume="shop.data")
    control.storage(lambda storage: storage.export(NAMES["TargetName"], [lun], 1, Access(None)))
    with Initiator(control.inside.socket(lambda: connect("10.77.0.1:3260")), NAMES).log_in() as session:
        for number in range(10):
            session.write(8 * number, bytes(4096))
        for number in range(20):
            session.read(number, 1)
        for _ in range(2):
            session.command(BlockCommand(Operation.SYNCHRONIZE_CACHE_10, 0, 0, 0))
            session.receive()


def counted(control):
    """Return what the wide table has of the one volume's statistics."""
    header, row = run_panloom(control, "get", "volumes", "-o", "wide")[1].splitlines()
    starts = [header.index(f" {name} ") + 1 for name in ("READS", "WRITES", "READ", "WRITTEN")]
    return [row[start:].split("  ")[0] for start in starts]


def test_cap_173_a_known_load_is_told_to_a_person_in_exact_numbers(control):
    control.apply(extra("data", "image: web\nsize: 1MiB") + "---" + empty_pan())
    until_ready(control, "shop/data")

    def told():
        return json.loads(run_panloom(control, "show", "volume", "shop/data", "-o", "json")[1])["statistics"]

    nothing = told()
    assert {nothing[key] for key in ("operations", "octets", "reads", "writes", "failed", "in_progress_seconds")} == {0}
    assert (nothing["read_median_seconds"], nothing["write_p99_seconds"]) == (None, None)
    do_known_load(control)
    done = told()
    assert {key: done[key] for key in done if not key.endswith("_seconds")} == {
        "operations": 32, "octets": 10 * 4096 + 20 * 512, "reads": 20, "writes": 10, "flushes": 2, "unmaps": 0,
        "read_octets": 20 * 512, "written_octets": 10 * 4096, "unmapped_octets": 0, "failed": 0,
        "since": nothing["since"],
    }  # fmt: skip
    assert 0 < done["read_median_seconds"] <= done["read_p99_seconds"]
    assert 0 < done["write_median_seconds"] <= done["write_p99_seconds"] <= 2 * done["in_progress_seconds"]
    shown = run_panloom(control, "show", "volume", "shop/data")[1]
    assert re.search(r"^  operations +32, 50 KiB$", shown, re.MULTILINE)
    assert re.search(r"^  reads +20, 10 KiB; half took .+s at most, 99 of 100 .+s$", shown, re.MULTILINE)
    assert re.search(r"^  limits +none$", shown, re.MULTILINE)
    assert counted(control) == ["20", "10", "10 KiB", "40 KiB"]
    control.kill("storage")
    assert re.search(r"^  statistics +unknown$", run_panloom(control, "show", "volume", "shop/data")[1], re.MULTILINE)
    assert counted(control) == ["unknown"] * 4
    control.start_storage()
    assert told()["operations"] == 0


def disk(more):
    return ONE.replace("disk: {size: 1MiB}", f"disk: {{{more}}}")


def extra(name, more):
    return f"apiVersion: panloom/v1\nkind: Volume\npan: shop\nname: {name}\n{more}\n"


def until_ready(control, label):
    return until(lambda: (row := control.client.get("resources", "volume", label))["state"] == "ready" and row, label)


def test_a_disk_grows_under_its_running_server(control):
    control.apply(ONE)
    row = control.until_up("shop/web1")
    machine = control[row["node"]]
    machine.writes = True
    (before,) = [session.id for session in control.sessions_of("n1") if not session.target.endswith("personality")]
    code, said, _ = plan(control, disk("size: 3MiB"))
    assert code == 2
    assert "size 1 MiB → 3 MiB" in said
    assert "boot" not in said.splitlines()[-1] or "0 servers boot" in said
    control.apply(disk("size: 3MiB"))
    control.until_event("volume grown", server="shop/web1")
    assert volume(control, "shop.web1").octets == 3 * MIB
    (after,) = [session.id for session in control.sessions_of("n1") if not session.target.endswith("personality")]
    assert (after, control.server("shop/web1")["epoch"]) == (before, 1)
    machine.writes = False
    with pytest.raises(ConfigErrors, match="has 3 MiB and cannot become smaller"):
        control.apply(ONE)
    assert control.apply(disk("size: 3MiB"))["revision"] == 0
    control.kill("storage")
    assert "does not answer" in run_panloom(control, "get", "snapshots")[2]
    control.start_storage()
    control.until_up("shop/web1")
    assert volume(control, "shop.web1").octets == 3 * MIB


def plan(control, text):
    path = control.directory / "plan.yaml"
    path.write_text(text)
    return run_panloom(control, "plan", str(path))


def test_a_snapshot_a_clone_of_it_and_their_end(control):
    control.apply(ONE)
    control.until_up("shop/web1")
    code, said, _ = run_panloom(control, "snapshot", "shop/web1@before")
    assert (code, said.startswith("shop/web1@before: taken in ")) == (0, True)
    assert "stays as it was" in run_panloom(control, "snapshot", "shop/web1@before")[1]
    assert "volume shop/none" in run_panloom(control, "snapshot", "shop/none@before")[2]
    assert "VOLUME@NAME" in run_panloom(control, "snapshot", "shop/web1")[2]
    control.apply(extra("copy", "snapshot: web1@before\nsize: 2MiB"), "copy.yaml")
    row = until_ready(control, "shop/copy")
    assert (row["origin"], row["server"], row["disk_octets"]) == ("shop/web1@before", None, 2 * MIB)
    rows = json.loads(run_panloom(control, "get", "snapshots", "-o", "json")[1])
    assert [(row["name"], row["clones"]) for row in rows] == [("shop/web1@before", ["shop/copy"])]
    wide = run_panloom(control, "get", "volumes", "-o", "wide")[1]
    assert "UNIQUE" in wide.splitlines()[0]
    assert "shop/web1@before" in wide
    code, _, said = run_panloom(control, "delete", "snapshot", "shop/web1@before", "--yes")
    assert (code, "shop.copy is a clone of snapshot" in said) == (1, True)
    assert run_panloom(control, "flatten", "shop/copy")[0] == 0
    until(lambda: not volume(control, "shop.copy").flattening, "it is flat")
    assert "--yes" in run_panloom(control, "delete", "snapshot", "shop/web1@before")[2]
    assert run_panloom(control, "delete", "snapshot", "shop/web1@before", "--yes")[:2] == (
        0,
        "Deleted: shop/web1@before.\n",
    )
    assert run_panloom(control, "get", "snapshots")[1] == ""
    control.client.delete("resources", "volume", "shop/copy", yes="true")
    control.until_event("destroyed")


def test_a_disk_waits_for_its_snapshot_and_a_snapshot_for_its_disk(control):
    control.apply(ONE + "---\n" + extra("copy", "snapshot: web1@later"), "both.yaml")
    control.until_event(
        "held up", text="volume shop/copy: there is no snapshot shop/web1@later; take it, or write another"
    )
    control.until_up("shop/web1")
    control.client.post("volumes", "shop/web1", "snapshots", body={"name": "later"})
    until_ready(control, "shop/copy")
    control.client.delete("resources", "server", "shop/web1")
    control.until_event("removed", server="shop/web1")
    with pytest.raises(ConflictError, match="has snapshots"):
        control.client.delete("resources", "volume", "shop/web1", yes="true")


def test_a_server_boots_from_a_thick_clone_of_a_snapshot(control):
    control.apply(extra("golden", "image: web\nsize: 1MiB") + "---" + empty_pan())
    until_ready(control, "shop/golden")
    control.client.post("volumes", "shop/golden", "snapshots", body={"name": "v1"})
    control.apply(disk("size: 2MiB, snapshot: golden@v1, provisioning: thick"))
    row = control.until_up("shop/web1")
    assert row["image"] == "web"
    facts = volume(control, "shop.web1")
    assert (facts.snapshot, facts.thick, facts.octets) == ("shop.golden@v1", True, 2 * MIB)
    assert facts.allocated_octets >= 2 * MIB
    assert control.apply(disk("size: 2MiB, snapshot: golden@v1, provisioning: thick"))["revision"] == 0
    with pytest.raises(ConfigErrors, match="is a clone of snapshot golden@v1"):
        control.apply(disk("size: 2MiB, provisioning: thick"))


def empty_pan():
    return "\napiVersion: panloom/v1\nkind: PAN\nname: shop\n"


def test_limits_are_changed_under_a_running_server(control):
    """Planned, applied, told, durable over a restart of the storage process, and taken back."""
    control.apply(ONE)
    row = control.until_up("shop/web1")
    assert volume(control, "shop.web1").limits == Limits()
    limited = disk("size: 1MiB, limits: {operations: 300, octets: 2MiB}")
    (control.directory / "limited.yaml").write_text(limited)
    planned = run_panloom(control, "plan", str(control.directory / "limited.yaml"))[1]
    assert "limits" in planned
    control.apply(limited)
    wanted = Limits(operations=300, octets=2 * MIB)
    until(lambda: volume(control, "shop.web1").limits == wanted, "it is limited")
    event = control.until_event("volume limited")
    assert event["text"] == "shop/web1 to 300 operations and 2 MiB a second"
    control.signal("storage", signal.SIGKILL)
    control.processes["storage"].wait(20)
    control.start_storage()
    until(lambda: volume(control, "shop.web1").limits == wanted, "it still is")
    statistics = control.storage(StorageClient.statistics).devices
    assert [device.limits for device in statistics if device.name == "volume:shop.web1"] == [wanted]
    assert control.client.get("resources", "volume", "shop/web1")["limits"] == {"operations": 300, "octets": 2 * MIB}
    control.apply(ONE)
    until(lambda: volume(control, "shop.web1").limits == Limits(), "it is free again")
    assert control.server("shop/web1")["node"] == row["node"]


def test_limits_that_are_none_are_refused(control):
    for wrong in ("limits: {operations: -1}", "limits: {octets: fast}", "limits: {iops: 5}"):
        with pytest.raises(ConfigErrors):
            control.apply(disk(f"size: 1MiB, {wrong}"))
