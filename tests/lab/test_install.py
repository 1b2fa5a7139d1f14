"""An empty disk, an installer that comes over the network, and then a boot from the disk.

sanboot: nothing to boot ─▶ installer by HTTP (MAC 1) ─▶ image by HTTP (MAC 2) ─▶ disk by iSCSI (MAC 1) ─▶ reset
sanboot: the system
"""

import functools
import gzip
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.guest_files import collect_guest
from panloom.lab.image import SECTOR_OCTETS
from panloom.lab.running import RunningLab
from support.lab import IMAGES, ONE, PACKAGES, LabInTest, Sniffer, image
from support.namespaces import LoopInside, namespace

pytestmark = [pytest.mark.machine, pytest.mark.timeout(400)]
MAC1, MAC2 = bytes.fromhex("525400770001"), bytes.fromhex("02504c000001")
MIRROR, MIRROR_PORT, ISCSI_PORT = "10.1.0.254", 8000, 3260
SECONDS = 180.0
BEGIN = range(1024 * SECTOR_OCTETS)
INSTALLER = f"""#!ipxe
kernel install.vmlinuz panloom.install=http://{MIRROR}:{MIRROR_PORT}/web.img console=ttyS0,115200 panic=-1 quiet nokaslr
initrd install.cpio.gz
boot
"""


class Frames:
    """TCP frames of the machine's by its MAC and their port, and what it asks of HTTP servers, in order."""

    def __init__(self):
        self.octets = {}
        self.requests = []

    def take(self, frame, _direction):
        if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[6:12] not in (MAC1, MAC2):
            return False
        port, head = int.from_bytes(frame[36:38], "big"), 34 + (frame[46] >> 4) * 4
        payload = frame[head:]  # its begin: segments that the card is to cut are longer than what is kept of them
        octets = int.from_bytes(frame[16:18], "big") + 14 - head
        self.octets[frame[6:12], port] = self.octets.get((frame[6:12], port), 0) + octets
        if payload.startswith(b"GET "):
            self.requests.append((frame[6:12], payload.split()[1].decode().rpartition("/")[2]))
        return False


@dataclass
class Seen:
    """What was seen of the machine until it answered."""

    frames: Frames
    console: list[str]
    page: Mapping[str, str]
    begin: bytes  # of its disk
    image: Path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def mirror():
    """Serve the lab's image at an address of the server's LAN."""

    def start(lab):
        handler = functools.partial(Quiet, directory=IMAGES)
        server = ThreadingHTTPServer((MIRROR, MIRROR_PORT), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = lab.inside.socket(lambda: socket.create_server((MIRROR, MIRROR_PORT)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)

    started = []
    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory, mirror):
    directory, installed = tmp_path_factory.mktemp("install"), image(writer=False)
    guest = collect_guest(PACKAGES, {})
    files = directory / "files"
    files.mkdir()
    (files / "install.ipxe").write_text(INSTALLER)
    (files / "install.vmlinuz").write_bytes(guest.kernel)
    (files / "install.cpio.gz").write_bytes(gzip.compress(guest.initramfs, 1))
    blank = directory / "blank.img"
    with blank.open("wb") as file:
        file.truncate(installed.stat().st_size)
    chassis, frames = Chassis.of(nodes=1), Frames()
    with namespace("lab") as inside, LoopInside(inside) as loop:
        lab = LabInTest(RunningLab(directory, chassis=chassis), inside, loop, blank)
        try:
            lab.call(lab.lab.start(blank))
            mirror(lab)
            lab.declare(boot_timeout=f"{SECONDS:.0f}s", liveness={"interval": "1s", "timeout": f"{SECONDS:.0f}s"})
            sniffer = Sniffer(inside, chassis.machines[0].tap, frames.take)
            lab.apply(ONE)
            lab.until_up("shop/web1", seconds=SECONDS)
            page = lab.until_answers("shop/web1", seconds=SECONDS)
            sniffer.close()
            yield Seen(frames, lab.console("n1"), page, lab._volume("shop.web1", BEGIN), installed)
        finally:
            lab.call(lab.lab.stop())


def test_cap_014_an_empty_target_is_installed_and_booted_from(seen):
    assert seen.page["boots"] == "1"
    stages = re.findall(r"stage=(\w+)", "\n".join(seen.console))
    assert stages.index("install") < stages.index("installed") < stages.index("root")
    with seen.image.open("rb") as file:
        assert seen.begin == file.read(len(seen.begin))
    script, *fetched, script_again = [name for _, name in seen.frames.requests]
    assert fetched == ["install.ipxe", "install.vmlinuz", "install.cpio.gz", "web.img"]  # and none at the second boot
    assert script != script_again


def test_cap_014_downloads_leave_by_mac_2_and_writes_by_mac_1(seen):
    octets, disk = seen.frames.octets, seen.image.stat().st_size
    assert [name for mac, name in seen.frames.requests if mac == MAC2] == ["web.img"]
    assert octets[MAC1, ISCSI_PORT] > disk // 2  # of a busy wire not every frame may have been seen
    assert octets[MAC2, MIRROR_PORT] > 0
    assert (MAC2, ISCSI_PORT) not in octets
    assert (MAC1, MIRROR_PORT) not in octets
