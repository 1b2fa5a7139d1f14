"""Golden disks captured from donors: a server's disk, a snapshot, a unit of tgtd's.  The donor is never changed."""

import hashlib
import json
import random
import re
import signal

import pytest

from panloom.storage.client import StorageClient
from support.control_node import IMAGE, control_node, pan, run_panloom
from support.tgtd import TARGET, Tgtd
from support.volume_reader import read_volume
from support.waiting import until

MIB = 1 << 20
MARK = re.compile(rb"shop/web1:1:[0-9]+")


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    with control_node(tmp_path_factory.mktemp("capture"), nodes=2) as control:
        control.start()
        control.apply(pan("shop", "web1"))
        machine = control[control.until_up("shop/web1")["node"]]
        machine.writes = True
        until(lambda: MARK.search(disk_of(control, "shop.web1")), "the server has written to its disk")
        yield control


def disk_of(control, name):
    """Return what a volume holds; a file of its may be merged into another while they are read."""

    def read():
        try:
            return read_volume(control.directory / "store", name)
        except FileNotFoundError:
            return None

    return until(read, f"the files of {name} stay for as long as it takes to read them")


def octets_of(control, label):
    (path,) = (control.directory / "store" / "images").glob(f"{label}.*")
    return path.read_bytes()


def left_behind(control):
    """Return what a capture needs for a while: snapshots, clones, exports, files on their way."""
    stored, status = control.storage(StorageClient.volumes), control.storage(StorageClient.status)
    names = [entry.name for entry in (*stored.volumes, *stored.snapshots)] + [one.target for one in status.exports]
    incoming = control.directory / "state" / "incoming"
    return [name for name in names if "capture" in name] + list(incoming.glob("*"))


def capture(control, *arguments):
    status, said, why = run_panloom(control, "image", "capture", *arguments)
    assert status == 0, why
    return said


def test_cap_063_068_an_image_of_a_donor_has_its_octets_and_leaves_it_as_it_was(control):
    """The donor is frozen first, so that there is something that can be compared octet for octet."""
    assert run_panloom(control, "snapshot", "shop/web1@donor")[0] == 0
    before = disk_of(control, "shop.web1@donor")
    said = capture(control, "shop/web1@donor", "golden", "--note", "from=web1")
    assert octets_of(control, "golden@1") == before
    assert MARK.search(before)
    assert hashlib.sha256(before).hexdigest() in said
    assert disk_of(control, "shop.web1@donor") == before
    row = json.loads(run_panloom(control, "show", "image", "golden@1", "-o", "json")[1])
    assert (row["source"], row["format"], row["provenance"]) == ("shop/web1@donor", "copy", {"from": "web1"})
    assert left_behind(control) == []


def test_cap_063_a_machine_that_boots_from_the_image_finds_what_the_donor_wrote(control):
    capture(control, "shop/web1", "twin")
    mark = MARK.search(octets_of(control, "twin@1"))[0]
    control.apply(pan("copy", "web2").replace("image: web", "image: twin"))
    row = control.until_up("copy/web2")
    assert control[row["node"]].runs("copy/web2")
    assert mark in disk_of(control, "copy.web2")


def test_a_server_goes_on_writing_while_its_disk_is_captured(control):
    writer, session = control[control.server("shop/web1")["node"]], control.server("shop/web1")["epoch"]
    capture(control, "shop/web1", "live")
    found = octets_of(control, "live@1")
    assert found[: 1 << 15] == IMAGE[: 1 << 15]  # marks begin behind it
    assert len(found) == MIB
    newest = max(int(mark.rsplit(b":")[-1]) for mark in MARK.findall(found))

    def goes_on():
        marks = MARK.findall(disk_of(control, "shop.web1"))
        return max(int(mark.rsplit(b":")[-1]) for mark in marks) > newest

    until(goes_on, "later marks are on the donor's disk")
    assert writer.runs("shop/web1", session)
    assert left_behind(control) == []


@pytest.fixture
def foreign(control, tmp_path):
    with Tgtd(tmp_path, 12 * MIB, inside=control.inside) as tgtd:
        tgtd.want("donor", "donor-secret-12")
        octets = bytearray(12 * MIB)
        octets[: 5 * MIB] = random.Random(3).randbytes(5 * MIB)
        octets[-512:] = b"z" * 512
        tgtd.disk.write_bytes(octets)
        yield tgtd


def url(tgtd):
    return f"iscsi://127.0.0.1:{tgtd.port}/{TARGET}/1"


def test_cap_063_068_the_disk_of_another_appliance_becomes_an_image(control, foreign, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("donor-secret-12\n")
    before = foreign.disk.read_bytes()
    capture(control, url(foreign), "foreign", "--user", "donor", "--secret-file", str(secret))
    assert octets_of(control, "foreign@1") == before
    assert foreign.disk.read_bytes() == before


@pytest.mark.parametrize(
    ("donor", "why"),
    [
        ("shop/absent", "shop.absent"),
        ("shop/web1@absent", "shop.web1@absent"),
        ("iscsi://127.0.0.1:9/iqn.2026-11.dev.panloom:none", "127.0.0.1"),
    ],
)
def test_a_donor_that_is_not_there_is_said_and_nothing_stays(control, donor, why):
    status, _, said = run_panloom(control, "image", "capture", donor, "nothing")
    assert (status, why in said) == (1, True), said
    assert run_panloom(control, "delete", "image", "nothing@1")[0] == 0
    assert left_behind(control) == []


def test_a_donor_that_wants_another_secret_is_said(control, foreign, tmp_path):
    (tmp_path / "wrong").write_text("not-the-secret-1")
    arguments = ("--user", "donor", "--secret-file", str(tmp_path / "wrong"))
    status, _, said = run_panloom(control, "image", "capture", url(foreign), "locked", *arguments)
    assert status == 1
    assert "authentication" in said.lower(), said
    assert run_panloom(control, "delete", "image", "locked@1")[0] == 0


@pytest.mark.parametrize("donor", ["web1", "shop/web1@", "iscsi://host/iqn.2026-11.dev.panloom:x", "/dev/sda", "a/b/c"])
def test_what_is_no_donor_is_refused_where_it_is_written(control, donor):
    status, _, said = run_panloom(control, "image", "capture", donor, "nothing")
    assert status == 1
    assert "write PAN/VOLUME" in said


def test_a_capture_that_a_kill_interrupted_is_done_and_cleaned_up_by_the_next_start(control):
    control.signal("control", signal.SIGTERM)
    control.processes["control"].wait()
    control.start_control(PANLOOM_FAILPOINT="captured")
    control.apply("apiVersion: panloom/v1\nkind: Image\nname: killed\ncapture: shop/web1\n", "killed.yaml")
    control.died_by_itself("control")
    assert len(left_behind(control)) == 4  # snapshot, clone, target, file
    control.start_control()
    until(lambda: list((control.directory / "store" / "images").glob("killed@1.*")), "the image is there")
    until(lambda: left_behind(control) == [], "nothing is left behind")
    assert len(octets_of(control, "killed@1")) == MIB
