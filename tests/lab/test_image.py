"""The image is the same octet for octet each time, appears whole or not at all, and is made once."""

import os
import re
import shutil
import struct
import subprocess

import pytest

from panloom.errors import UnavailableError
from panloom.lab.guest_files import collect_guest
from panloom.lab.image import WRITER_RING, build_image
from support.foreign import PACKAGES, busybox

BOOT_OFFSET, ROOT_OFFSET = 2048 * 512, 133120 * 512


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "web.img"
    return path, build_image(PACKAGES, path)


def debugfs(image, request):
    command = ["debugfs", "-R", request, f"{image}?offset={ROOT_OFFSET}"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_same_inputs_same_octets(image, tmp_path):
    path, facts = image
    again = tmp_path / "deep" / "other.img"
    assert build_image(PACKAGES, again) == facts
    assert again.read_bytes() == path.read_bytes()
    assert {file.name for file in again.parent.iterdir()} == {"other.img", "other.img.json"}


def test_what_is_there_is_not_made_again(image):
    path, facts = image
    before = path.stat()
    assert build_image(PACKAGES, path) == facts
    assert path.stat() == before


def test_other_inputs_other_image(tmp_path, image):
    path = tmp_path / "web.img"
    shutil.copy(image[0], path)
    shutil.copy(f"{image[0]}.json", f"{path}.json")
    facts = build_image(PACKAGES, path, extra_files={"/panloom-writer": b"", "/etc/motd": b"woven\n"})
    assert facts.inputs != image[1].inputs
    assert debugfs(path, "cat /etc/motd") == b"woven\n"


def test_boot_record_names_both_partitions(image):
    sector = image[0].read_bytes()[:512]
    assert sector[510:] == b"\x55\xaa"
    partitions = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * number) for number in range(4)]
    assert partitions == [(0x80, 0xEF, 2048, 131072), (0, 0x83, 133120, 129024), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert image[1].octets == image[0].stat().st_size == (133120 + 129024) * 512


def test_program_of_uefi_lies_in_one_piece_and_starts_what_syslinux_starts(image):
    def copied(name):
        drive = f"{image[0]}@@{BOOT_OFFSET}"
        return subprocess.run(["mcopy", "-i", drive, f"::{name}", "-"], capture_output=True, check=True).stdout

    program, octets = copied("EFI/BOOT/BOOTX64.EFI"), image[0].read_bytes()
    assert BOOT_OFFSET < octets.find(program) < ROOT_OFFSET
    (command_line,) = re.findall(r"^ APPEND (.*)$", copied("syslinux.cfg").decode(), re.MULTILINE)
    for part in (copied("vmlinuz"), copied("initrd.img"), command_line.encode()):
        assert part in program


def test_ring_of_the_writer_is_empty_space(image):
    octets = image[0].read_bytes()[512 : WRITER_RING.stop * 512]
    assert not any(octets)


def test_root_file_system_is_sound_and_owned_by_root(image):
    checked = subprocess.run(["e2fsck", "-fn", f"{image[0]}?offset={ROOT_OFFSET}"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout
    listing = debugfs(image[0], "ls -l /sbin").decode().splitlines()
    modes = {words[-1]: words[1:5] for words in (line.split() for line in listing if line.strip())}
    assert modes["init"] == modes["os"] == ["100755", "(1)", "0", "0"]


def test_scripts_need_only_what_the_root_disk_has():
    guest = collect_guest(PACKAGES, {})
    applets = set(subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True).stdout.split())
    linked = {path.removeprefix("bin/") for path, node in guest.root.items() if node.content == b"busybox"}
    assert linked <= applets


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("initramfs")
    archive = collect_guest(PACKAGES, {}).initramfs
    subprocess.run([busybox(), "cpio", "-i"], input=archive, cwd=directory, capture_output=True, check=True)
    return directory


def test_initramfs_is_an_archive_that_busybox_reads(initramfs):
    for path in ("init", "bin/sh", "sbin/iscsistart", "lib/libc.so.6", "lib64/ld-linux-x86-64.so.2"):
        assert (initramfs / path).exists()
    assert (initramfs / "bin" / "busybox").read_bytes() == busybox().read_bytes()


def test_modules_come_after_what_they_need(initramfs):
    loaded = set()
    for module in sorted((initramfs / "modules").iterdir()):
        (needs,) = re.findall(rb"\0depends=([^\0]*)\0", module.read_bytes())
        name = module.stem.partition("-")[2].replace("-", "_")
        assert set(needs.decode().replace("-", "_").split(",")) - {""} <= loaded, name
        loaded.add(name)
    assert {"virtio_net", "iscsi_tcp", "iscsi_ibft", "sd_mod", "macvlan"} <= loaded


def test_missing_package_is_named(tmp_path):
    with pytest.raises(UnavailableError, match="make setup-demo"):
        build_image(tmp_path, tmp_path / "web.img")


def test_failing_tool_leaves_nothing(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    failing = tools / "debugfs"
    failing.write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    output = tmp_path / "images" / "web.img"
    with pytest.raises(UnavailableError, match="debugfs failed: no space"):
        build_image(PACKAGES, output)
    assert not any(output.parent.iterdir())
