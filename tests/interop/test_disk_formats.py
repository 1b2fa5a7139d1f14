"""Disks that qemu-img wrote become images; each version keeps its octets and says where they came from."""

import asyncio
import hashlib
import json
import random
import subprocess
from contextlib import contextmanager

import pytest

from panloom.control import image_sources
from panloom.wire.disk_image import DiskImage
from support.control_node import control_node, run_panloom

KIB = 1 << 10
DISK = random.Random(7).randbytes(100 * KIB) + bytes(3000 * KIB) + b"end".ljust(996 * KIB, b"\0")


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    with control_node(tmp_path_factory.mktemp("images"), nodes=1) as control:
        control.start()
        yield control


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(DISK)
    return path


def packed(disk, disk_format, *options):
    path = disk.with_suffix(f".{disk_format}")
    command = ("qemu-img", "convert", "-f", "raw", "-O", disk_format, *options, disk, path)
    subprocess.run(command, check=True, capture_output=True)
    return path


def octets_of(control, label):
    (path,) = (control.directory / "store" / "images").glob(f"{label}.*")
    return path.read_bytes()


def sha256(octets):
    return hashlib.sha256(octets).hexdigest()


def row_of(control, label):
    return json.loads(run_panloom(control, "show", "image", label, "-o", "json")[1])


@pytest.mark.parametrize(
    ("name", "disk_format", "options"),
    [
        ("plain", "qcow2", ()),
        ("packed", "qcow2", ("-c", "-o", "compression_type=zstd")),
        ("older", "qcow2", ("-o", "compat=0.10")),
        ("sparse", "vmdk", ()),
        ("stream", "vmdk", ("-o", "subformat=streamOptimized")),
    ],
)
def test_a_packed_disk_becomes_an_image_of_the_same_octets(control, disk, name, disk_format, options):
    file = packed(disk, disk_format, *options)
    status, said, beside = run_panloom(
        control, "image", "import", str(file), name, "--note", "suite=bookworm", "--tag", "new"
    )
    assert (status, said) == (0, f"{name}@1: 4 MiB, from {disk_format}, SHA-256 {sha256(DISK)}\n"), beside
    assert octets_of(control, f"{name}@1") == DISK
    row = row_of(control, f"{name}@1")
    assert row["source_sha256"] == sha256(file.read_bytes())
    assert (row["source"], row["provenance"]) == (str(file), {"suite": "bookworm"})
    assert row["tags"] == ["new"]
    assert list((control.directory / "state" / "incoming").iterdir()) == []


def test_each_import_is_the_next_version_and_all_are_listed(control, disk):
    for version in (1, 2):
        disk.write_bytes(DISK[: version * 512 * KIB])
        assert run_panloom(control, "image", "import", str(disk), "many")[0] == 0
        assert octets_of(control, f"many@{version}") == DISK[: version * 512 * KIB]
    table = run_panloom(control, "get", "images", "-o", "wide")[1]
    assert [line.split()[0] for line in table.splitlines() if line.startswith("many@")] == ["many@1", "many@2"]
    assert sha256(DISK[: 512 * KIB]) in table


def test_a_version_that_is_there_stays_what_it_is(control, disk):
    assert run_panloom(control, "image", "import", str(disk), "kept@5")[0] == 0
    other = packed(disk, "qcow2")
    status, _, why = run_panloom(control, "image", "import", str(other), "kept@5")
    assert status == 1
    assert "stays what it is" in why
    assert octets_of(control, "kept@5") == DISK
    status, said, _ = run_panloom(control, "image", "import", str(other), "kept")
    assert (status, said.partition(":")[0]) == (0, "kept@6")


def test_a_disk_with_another_digest_than_it_should_have_never_becomes_an_image(control, disk):
    file = packed(disk, "qcow2")
    good, wrong = sha256(DISK), sha256(b"something else")
    assert run_panloom(control, "image", "import", str(file), "signed", "--sha256", good)[0] == 0
    with refused(control, file, "forged", "--sha256", wrong) as why:
        assert good in why
        assert wrong in why


def test_a_disk_that_would_draw_in_another_file_is_refused(control, disk, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret".ljust(4096 * KIB, b"\0"))
    over = tmp_path / "over.qcow2"
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, over)
    subprocess.run(create, check=True)
    with refused(control, over, "over") as why:
        assert "backing file" in why
    flat = packed(disk, "vmdk", "-o", "subformat=monolithicFlat")
    with refused(control, flat, "flat") as why:
        assert "in other files" in why
    split = tmp_path / "split.qcow2"
    options = f"data_file={tmp_path / 'data'},data_file_raw=on"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, split, "4M"), check=True)
    with refused(control, split, "split") as why:
        assert "in another file" in why
    parent = packed(secret, "vmdk")
    child = tmp_path / "child.vmdk"
    subprocess.run(("qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", parent, child), check=True)
    head = child.read_bytes()
    line = b'ddb.adapterType = "ide"\n'
    assert line in head
    child.write_bytes(head.replace(line, b"parentCID=ffffffff\n".rjust(len(line), b"\n")))
    with refused(control, child, "child") as why:
        assert "over another one" in why


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk"])
def test_a_disk_is_unpacked_without_what_it_lies_over_even_if_that_was_overlooked(disk, tmp_path, disk_format):
    over = tmp_path / f"over.{disk_format}"
    create = ("qemu-img", "create", "-q", "-f", disk_format, "-F", disk_format, "-b", packed(disk, disk_format), over)
    subprocess.run(create, check=True)
    octets = over.read_bytes()
    with over.open("rb") as file:
        whole = DiskImage(disk_format, len(DISK), 1 << 16)
        asyncio.run(image_sources._convert(str(over), file.fileno(), whole, tmp_path / "raw"))
    assert (tmp_path / "raw").read_bytes() == bytes(len(DISK))
    assert over.read_bytes() == octets


@pytest.mark.parametrize(("disk_format", "octets"), [("qcow2", 150 * KIB), ("qcow2", 330 * KIB), ("vmdk", 90 * KIB)])
def test_a_file_that_is_cut_off_is_refused_and_nothing_of_it_stays(control, disk, disk_format, octets):
    file = packed(disk, disk_format)
    file.write_bytes(file.read_bytes()[:octets])
    with refused(control, file, "torn") as why:
        assert "a part of it is missing" in why
        assert list((control.directory / "state" / "incoming").iterdir()) == []


@contextmanager
def refused(control, file, name, *options):
    """Expect that a file becomes no image; yield what is said."""
    status, said, why = run_panloom(control, "image", "import", str(file), name, *options)
    assert (status, said) == (1, "")
    assert list((control.directory / "store" / "images").glob(f"{name}@*")) == []
    assert row_of(control, f"{name}@1")["state"] == "to be imported"
    yield why
    assert run_panloom(control, "delete", "image", f"{name}@1")[0] == 0
