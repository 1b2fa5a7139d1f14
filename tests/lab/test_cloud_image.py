"""A stock cloud image becomes a server: nothing of Panloom's is in it, and the disc CIDATA tells it who it is.

FILE ──panloom image import──▶ cloud@1 ──clone──▶ GRUB ▶ open-iscsi's initramfs ▶ cloud-init ──▶ SSH at 10.1.0.11
"""

import os
import subprocess

import msgspec
import pytest

from panloom.lab.chassis import Chassis
from panloom.lab.running import RunningLab
from support.cloud_image import cloud_image
from support.debian_image import BOOT_SECONDS
from support.lab import LabInTest, image, pan
from support.namespaces import LoopInside, namespace
from support.terminal import COMMAND
from support.waiting import until

pytestmark = [pytest.mark.machine, pytest.mark.long, pytest.mark.timeout(3000)]
FACTS = "; ".join(
    (
        *("uname -n", "cloud-id", "cloud-init query instance_id"),
        *("ls -d /usr/lib/panloom || echo bare", "df -B1 --output=size /"),
    )
)


def new_key(directory):
    """Make a key; return its file and what a document says of it."""
    file = directory / "key"
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", file], check=True, capture_output=True)
    shown = subprocess.run(["dropbearkey", "-y", "-f", file], check=True, capture_output=True, text=True).stdout
    return file, next(line for line in shown.splitlines() if line.startswith("ssh-"))


def import_image(lab, file):
    """Bring a disk in as `cloud`, as a person does."""
    words = (*COMMAND[:-1], "image", "import", str(file), "cloud")
    told = {**os.environ, "PANLOOM_SOCKET": str(lab.lab.control_socket)}
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return new_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory, key):
    disk, chassis = cloud_image(), Chassis.of(nodes=1)
    large = tuple(msgspec.structs.replace(machine, memory_octets=512 << 20) for machine in chassis.machines)
    with namespace("lab") as inside, LoopInside(inside) as loop:
        directory = tmp_path_factory.mktemp("cloud")
        running = RunningLab(directory, chassis=msgspec.structs.replace(chassis, machines=large))
        lab = LabInTest(running, inside, loop, image(writer=False))
        try:
            lab.call(running.start(lab.image), seconds=120)
            lab.declare(boot_timeout="600s", liveness={"interval": "1s", "timeout": "60s"})
            import_image(lab, disk)
            more = f"disk: {{size: 2GiB}}\n    ssh_keys: ['{key[1]}']\n    failover: no"
            lab.apply(pan(servers="web1", address="10.1.0.11", more=more).replace("image: web", "image: cloud"))
            yield lab
        finally:
            lab.call(running.stop())


@pytest.fixture(scope="module")
def facts(lab, key):
    """Log in by the key of the document at the address of the document, and ask."""
    words = ("dbclient", "-y", "-y", "-i", key[0], "debian@10.1.0.11", FACTS)

    def told():
        try:
            done = lab.inside.run(*words, seconds=60, check=False)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.decode().splitlines() if done.stdout else None

    try:
        return until(told, "the server lets the key in", seconds=BOOT_SECONDS)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *lab.console("n1")[-60:]])) from error


def test_a_stock_cloud_image_is_named_reached_and_entered_as_its_document_says(lab, facts):
    name, cloud, instance, without, *sizes = facts
    assert (name, cloud) == ("web1", "nocloud")
    assert len(instance) == 36
    assert int(sizes[-1]) > 1.8 * (1 << 30), "cloud-init has grown its file system"
    assert without == "bare"


def test_without_beacons_it_is_up_by_its_answers_to_the_target(lab, facts):
    row = lab.until_up("shop/web1")
    assert row["node"] == "n1"
    assert not row.get("system"), "no report has come"
